"""Libraries that ask for the working folder as they are loaded, and end where it has no name."""

import errno
import os
from contextlib import suppress


def load_anywhere() -> None:
    """Have rich loaded where the working folder may not be named; first thing in a process.

    It bears a folder that is gone, and no other that the system does not name: one on a disk that
    was taken away, or above which this user may not look. We never name files by that folder
    without asking ourselves (`node.system.safe_paths.absolute`).
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
