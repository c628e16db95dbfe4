"""Lossless compression of what chunks hold, by what the bytes are."""
