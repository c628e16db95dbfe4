"""How long one side of a transfer waits for the other: what comes earns time, signs of life none.

What a transfer reserves (room, a share of memory, a package's name) others do not get. So who
only keeps the line alive, or sends a byte a minute, loses it in the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from node.errors import PeerTimeout
from node.exchange.transfer.sender_machine import WINDOW_BYTES

LEAST_SECONDS = 60.0
LEAST_BYTES_A_SECOND = 16 * 2**10
"""Of one transfer: eight of them share a line of one Mbit/s."""

ANSWER_SECONDS = 600.0
LEAST_CHECKED_A_SECOND = 4 * 2**20
"""By a receiver that reads and checks what is there already, and says nothing meanwhile."""


class Patience:
    """The time that the other side has left. Only waiting for it uses that up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent = 0.0

    def earn(self, size: int) -> None:
        """Give time back for bytes that have come."""
        self._spent = max(0.0, self._spent - size / LEAST_BYTES_A_SECOND)

    def spend(self, seconds: float) -> None:
        """Note that the other side was waited for.

        Raises:
            PeerTimeout: longer than it may take.
        """
        self._spent += seconds
        if self._spent >= self._seconds:
            raise PeerTimeout(f"the other side sent nothing of use for {self._seconds:.0f} s")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Bound the block, in which the other side is waited for; `PeerTimeout` as `spend`.

        Cancellation: of the block at the end of the time; the link is of no use afterwards.
        """
        started = trio.current_time()
        with trio.move_on_after(self._seconds - self._spent):
            yield
        self.spend(trio.current_time() - started)


def for_bytes(size: int) -> Patience:
    """Return the patience with one who is to send so many bytes, a window at a time."""
    return Patience(max(LEAST_SECONDS, min(size, WINDOW_BYTES) / LEAST_BYTES_A_SECOND))


def for_checking(size: int) -> Patience:
    """Return the patience with one who answers, and may have so many bytes to check first."""
    return Patience(ANSWER_SECONDS + size / LEAST_CHECKED_A_SECOND)
