"""Chunk storage in memory, for tests: it fulfils the port's contract, and can fail on request.

It passes the same contract suite as the other implementations.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from node.chunks.storage import Requests
from node.domain.ids import ChunkId
from node.errors import ChunkNotFound, StoreError, StoreFull


class MemoryChunkStorage:
    """Chunks in memory, durable only in that `crashed` has what was synced.

    Attributes:
        problem: While it is set, every call fails with a `StoreError` of this text.
        lags: While it is set, listings show what was there when it was set.
    """

    def __init__(self, room_bytes: int = 2**40) -> None:
        self._lock = threading.Lock()
        self._room_bytes = room_bytes
        self._reserve_bytes = 0
        self._chunks: dict[ChunkId, bytes] = {}
        self._durable: dict[ChunkId, bytes] = {}
        self._listed: dict[ChunkId, int] | None = None
        self.problem = ""

    @property
    def lags(self) -> bool:
        """Whether listings show an earlier time."""
        return self._listed is not None

    @lags.setter
    def lags(self, lags: bool) -> None:
        self._listed = self._sizes() if lags else None

    def crashed(self) -> "MemoryChunkStorage":
        """Return the storage as a power cut leaves it: without what was put and not synced."""
        left = MemoryChunkStorage(self._room_bytes)
        left._chunks = dict(self._durable)
        left._durable = dict(self._durable)
        return left

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        """Change a stored chunk without the store's knowledge; None removes it."""
        for chunks in (self._chunks, self._durable):
            chunks.pop(chunk_id, None)
            if content is not None:
                chunks[chunk_id] = content

    def put(self, chunk_id: ChunkId, sealed: bytes) -> None:
        """See `ChunkStorage.put`."""
        self.check()
        with self._lock:
            before = self._chunks.get(chunk_id)
            if before == sealed:
                return
            if self._free() + len(before or b"") < len(sealed):
                raise StoreFull("there is no room in memory up to the reserve")
            self._chunks[chunk_id] = bytes(sealed)

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.sync`."""
        self.check()
        for chunk_id in chunk_ids:
            if (content := self._chunks.get(chunk_id)) is not None:
                self._durable[chunk_id] = content

    def get(self, chunk_id: ChunkId) -> bytes:
        """See `ChunkStorage.get`."""
        self.check()
        try:
            return self._chunks[chunk_id]
        except KeyError as exc:
            raise ChunkNotFound(f"chunk {chunk_id.short()} is not in the store") from exc

    def size(self, chunk_id: ChunkId) -> int | None:
        """See `ChunkStorage.size`."""
        self.check()
        content = self._chunks.get(chunk_id)
        return None if content is None else len(content)

    def delete(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.delete`."""
        self.check()
        for chunk_id in chunk_ids:
            self.replace(chunk_id, None)

    def contents(self) -> Iterator[tuple[ChunkId, int]]:
        """See `ChunkStorage.contents`."""
        self.check()
        yield from (self._sizes() if self._listed is None else self._listed).items()

    def ids(self) -> Iterator[ChunkId]:
        """See `ChunkStorage.ids`."""
        return (chunk_id for chunk_id, _ in self.contents())

    def free_bytes(self) -> int:
        """See `ChunkStorage.free_bytes`."""
        with self._lock:
            return self._free()

    def use_reserve(self, reserve_bytes: int) -> None:
        """See `ChunkStorage.use_reserve`."""
        self._reserve_bytes = reserve_bytes

    def check(self) -> None:
        """See `ChunkStorage.check`."""
        if self.problem:
            raise StoreError(self.problem)

    def close(self) -> None:
        """See `ChunkStorage.close`."""

    def where(self) -> str:
        """See `ChunkStorage.where`."""
        return "memory"

    def is_open(self) -> bool:
        """See `ChunkStorage.is_open`."""
        return False

    def requests(self) -> Mapping[tuple[str, str], Requests]:
        """See `ChunkStorage.requests`."""
        return {}

    def folders(self) -> Sequence[Path]:
        """See `ChunkStorage.folders`."""
        return []

    def _free(self) -> int:
        used = sum(map(len, self._chunks.values()))
        return max(0, self._room_bytes - used - self._reserve_bytes)

    def _sizes(self) -> dict[ChunkId, int]:
        with self._lock:
            return {chunk_id: len(content) for chunk_id, content in self._chunks.items()}
