import errno
import os
from pathlib import Path

import pytest

from node.chunks.files import ChunkStorage, FileChunkStorage
from node.errors import StoreFull, SyncFailed
from tests.node.store.contract import ChunkStorageContract, chunk


class TestFileChunkStorage(ChunkStorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> ChunkStorage:
        return FileChunkStorage(tmp_path / "chunks", 0)


def test_half_written_files_are_removed_when_opened(tmp_path: Path) -> None:
    storage = FileChunkStorage(tmp_path / "chunks", 0)
    name, content = chunk(b"one")
    storage.put(name, content)
    (tmp_path / "chunks" / str(name)[:2] / ".abc.tmp").write_bytes(b"half")
    again = FileChunkStorage(tmp_path / "chunks", 0)
    assert list(again.ids()) == [name]
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
