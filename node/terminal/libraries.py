"""Loads libraries that call `os.getcwd` at import and fail if the working folder has no name."""

import errno
import os
from contextlib import suppress


def load_anywhere() -> None:
    """Load rich even if the working folder's name cannot be read; call this first in a process.

    Rich tolerates a working folder that was deleted, but not one above which this user may not
    search. We never resolve paths against that folder without checking it ourselves
    (`node.system.safe_paths.absolute`).
    """
    with suppress(FileNotFoundError):
        try:
            os.getcwd()  # noqa: PTH109  # as the library does
        except PermissionError:
            _load_as_if_gone()


def _load_as_if_gone() -> None:
    named = os.getcwd

    def gone() -> str:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    os.getcwd = gone
    try:
        import rich  # noqa: F401
    finally:
        os.getcwd = named
