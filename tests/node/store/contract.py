"""What every chunk storage must do."""

import pytest

from node.chunks.files import ChunkStorage
from node.crypto.digests import digest
from node.domain.ids import ChunkId
from node.errors import ChunkNotFound


def chunk(content: bytes) -> tuple[ChunkId, bytes]:
    return ChunkId(digest(content)), content


class ChunkStorageContract:
    """Inherit, and provide a fixture `storage`."""

    def test_what_was_put_comes_back(self, storage: ChunkStorage) -> None:
        name, content = chunk(b"one")
        storage.put(name, content)
        storage.sync([name])
        assert storage.get(name) == content
        assert storage.size(name) == 3
        assert list(storage.ids()) == [name]

    def test_putting_again_changes_nothing(self, storage: ChunkStorage) -> None:
        name, content = chunk(b"one")
        storage.put(name, content)
        storage.put(name, content)
        assert list(storage.ids()) == [name]

    def test_a_chunk_that_is_not_there_is_not_found(self, storage: ChunkStorage) -> None:
        name, _ = chunk(b"one")
        assert storage.size(name) is None
        with pytest.raises(ChunkNotFound):
            storage.get(name)

    def test_deleted_chunks_are_gone_and_others_stay(self, storage: ChunkStorage) -> None:
        (one, a), (two, b) = chunk(b"one"), chunk(b"two")
        storage.put(one, a)
        storage.put(two, b)
        storage.delete([one, ChunkId(bytes(32))])
        assert list(storage.ids()) == [two]

    def test_empty_content_is_content(self, storage: ChunkStorage) -> None:
        name, content = chunk(b"")
        storage.put(name, content)
        assert storage.get(name) == b""
