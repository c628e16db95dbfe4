import pytest

from node.chunks.testing import MemoryChunkStorage
from node.domain.ids import ChunkId
from node.errors import StoreError
from tests.node.chunks.contract import ChunkStorageContract, chunk


class MemoryHarness:
    def __init__(self) -> None:
        self._storage = MemoryChunkStorage()

    def open(self) -> MemoryChunkStorage:
        self._storage = self._storage.crashed()
        return self._storage

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        self._storage.replace(chunk_id, content)

    def tear(self, chunk_id: ChunkId, content: bytes) -> None:
        """Memory is never half-written."""

    def fill(self, storage: MemoryChunkStorage) -> None:
        storage.use_reserve(2**60)

    def settle(self) -> None:
        """Its listings do not lag, unless they are told to."""


class TestMemoryChunkStorage(ChunkStorageContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


def test_what_was_not_synced_is_gone_after_a_crash() -> None:
    storage = MemoryChunkStorage()
    name, content = chunk(b"one")
    storage.put(name, content)
    assert storage.crashed().size(name) is None


def test_listing_lags_and_calls_fail_on_request() -> None:
    storage = MemoryChunkStorage()
    name, content = chunk(b"one")
    storage.lags = True
    storage.put(name, content)
    assert list(storage.contents()) == []
    storage.lags = False
    assert list(storage.contents()) == [(name, 3)]
    storage.problem = "the server is away"
    with pytest.raises(StoreError, match="is away"):
        storage.get(name)
