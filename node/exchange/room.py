"""Room for what arrives: promised before it is accepted, so that two offers never get the same.

Of a promise as much is given back as has been written: that the disk counts by itself.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from node.errors import PeerBusy

FULL_SECONDS = 60.0


@dataclass(eq=False)
class Promise:
    """Room that one arrival may still take: on the disk, and of the quota."""

    disk_bytes: int
    quota_bytes: int

    def wrote(self, size: int) -> None:
        """Note that so many bytes were written: the disk has less free by itself."""
        self.disk_bytes = max(0, self.disk_bytes - size)

    def is_counted(self) -> None:
        """Note that the arrival's rows are committed: the quota counts them by itself."""
        self.quota_bytes = 0


class Room:
    """The room on the disk, and a quota; 0 is none."""

    def __init__(
        self, free_bytes: Callable[[], int], used_bytes: Callable[[], int], quota_bytes: int
    ) -> None:
        self._free_bytes = free_bytes
        self._used_bytes = used_bytes
        self._quota_bytes = quota_bytes
        self._promises: set[Promise] = set()
        self._looking = trio.Lock()

    def unpromised_bytes(self) -> int:
        """Return what is free on the disk and promised to nobody."""
        return self._free_bytes() - sum(p.disk_bytes for p in self._promises)

    @asynccontextmanager
    async def promised(self, disk_bytes: int, quota_bytes: int) -> AsyncIterator[Promise]:
        """Promise room for the time of the block.

        Args:
            disk_bytes: What is to be written.
            quota_bytes: What is to be counted anew against the quota.

        Raises:
            PeerBusy: there is not so much.
        """
        promise = Promise(disk_bytes, quota_bytes)
        async with self._looking:
            if disk_bytes > self.unpromised_bytes():
                raise PeerBusy("no room on the disk", FULL_SECONDS)
            if self._quota_bytes and quota_bytes:
                await self._hold_quota(quota_bytes)
            self._promises.add(promise)
        try:
            yield promise
        finally:
            self._promises.discard(promise)

    async def _hold_quota(self, quota_bytes: int) -> None:
        # Looked at first: what is committed while we look counts twice for a moment, never not.
        promised = sum(p.quota_bytes for p in self._promises)
        used = await trio.to_thread.run_sync(self._used_bytes)
        if used + promised + quota_bytes > self._quota_bytes:
            raise PeerBusy("the quota is used up", FULL_SECONDS)
