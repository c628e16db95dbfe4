"""Whether writing to disk has failed in this process: then it must stop.

The kernel may have dropped the pages of a failed sync, so nothing that follows proves
anything. Whoever meets such a failure notes it here, and the node ends.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Failure:
    """The one note of the process, and whom to tell."""

    def __init__(self) -> None:
        self.has_failed = False
        self.tell: Callable[[], None] = lambda: None


_failure = _Failure()


def note() -> None:
    """Note a failure; called on whatever thread met it."""
    _failure.has_failed = True
    _failure.tell()


def has_failed() -> bool:
    """Return whether a failure was noted since this process began."""
    return _failure.has_failed


@contextmanager
def watched(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell`, from whatever thread it happens on, when a failure is noted."""
    _failure.tell = tell
    try:
        yield
    finally:
        _failure.tell = lambda: None
