"""Room for arrivals, promised before an offer is accepted, so that no room is promised twice.

A promise shrinks by what has been written, since the disk's free space shrinks by itself.

Fairness among peers. A peer without a promise may get all room that is left, so that a large study
comes as soon as it fits; a peer with a promise gets at most half of what is left. A peer that was
refused and has no promise is next in line: peers behind it do not get the room that it waits for.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from node.domain.ids import FacilityId
from node.errors import PeerBusy
from node.exchange.transfer.shares import Line

FULL_SECONDS = 60.0


@dataclass(eq=False)
class Promise:
    """Room that one arrival may still take: on the disk, and of the quota."""

    peer: FacilityId
    disk_bytes: int
    quota_bytes: int

    def wrote(self, size: int) -> None:
        """Note bytes that were written: they reduce the disk's free space by themselves."""
        self.disk_bytes = max(0, self.disk_bytes - size)

    def is_counted(self) -> None:
        """Note that the arrival's rows are committed: the quota counts them by itself."""
        self.quota_bytes = 0


class Room:
    """The room on the disk and of the quota; a quota of 0 means no quota."""

    def __init__(
        self, free_bytes: Callable[[], int], used_bytes: Callable[[], int], quota_bytes: int
    ) -> None:
        self._free_bytes = free_bytes
        self._used_bytes = used_bytes
        self._quota_bytes = quota_bytes
        self._promises: set[Promise] = set()
        self._line = Line[Promise]()
        self._looking = trio.Lock()

    def use_quota(self, quota_bytes: int) -> None:
        """Use another quota from now on; earlier promises stand."""
        self._quota_bytes = quota_bytes

    def unpromised_bytes(self) -> int:
        """Return the free bytes on the disk that are not promised."""
        return self._free_bytes() - sum(p.disk_bytes for p in self._promises)

    @asynccontextmanager
    async def promised(
        self, peer: FacilityId, disk_bytes: int, quota_bytes: int
    ) -> AsyncIterator[Promise]:
        """Promise a peer room for the time of the block.

        Args:
            peer: The peer whose arrival it is for.
            disk_bytes: How much will be written.
            quota_bytes: How much will newly count against the quota.

        Raises:
            PeerBusy: there is not enough room.
        """
        promise = Promise(peer, disk_bytes, quota_bytes)
        async with self._looking:
            await self._hold(promise)
            self._promises.add(promise)
        try:
            yield promise
        finally:
            self._promises.discard(promise)

    async def _hold(self, wish: Promise) -> None:
        has_some = any(p.peer == wish.peer for p in self._promises)
        others = [*self._promises, *self._line.before(wish.peer)]
        free = self._free_bytes()
        left = free - sum(p.disk_bytes for p in others)
        # Looked at first: what is committed while we look counts twice for a moment, never not.
        taken = sum(p.quota_bytes for p in others)
        rest = await self._quota_rest(wish)
        if wish.disk_bytes > free:
            raise PeerBusy("no room on the receiver's disk", FULL_SECONDS)
        if wish.quota_bytes > rest:
            raise PeerBusy("the receiver's quota is used up", FULL_SECONDS)
        if _fits(wish.disk_bytes, left, has_some) and _fits(
            wish.quota_bytes, rest - taken, has_some
        ):
            self._line.leave(wish.peer)
            return
        if not has_some:
            self._line.wait(wish.peer, wish)
        raise PeerBusy("the receiver's free space is reserved for earlier transfers", FULL_SECONDS)

    async def _quota_rest(self, wish: Promise) -> float:
        """Return how much of the quota is not used."""
        if not self._quota_bytes or not wish.quota_bytes:
            return math.inf
        return self._quota_bytes - await trio.to_thread.run_sync(self._used_bytes)


def _fits(amount: int, left: float, has_some: bool) -> bool:
    return not amount or amount <= (left / 2 if has_some else left)
