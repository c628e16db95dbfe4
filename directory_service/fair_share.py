"""Fair scheduling of a relay's configured rate between pairs.

Pairs take turns, however many connections each has: one connection of a pair at a time waits in the
queue, which is first come, first served. Without a configured rate there is no queue: the kernel
and the event loop divide the capacity between connections, of which a pair has a few at most.
"""

from collections.abc import Hashable

import trio

_LEAST_PIECE, _LARGEST_PIECE = 1 << 14, 1 << 20
_PIECES_A_SECOND = 50  # so that who waits for others does not wait long
_BUFFERS_A_SECOND, _LEAST_BUFFER, _LARGEST_BUFFER = 4, 1 << 16, 1 << 22
_SAVED_SECONDS = 0.05  # how long unused capacity can be made up for, since timers are late


class FairShare:
    """Hands out a line's rate in turns."""

    def __init__(self, bytes_a_second: int) -> None:
        """Prepare; 0 for no bound."""
        self._rate = bytes_a_second
        self._line = trio.Lock()  # first come, first served
        self._places: dict[Hashable, trio.Lock] = {}
        self._free_time = 0.0

    @property
    def piece_bytes(self) -> int:
        """How much should be asked for at once."""
        if not self._rate:
            return _LARGEST_PIECE
        return min(max(self._rate // _PIECES_A_SECOND, _LEAST_PIECE), _LARGEST_PIECE)

    @property
    def buffer_bytes(self) -> int:
        """How much may wait at each end of a connection; 0 for as much as the kernel likes."""
        if not self._rate:
            return 0
        return min(max(self._rate // _BUFFERS_A_SECOND, _LEAST_BUFFER), _LARGEST_BUFFER)

    async def wait(self, pair: Hashable, count: int) -> None:
        """Wait until it is a pair's turn to pass on some bytes.

        Cancellation:
            At any time; its turn may be lost, nobody else's.
        """
        if not self._rate:
            return
        place = self._places.setdefault(pair, trio.Lock())
        try:
            async with place, self._line:
                start = max(self._free_time, trio.current_time() - _SAVED_SECONDS)
                self._free_time = start + count / self._rate
                await trio.sleep_until(start)
        finally:
            if not place.locked():
                self._places.pop(pair, None)
