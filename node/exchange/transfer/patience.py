"""How long one side of a transfer waits for the other. Data extends the time; heartbeats do not.

A transfer reserves resources (room, memory, a package's name) that others cannot use meanwhile. So
a peer that only sends heartbeats, or a byte a minute, times out.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from node.errors import PeerTimeout
from node.exchange.transfer.sender_machine import WINDOW_BYTES

LEAST_SECONDS = 60.0
LEAST_BYTES_A_SECOND = 16 * 2**10
"""Of one transfer, over all its links together: eight of them share a line of one Mbit/s."""

ANSWER_SECONDS = 600.0
LEAST_CHECKED_A_SECOND = 4 * 2**20
"""The least rate at which a receiver checks what it has already; it is silent meanwhile."""


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
            PeerTimeout: the time is used up.
        """
        self._spent += seconds
        if self._spent >= self._seconds:
            raise PeerTimeout(f"the transfer made no progress for {self._seconds:.0f} s")

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
    """Return the patience with a peer that has to send `size` bytes, a window at a time."""
    return Patience(max(LEAST_SECONDS, min(size, WINDOW_BYTES) / LEAST_BYTES_A_SECOND))


def for_checking(size: int) -> Patience:
    """Return the patience with a peer that has to answer, and may check `size` bytes first."""
    return Patience(ANSWER_SECONDS + size / LEAST_CHECKED_A_SECOND)
