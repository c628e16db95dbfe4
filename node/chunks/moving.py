"""Chunk storage that moves from one place to another while it is used."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from node.chunks.storage import ChunkStorage, Requests
from node.crypto.digests import digest
from node.domain.ids import ChunkId
from node.errors import ChunkDamaged, ChunkNotFound

_BATCH = 16  # kept in memory by their ids only; one chunk is read at a time


class MovingChunkStorage:
    """See `ChunkStorage`. New chunks are put in the new place; a get looks in both.

    A chunk is deleted from the old place only when it is durable in the new one. So a kill at any
    time leaves it in at least one place, and the move continues at the next start.

    Memory: `contents` keeps the ids of what has not moved yet, some 100 bytes each.
    """

    def __init__(self, to: ChunkStorage, before: ChunkStorage) -> None:
        """Prepare. The two must not be one place: what has moved is deleted."""
        self._to, self._before = to, before
        self._changing = threading.Lock()
        self.moved = 0
        self.is_done = False

    def move_some(self) -> int:
        """Move a batch durably; return how many chunks it had. 0: no more are listed.

        Bytes are moved unchanged: a damaged chunk stays damaged.

        Raises:
            StoreError: one of the places failed; chunks that have moved stay moved.
        """
        some = list(islice(self._before.ids(), _BATCH))
        self._move(some)
        return len(some)

    def move_left_out(self, named: Iterable[ChunkId]) -> None:
        """Move the named chunks that no listing has shown; afterwards all have moved.

        Call it once `move_some` has returned 0: a listing may lag, and chunks that it left out
        would be lost once the operator removes the old place (`chunks_before`).

        Args:
            named: The chunks that should be present.

        Raises:
            StoreError: as for `move_some`.
        """
        there = set(self._to.ids())
        unseen = (chunk_id for chunk_id in named if chunk_id not in there)
        while some := list(islice(unseen, _BATCH)):
            self._move([one for one in some if self._before.size(one) is not None])
        self.is_done = True

    def _move(self, some: Sequence[ChunkId]) -> None:
        for chunk_id in some:
            with self._changing:  # what is deleted meanwhile must not come back
                self._copy(chunk_id)
        self.sync(some)
        self._before.delete(some)
        self.moved += len(some)

    def _copy(self, chunk_id: ChunkId) -> None:
        is_there = self._to.size(chunk_id) is not None
        if is_there and _is_whole(self._to, chunk_id):  # put, mended or moved before
            return
        if is_there and not _is_whole(self._before, chunk_id):
            return  # neither is: that one is newer
        with suppress(ChunkNotFound):  # a listing may lag
            self._to.put(chunk_id, self._before.get(chunk_id))

    def put(self, chunk_id: ChunkId, sealed: bytes) -> None:
        """See `ChunkStorage.put`."""
        self._to.put(chunk_id, sealed)

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.sync`."""
        some = list(chunk_ids)
        for place in (self._to, self._before):
            place.sync([chunk_id for chunk_id in some if place.size(chunk_id) is not None])

    def get(self, chunk_id: ChunkId) -> bytes:
        """See `ChunkStorage.get`."""
        for place in (self._to, self._before):
            with suppress(ChunkNotFound):
                return place.get(chunk_id)
        return self._to.get(chunk_id)  # it moved between the two looks

    def size(self, chunk_id: ChunkId) -> int | None:
        """See `ChunkStorage.size`."""
        for place in (self._to, self._before, self._to):
            if (size := place.size(chunk_id)) is not None:
                return size
        return None

    def delete(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.delete`."""
        some = list(chunk_ids)
        with self._changing:
            self._before.delete(some)  # first, or an earlier one would be seen again
            self._to.delete(some)

    def contents(self) -> Iterator[tuple[ChunkId, int]]:
        """See `ChunkStorage.contents`."""
        left = set()
        for chunk_id, size in self._before.contents():
            left.add(chunk_id)
            now = self._to.size(chunk_id)
            yield chunk_id, size if now is None else now
        for chunk_id, size in self._to.contents():
            if chunk_id not in left:
                yield chunk_id, size

    def ids(self) -> Iterator[ChunkId]:
        """See `ChunkStorage.ids`."""
        left = set()
        for chunk_id in self._before.ids():
            left.add(chunk_id)
            yield chunk_id
        yield from (chunk_id for chunk_id in self._to.ids() if chunk_id not in left)

    def free_bytes(self) -> int:
        """See `ChunkStorage.free_bytes`."""
        return self._to.free_bytes()

    def use_reserve(self, reserve_bytes: int) -> None:
        """See `ChunkStorage.use_reserve`."""
        self._to.use_reserve(reserve_bytes)
        self._before.use_reserve(reserve_bytes)

    def check(self) -> None:
        """See `ChunkStorage.check`."""
        self._to.check()
        self._before.check()

    def close(self) -> None:
        """See `ChunkStorage.close`."""
        self._to.close()
        self._before.close()

    def where(self) -> str:
        """See `ChunkStorage.where`."""
        return self._to.where()

    def is_open(self) -> bool:
        """See `ChunkStorage.is_open`."""
        return self._to.is_open() or self._before.is_open()

    def requests(self) -> Mapping[tuple[str, str], Requests]:
        """See `ChunkStorage.requests`."""
        found = dict(self._to.requests())
        for kind, made in self._before.requests().items():
            found[kind] = found.get(kind, Requests()) + made
        return found

    def folders(self) -> Sequence[Path]:
        """See `ChunkStorage.folders`."""
        return [*self._to.folders(), *self._before.folders()]


def _is_whole(place: ChunkStorage, chunk_id: ChunkId) -> bool:
    try:
        return digest(place.get(chunk_id)) == chunk_id.digest
    except (ChunkNotFound, ChunkDamaged):
        return False
