"""A ZIP file appears whole or not at all."""

import os
import zipfile
from pathlib import Path

import pytest

from node.errors import ConfigError, Conflict, StoreError, StoreFull
from node.outside.export_zip import ExportZip
from tests.support.disks import as_root, mounted

FILES = {
    "SE000001/IM000001": os.urandom(70_000),
    "SE000001/IM000002": b"x",
    "SE000002/IM000001": b"y",
}


def fill(archive: ExportZip) -> None:
    """Write all files, in pieces of 1,000 bytes."""
    for name, data in FILES.items():
        for i in range(0, len(data), 1000):
            archive.write(name, i, data[i : i + 1000], len(data))


def test_files_are_in_it_as_they_came(tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    with ExportZip(target) as archive:
        archive.check_room(sum(map(len, FILES.values())), len(FILES))
        fill(archive)
        assert [path.name for path in tmp_path.iterdir()] == [".study.zip.emix-partial"]
        archive.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]
    assert target.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(target) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == FILES
        assert {info.date_time for info in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.filterwarnings("error")
def test_whatever_ends_it_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    with ExportZip(target) as archive:
        archive.write("SE000001/IM000001", 0, b"x" * 50, 100)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    with ExportZip(target) as archive:
        fill(archive)
        target.write_bytes(b"mine")
        with pytest.raises(Conflict, match="was created meanwhile"):
            archive.publish()
    with pytest.raises(Conflict, match="exists already; choose another name"), ExportZip(target):
        pass
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_what_a_kill_left_is_named(tmp_path: Path) -> None:
    (tmp_path / ".study.zip.emix-partial").touch()
    with pytest.raises(Conflict, match=r"remove .*/\.study\.zip\.emix-partial first"):
        ExportZip(tmp_path / "study.zip").__enter__()
    assert len(list(tmp_path.iterdir())) == 1


def test_pieces_out_of_order_are_an_error(tmp_path: Path) -> None:
    with ExportZip(tmp_path / "study.zip") as archive:
        archive.write("SE000001/IM000001", 0, b"x" * 50, 100)
        with pytest.raises(StoreError, match="another order"):
            archive.write("SE000001/IM000001", 80, b"x" * 20, 100)


def test_disk_without_room_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreFull), ExportZip(tmp_path / "study.zip") as archive:
        archive.check_room(2**60, 1)
    assert list(tmp_path.iterdir()) == []


@as_root
@pytest.mark.parametrize("small", [100, 3_000_000])
def test_disk_that_fills_is_an_error_and_nothing_is_left(tmp_path: Path, small: int) -> None:
    def write(target: Path) -> None:
        with ExportZip(target) as archive:
            for n in range(1, 40_000):
                archive.write(f"SE000001/IM{n:06d}", 0, bytes(small), small)
            archive.publish()

    with mounted(tmp_path / "disk", "1m") as disk:
        with pytest.raises(StoreError, match="No space left"):
            write(disk / "study.zip")
        assert list(disk.iterdir()) == []


def test_folder_that_others_may_write_in_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError), ExportZip(tmp_path / "study.zip"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_file_is_added_that_is_made_of_those_before(tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    with ExportZip(target) as archive:
        fill(archive)
        with archive.written() as handle:
            with zipfile.ZipFile(handle) as found:
                made = "\n".join(found.namelist()).encode()
            assert not handle.writable()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(handle.fileno(), b"x")
        archive.add("DICOMDIR", made)
        archive.publish()
    with zipfile.ZipFile(target) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == {**FILES, "DICOMDIR": made}
        assert {info.date_time for info in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.filterwarnings("error")
def test_zip_that_was_lent_and_got_nothing_more_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    with ExportZip(target) as archive:
        fill(archive)
        with archive.written():
            pass
        archive.publish()
    with zipfile.ZipFile(target) as found:
        assert {name: found.read(name) for name in found.namelist()} == FILES
    with ExportZip(tmp_path / "other.zip") as archive:
        fill(archive)
        with archive.written():
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]
