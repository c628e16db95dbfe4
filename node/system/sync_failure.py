"""Whether a sync to disk has failed in this process, which must then stop.

The kernel may have dropped the pages of a failed sync, so a later sync that succeeds proves
nothing. The code that meets such a failure notes it here, and the node ends.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Failure:
    """The process's one record of a failure, and the function to call."""

    def __init__(self) -> None:
        self.has_failed = False
        self.notify: Callable[[], None] = lambda: None


_failure = _Failure()


def note() -> None:
    """Note a failure; called on whatever thread met it."""
    _failure.has_failed = True
    _failure.notify()


def has_failed() -> bool:
    """Return whether a failure was noted since this process began."""
    return _failure.has_failed


@contextmanager
def watched(notify: Callable[[], None]) -> Iterator[None]:
    """Call `notify`, from whatever thread it happens on, when a failure is noted."""
    _failure.notify = notify
    try:
        yield
    finally:
        _failure.notify = lambda: None
