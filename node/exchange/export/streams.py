"""Instances as a stream: one after the other, each from its first byte to its last.

Chunks are opened ahead on worker threads, at most a few at a time. An overlay changes the bytes
that are exported; the stored ones stay as they are.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from node.domain.exports import zeroed_preamble
from node.errors import Conflict, ungrouped
from node.exchange.export.schedule import Schedule

AHEAD_CHUNKS = 4
"""So many are being opened, or are open and not yet read."""


class Overlay(Protocol):
    """Changes one instance on its way out."""

    def feed(self, piece: bytes) -> bytes:
        """Return what goes out for the next bytes; it may be more, less, or nothing yet."""

    def end(self) -> bytes:
        """Return what goes out after the last byte."""


class Unchanged:
    """Changes nothing."""

    def feed(self, piece: bytes) -> bytes:
        """See `Overlay.feed`."""
        return piece

    def end(self) -> bytes:
        """See `Overlay.end`."""
        return b""


class ZeroedPreamble:
    """Overwrites the preamble with zeroes."""

    def __init__(self) -> None:
        self._offset = 0

    def feed(self, piece: bytes) -> bytes:
        """See `Overlay.feed`."""
        offset, self._offset = self._offset, self._offset + len(piece)
        return bytes(zeroed_preamble(offset, piece))

    def end(self) -> bytes:
        """See `Overlay.end`."""
        return b""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next exported bytes of an instance.

    Attributes:
        instance: The instance, counted from 0.
        offset: Where the bytes are in the instance as exported.
    """

    instance: int
    offset: int
    data: bytes


@asynccontextmanager
async def instance_stream(
    schedule: Schedule,
    open_chunk: Callable[[int, int], bytes],
    overlay: Callable[[int], Overlay] = lambda _: Unchanged(),
) -> AsyncGenerator[AsyncIterator[Piece]]:
    """Read instances in order, for the time of the block.

    Args:
        schedule: The instances, and how to read them.
        open_chunk: Returns a chunk's plaintext, by package and position; on worker threads.
        overlay: Returns what changes an instance, by its number.

    Raises:
        Conflict: the instances are scattered over their chunks.
        StoreError: a chunk is lost or damaged.
    """
    if schedule.is_scattered:
        raise Conflict(
            "its instances are spread over its chunks and cannot be streamed one by one; export the"
            " study into a folder"
        )
    with ungrouped():
        async with trio.open_nursery() as nursery:
            reader = _Reader(schedule, open_chunk, nursery)
            async with aclosing(reader.pieces(overlay)) as pieces:
                yield pieces
            nursery.cancel_scope.cancel()  # chunks opened ahead that nobody reads


class _Reader:
    """Opens chunks ahead, and forgets each after its last read."""

    def __init__(
        self,
        schedule: Schedule,
        open_chunk: Callable[[int, int], bytes],
        nursery: trio.Nursery,
    ) -> None:
        self._schedule = schedule
        self._open_chunk = open_chunk
        self._nursery = nursery
        self._left = Counter(read.opening for reads in schedule.reads for read in reads)
        self._begun = 0
        self._ready: dict[int, trio.Event] = {}
        self._chunks: dict[int, memoryview] = {}

    async def pieces(self, overlay: Callable[[int], Overlay]) -> AsyncGenerator[Piece]:
        """Yield the pieces of all instances, in order."""
        for number, reads in enumerate(self._schedule.reads):
            change, offset = overlay(number), 0
            for read in reads:
                chunk = await self._chunk(read.opening)
                data = change.feed(bytes(chunk[read.offset : read.offset + read.length]))
                self._note_read(read.opening)
                if data:
                    yield Piece(number, offset, data)
                    offset += len(data)
            data = change.end()
            if data:
                yield Piece(number, offset, data)

    async def _chunk(self, opening: int) -> memoryview:
        ahead = min(opening + AHEAD_CHUNKS, len(self._schedule.openings))
        while self._begun < ahead:
            self._ready[self._begun] = trio.Event()
            self._nursery.start_soon(self._open, self._begun)
            self._begun += 1
        await self._ready[opening].wait()
        return self._chunks[opening]

    async def _open(self, opening: int) -> None:
        work = partial(self._open_chunk, *self._schedule.openings[opening])
        self._chunks[opening] = memoryview(await trio.to_thread.run_sync(work))
        self._ready[opening].set()

    def _note_read(self, opening: int) -> None:
        self._left[opening] -= 1
        if not self._left[opening]:
            del self._chunks[opening], self._ready[opening]
