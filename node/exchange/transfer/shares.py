"""What one peer may take of this node, so that there is enough for the others.

Everything here is reserved before it is used and given back at the end, so that a bound holds
when many come at once. A peer that has taken its share is told to come later, or goes slower.
"""

import os
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Generic, TypeVar

import trio

from node.domain.ids import FacilityId
from node.errors import PeerBusy

T = TypeVar("T")
_BUSY_SECONDS = 30.0
PLACE_SECONDS = 180.0
"""So long a place in a line is kept: who is told to come later does so within 75 seconds."""

MANIFEST_BYTES_A_SECOND, MANIFEST_BYTES_AT_ONCE = 2.0**19, 2.0**20
"""Of one peer: a manifest of a thousand images has 300 KiB, and a mebibyte takes 100 ms in all."""


class Share:
    """So much of something in all, and so much of it for one peer at most.

    Nobody takes more than half of what is left, so that something is left for who comes next.
    """

    def __init__(self, what: str, *, in_all: int, per_peer: int) -> None:
        self._what = what
        self._in_all, self._per_peer = in_all, per_peer
        self._taken: Counter[FacilityId] = Counter()

    @contextmanager
    def taken(self, peer: FacilityId, amount: int) -> Iterator[None]:
        """Take an amount for the time of the block.

        Raises:
            PeerBusy: the peer has its share already, or too little is left.
        """
        mine = self._taken[peer] + amount
        if mine > self._per_peer or 2 * amount > self._in_all - self._taken.total():
            self._taken += Counter()
            raise PeerBusy(f"{self._what} of this facility are too many at once", _BUSY_SECONDS)
        self._taken[peer] = mine
        try:
            yield
        finally:
            self._taken[peer] -= amount
            self._taken += Counter()  # without those that have nothing


class Line(Generic[T]):
    """Who was refused, in that order, so that nobody goes before them for ever.

    Who does not come back in time has left.
    """

    def __init__(self) -> None:
        self._places: dict[Hashable, tuple[float, T]] = {}

    def wait(self, name: Hashable, wish: T) -> None:
        """Give somebody the last place, or keep the one that it has; note what it wishes."""
        self._places[name] = (trio.current_time() + PLACE_SECONDS, wish)

    def leave(self, name: Hashable) -> None:
        """Give a place up, if there is one."""
        self._places.pop(name, None)

    def before(self, name: Hashable) -> list[T]:
        """Return what those wish who go before somebody."""
        now = trio.current_time()
        self._places = {n: p for n, p in self._places.items() if p[0] > now}
        ahead = takewhile(lambda item: item[0] != name, self._places.items())
        return [wish for _, (_, wish) in ahead]


class Limiters:
    """One limiter for each peer: its work runs side by side with others', not before it."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._limiters: dict[FacilityId, trio.CapacityLimiter] = {}

    def of(self, peer: FacilityId) -> trio.CapacityLimiter:
        """Return a peer's."""
        if peer not in self._limiters:
            self._limiters[peer] = trio.CapacityLimiter(self._tokens)
        return self._limiters[peer]


class ChunkPlaces:
    """Memory for chunks in plain: so many for each peer, so many in all, waited for in turn.

    A chunk that seals to a kilobyte may open to 4 MiB and wait long to be checked. Of a peer's
    transfers each asks for one place after the other, so that they have turns.
    """

    def __init__(self, *, in_all: int, per_peer: int) -> None:
        self._all = trio.CapacityLimiter(in_all)
        self._peers = Limiters(per_peer)

    async def acquire(self, peer: FacilityId, holder: object) -> None:
        """Wait for a place, on behalf of a holder that has none.

        Cancellation:
            No place is held.
        """
        mine = self._peers.of(peer)
        await mine.acquire_on_behalf_of(holder)
        try:
            await self._all.acquire_on_behalf_of(holder)
        except BaseException:
            mine.release_on_behalf_of(holder)
            raise

    def release(self, peer: FacilityId, holder: object) -> None:
        """Give a holder's place back."""
        self._all.release_on_behalf_of(holder)
        self._peers.of(peer).release_on_behalf_of(holder)


def chunk_threads() -> Limiters:
    """Return limiters for reading, opening and writing chunks: as many as help one peer.

    Trio's own 40 threads would be taken by one peer with eight links, and commands would wait.
    """
    return Limiters(max(4, os.cpu_count() or 1))
