"""Passphrases of commands: from a file, or from the prompt."""

import sys
from contextlib import suppress
from pathlib import Path

import click

from node.domain.display_text import plain_text
from node.errors import NodeError, UsageError
from node.system import safe_paths

_MOST_BYTES = 64 * 1024


def passphrase_in(path: str | None) -> bytes | None:
    """Return the passphrase in a file; None for no file, `UsageError` if it holds none."""
    if path is None:
        return None
    try:
        data = safe_paths.read_file(Path(path), _MOST_BYTES)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror})") from exc
    with suppress(ValueError):  # a passphrase may be any bytes, but for a mark before it
        data = plain_text(data).encode()
    passphrase = data.rstrip(b"\r\n")
    if not passphrase:
        raise UsageError(f"{path} is empty; write a passphrase into it")
    return passphrase


def prompted(label: str, otherwise: NodeError, *, is_new: bool = False) -> bytes:
    """Return a passphrase that a person types; twice, if it is new.

    Raises:
        NodeError: there is no terminal; `otherwise` is raised.
    """
    if not sys.stdin.isatty():
        raise otherwise
    typed: str = click.prompt(label, hide_input=True, confirmation_prompt=is_new)
    return typed.encode()
