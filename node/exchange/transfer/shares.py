"""Each peer's share of this node's resources, so that enough is left for the others.

Resources are reserved before use and released at the end, so that bounds hold under concurrent
requests. A peer that has used its share is told to retry later, or is slowed down.
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
"""Limits for one peer: 1,000 images make a manifest of 300 KiB; one MiB takes 100 ms to process."""


class Share:
    """A limited resource: an amount in all, and at most an amount for each peer.

    No request gets more than half of what is left, so that something is left for the next one.
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
            raise PeerBusy(f"too many {self._what} of this facility at once", _BUSY_SECONDS)
        self._taken[peer] = mine
        try:
            yield
        finally:
            self._taken[peer] -= amount
            self._taken += Counter()  # without those that have nothing


class Line(Generic[T]):
    """Peers that were refused, in order, so that others cannot overtake them for ever.

    A peer that does not retry in time loses its place.
    """

    def __init__(self) -> None:
        self._places: dict[Hashable, tuple[float, T]] = {}

    def wait(self, name: Hashable, wish: T) -> None:
        """Add a name at the end, or keep its place; note its wish."""
        self._places[name] = (trio.current_time() + PLACE_SECONDS, wish)

    def leave(self, name: Hashable) -> None:
        """Remove a name from the line, if it is there."""
        self._places.pop(name, None)

    def before(self, name: Hashable) -> list[T]:
        """Return the wishes of those ahead of a name, which may be in the line or not."""
        now = trio.current_time()
        self._places = {n: p for n, p in self._places.items() if p[0] > now}
        ahead = takewhile(lambda item: item[0] != name, self._places.items())
        return [wish for _, (_, wish) in ahead]


class Limiters:
    """One limiter for each peer, so that no peer's work waits for another's."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._limiters: dict[FacilityId, trio.CapacityLimiter] = {}

    def of(self, peer: FacilityId) -> trio.CapacityLimiter:
        """Return a peer's."""
        if peer not in self._limiters:
            self._limiters[peer] = trio.CapacityLimiter(self._tokens)
        return self._limiters[peer]


class ChunkPlaces:
    """Bounds the opened chunks in memory, for each peer and in all; places are given in turn.

    A chunk of one sealed kilobyte may open to 4 MiB and wait long to be checked. Each transfer of
    a peer requests one place at a time, so that they take turns.
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
    """Return limiters for reading, opening and writing chunks, a few threads for each peer.

    One peer with eight links would occupy all 40 threads of trio, and commands would wait.
    """
    return Limiters(max(4, os.cpu_count() or 1))
