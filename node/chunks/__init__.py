"""Sealed chunks: how they are encoded, and where they are kept."""
