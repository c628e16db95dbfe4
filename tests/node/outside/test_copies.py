"""Backups: whole or not at all, only where they are meant to be, verified without a key."""

import os
import shutil
from pathlib import Path

import pytest

from node.app.home import Home
from node.crypto.digests import digest
from node.domain.ids import ChunkId
from node.errors import ConfigError, StoreError, StoreFull
from node.outside.copies import (
    INVENTORY,
    BackupFolder,
    Listed,
    decode_inventory,
    encode_inventory,
    read_base,
    read_inventory,
    verify,
)
from tests.support.backups import make_node, names, open_home, write_backup
from tests.support.disks import as_root, fill, mounted


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_node(tmp_path)[0]


def problems(folder: Path) -> list[tuple[str, str]]:
    return sorted((p.name, p.what) for p in verify(folder, read_inventory(folder), lambda _: None))


def chunks_of(folder: Path) -> dict[str, os.stat_result]:
    return {path.name: path.stat() for path in (folder / "chunks").glob("*/*")}


def add_chunk(home: Home, content: bytes) -> ChunkId:
    context = open_home(home)
    chunk_id = ChunkId(digest(content))
    context.storage.put(chunk_id, content)
    context.close()
    return chunk_id


def test_later_backup_writes_only_what_the_earlier_one_lacks(home: Home, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write_backup(home, BackupFolder(first))
    new = add_chunk(home, b"new" * 1000)
    written = write_backup(home, BackupFolder(second, base=read_base(first)))
    before, after = chunks_of(first), chunks_of(second)
    assert after.keys() == before.keys() | {str(new)}
    assert all(after[name].st_ino == before[name].st_ino for name in before)
    assert written.linked == len(before) == 3
    assert problems(first) == problems(second) == []
    shutil.rmtree(first)
    assert problems(second) == []
    assert {one.st_nlink for one in chunks_of(second).values()} == {1}


def test_chunks_that_the_earlier_backup_lost_or_that_were_damaged_are_written_anew(
    home: Home, tmp_path: Path
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write_backup(home, BackupFolder(first))
    paths = sorted((first / "chunks").glob("*/*"))
    paths[0].unlink()
    paths[1].write_bytes(b"short")
    written = write_backup(home, BackupFolder(second, base=read_base(first)))
    assert written.linked == 1
    assert problems(second) == []


def test_link_in_an_earlier_backup_is_not_taken_for_a_chunk(home: Home, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write_backup(home, BackupFolder(first))
    base = read_base(first)
    path = next((first / "chunks").glob("*/*"))
    path.unlink()
    path.symlink_to(home.keyring)
    with pytest.raises(StoreError, match="is not a regular file"):
        write_backup(home, BackupFolder(second, base=base))
    assert not second.exists()


@as_root
def test_backup_on_another_disk_than_the_earlier_one_is_copied(home: Home, tmp_path: Path) -> None:
    first = tmp_path / "1"
    write_backup(home, BackupFolder(first))
    with mounted(tmp_path / "disk") as disk:
        written = write_backup(home, BackupFolder(disk / "2", base=read_base(first)))
        assert written.linked == 0
        assert problems(disk / "2") == []
        assert chunks_of(disk / "2").keys() == chunks_of(first).keys()


@as_root
def test_disk_that_is_full_leaves_the_earlier_backup_as_it_was(home: Home, tmp_path: Path) -> None:
    """Links need no room; the database does, and it comes after them."""
    with mounted(tmp_path / "disk", "200m") as disk:
        write_backup(home, BackupFolder(disk / "1"))
        before = chunks_of(disk / "1")
        base = read_base(disk / "1")
        fill(disk)
        with pytest.raises(StoreError, match=r"has room for 0\.0 MB, and 0\.\d MB are"):
            write_backup(home, BackupFolder(disk / "2", base=base))
        assert not (disk / "2").exists()
        assert chunks_of(disk / "1").keys() == before.keys()
        assert problems(disk / "1") == []

        with BackupFolder(disk / "3", base=base) as folder:  # what only failed at a later file
            for chunk in base.chunks:
                folder.keep(chunk)
            with pytest.raises(ConfigError, match="No space left on device"):
                folder.add("metadata.db", bytes(1 << 20))
        assert not (disk / "3").exists()
        assert {one.st_nlink for one in chunks_of(disk / "1").values()} == {1}
        assert problems(disk / "1") == []


def test_what_is_no_whole_backup_is_no_base(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        read_base(tmp_path / "1")
    write_backup(home, BackupFolder(tmp_path / "1"))
    with pytest.raises(StoreError, match="earlier backup lacks"):
        with BackupFolder(tmp_path / "2", base=read_base(tmp_path / "1")) as folder:
            folder.keep(ChunkId(bytes(32)))
    (tmp_path / "1").chmod(0o777)
    with pytest.raises(ConfigError):
        read_base(tmp_path / "1")


def test_backup_has_all_but_the_host_key_and_is_verified(home: Home, tmp_path: Path) -> None:
    folder = write_backup(home, BackupFolder(tmp_path / "copy"))
    found = names(tmp_path / "copy")
    assert {"emix.toml", "keyring", "metadata.db", "chunks", "envelopes", INVENTORY} <= set(found)
    assert "host.key" not in found
    assert len([name for name in found if name.startswith("chunks/") and len(name) > 50]) == 3
    assert problems(tmp_path / "copy") == []
    assert folder.files == dict(read_inventory(tmp_path / "copy"))
    assert not list(home.root.glob(".*.tmp"))
    modes = {p.stat().st_mode & 0o077 for p in (tmp_path / "copy").rglob("*")}
    assert modes == {0}


def test_whatever_is_missing_or_damaged_is_named(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    write_backup(home, BackupFolder(copy))
    first, second, third = sorted((copy / "chunks").glob("*/*"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    third.write_bytes(bytes(5000))
    config = bytearray((copy / "emix.toml").read_bytes())
    config[0] ^= 1
    (copy / "emix.toml").write_bytes(config)
    (copy / "keyring").unlink()
    (copy / "keyring").symlink_to("emix.toml")
    found = dict(problems(copy))
    relative = {p: p.relative_to(copy).as_posix() for p in (first, second, third)}
    assert found[relative[first]] == "is missing"
    assert found[relative[second]] == "has 4999 bytes instead of 5000"
    assert found[relative[third]] == found["emix.toml"] == "is damaged"
    assert "keyring" in found
    assert len(found) == 5


def test_damage_of_before_the_backup_is_told(home: Home, tmp_path: Path) -> None:
    chunk = next((home.root / "chunks").glob("*/*"))
    chunk.write_bytes(bytes(5000))
    folder = write_backup(home, BackupFolder(tmp_path / "copy"))
    name = chunk.relative_to(home.root).as_posix()
    assert folder.damaged == [name]
    assert problems(tmp_path / "copy") == [(name, "was damaged already when the backup was made")]


def test_backup_that_was_cut_off_is_none_and_leaves_nothing(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (tmp_path / "kept").mkdir()
    for target in (copy, tmp_path / "kept"):
        with BackupFolder(target) as folder:
            folder.add("keyring", b"secret")
            folder.add("chunks/aa/" + "a" * 52, b"chunk")
    assert not copy.exists()
    assert not list((tmp_path / "kept").iterdir())  # a folder that was there stays
    write_backup(home, BackupFolder(copy))
    (copy / INVENTORY).unlink()
    with pytest.raises(ConfigError, match="not a complete backup: it has no inventory"):
        read_inventory(copy)


def test_place_without_a_backup_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    for name, text in {
        "none": "is not there; is its disk mounted?",
        "none/copy": "is not there; is its disk mounted?",
        "link": "is not there; is its disk mounted?",
        "disk": "is empty; is its disk mounted?",
        "file": "is not a folder; name",
        "file/copy": "is not there",
        "other": "is not a complete backup: it has no inventory",
    }.items():
        with pytest.raises(ConfigError) as caught:
            read_inventory(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name} {text}")


def test_only_files_of_a_backup_are_written(tmp_path: Path) -> None:
    with BackupFolder(tmp_path / "copy") as folder:
        for name in ("../x", "/etc/x", "chunks/aa/../../x", "host.key", "inventory", "chunks/aa/A"):
            with pytest.raises(StoreError):
                folder.add(name, b"")
    assert not (tmp_path / "copy").exists()


def test_backup_lies_in_no_home_and_makes_no_folders_above(home: Home, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="inside the home"),
        BackupFolder(home.root / "x", home.root),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="only the last folder"),
        BackupFolder(tmp_path / "stick" / "today"),
    ):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"), BackupFolder(tmp_path / "full"):
        pass
    assert not (tmp_path / "stick").exists()


@as_root
def test_disk_that_is_not_mounted_is_noticed_on_request(home: Home, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    new = BackupFolder(stick / "today", home.root, is_elsewhere=True)
    with pytest.raises(ConfigError, match="nothing is mounted at"), new:
        pass
    assert not list(stick.iterdir())
    with mounted(stick):
        write_backup(home, BackupFolder(stick / "today", home.root, is_elsewhere=True))
        assert problems(stick / "today") == []
    with mounted(stick):  # and the place itself, which a file system does not leave quite empty
        (stick / "lost+found").mkdir(mode=0o700)
        os.chown(stick / "lost+found", 4711, 4711)
        write_backup(home, BackupFolder(stick, home.root, is_elsewhere=True))
        assert problems(stick) == []


@as_root
def test_full_disk_leaves_nothing_there(home: Home, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "60m") as small:
        with pytest.raises(StoreFull, match="has room for"):
            write_backup(home, BackupFolder(small / "copy"))
        assert not list(small.iterdir())


def test_no_room_for_the_database_in_the_home_is_said(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.store.backup import Backup

    context = open_home(home)
    try:
        monkeypatch.setattr("secrets.token_hex", lambda _: "missing/folder")
        with pytest.raises(StoreError, match="could not be copied: SQLITE_CANTOPEN"):
            next(Backup(context, home.root).pieces())
    finally:
        context.close()


FILES = {"keyring": Listed(3, bytes(32)), "metadata.db": Listed(0, bytes([255] * 32))}


def test_inventory_is_what_was_written_or_nothing() -> None:
    data = encode_inventory(FILES)
    assert dict(decode_inventory(data)) == FILES
    for at in range(len(data) - 1):  # the last is a newline
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        for damaged in (data[:at], changed):
            with pytest.raises(ValueError, match=r"it is|it lists"):
                decode_inventory(damaged)


@pytest.mark.parametrize("name", ["../x", "host.key", "chunks/aa/b", "keyring keyring"])
def test_inventory_names_only_files_of_a_backup(name: str) -> None:
    with pytest.raises(ValueError, match="lists files that no backup contains"):
        decode_inventory(encode_inventory({name: Listed(1, bytes(32))}))
