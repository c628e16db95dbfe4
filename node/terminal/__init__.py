"""Shared code of commands: output, errors, exit status."""
