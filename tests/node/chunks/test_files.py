import errno
import os
from pathlib import Path

import pytest

from node.chunks.files import FileChunkStorage
from node.domain.ids import ChunkId
from node.errors import StoreFull, SyncFailed
from tests.node.chunks.contract import ChunkStorageContract, chunk


class FileHarness:
    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self) -> FileChunkStorage:
        return FileChunkStorage(self._root, 0)

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        path = self._root / str(chunk_id)[:2] / str(chunk_id)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    def tear(self, chunk_id: ChunkId, content: bytes) -> None:
        folder = self._root / str(chunk_id)[:2]
        folder.mkdir(exist_ok=True)
        (folder / ".0123456789abcdef.tmp").write_bytes(content[: len(content) // 2])

    def fill(self, storage: FileChunkStorage) -> None:
        storage.use_reserve(2**60)

    def settle(self) -> None:
        """Folders show at once what is in them."""


class TestFileChunkStorage(ChunkStorageContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> FileHarness:
        return FileHarness(tmp_path / "chunks")


def test_half_written_files_are_removed_when_opened(tmp_path: Path) -> None:
    storage = FileChunkStorage(tmp_path / "chunks", 0)
    name, content = chunk(b"one")
    storage.put(name, content)
    (tmp_path / "chunks" / str(name)[:2] / ".abc.tmp").write_bytes(b"half")
    again = FileChunkStorage(tmp_path / "chunks", 0)
    assert list(again.contents()) == [(name, 3)]
    assert not list((tmp_path / "chunks").rglob("*.tmp"))


def test_reserve_is_not_eaten_into(tmp_path: Path) -> None:
    storage = FileChunkStorage(tmp_path / "chunks", 2**60)
    with pytest.raises(StoreFull):
        storage.put(*chunk(b"one"))


@pytest.mark.parametrize("call", ["write", "fdatasync", "rename"])
def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    storage = FileChunkStorage(tmp_path / "chunks", 0)
    if call == "rename":
        monkeypatch.setattr(Path, "rename", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreFull):
        storage.put(*chunk(b"one"))
    assert not [p for p in (tmp_path / "chunks").rglob("*") if p.is_file()]


def test_failed_sync_is_fatal_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(SyncFailed):
        FileChunkStorage(tmp_path / "chunks", 0).put(*chunk(b"one"))
    assert len(calls) == 1


class SmallDisk(FileChunkStorage):
    """A disk with room for one chunk, which counts what is on it only when it is written."""

    def free_bytes(self) -> int:
        return 10


def test_two_chunks_at_once_do_not_get_the_same_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SmallDisk(tmp_path / "chunks", 0)
    first, second = chunk(b"8 bytes."), chunk(b"8 others")
    sync, outcomes = os.fdatasync, list[bool]()

    def put_another(fd: int) -> None:
        if not outcomes:
            outcomes.append(False)
            with pytest.raises(StoreFull):
                storage.put(*second)
            outcomes[0] = True
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", put_another)
    storage.put(*first)
    assert outcomes == [True]
    storage.put(*second)


def test_chunk_put_over_a_damaged_one_of_the_same_size_is_as_it_was(tmp_path: Path) -> None:
    storage = FileChunkStorage(tmp_path / "chunks", 0)
    name, content = chunk(b"one")
    storage.put(name, content)
    (tmp_path / "chunks" / str(name)[:2] / str(name)).write_bytes(bytes(len(content)))
    storage.put(name, content)
    assert storage.get(name) == content
