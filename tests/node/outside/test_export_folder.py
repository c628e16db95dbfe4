"""An export's folder: everything, or nothing."""

import errno
import os
from pathlib import Path

import pytest

from node.errors import Conflict, StoreError
from node.outside.export_folder import ExportFolder


def test_nothing_has_its_name_before_all_is_published(tmp_path: Path) -> None:
    with ExportFolder(tmp_path / "out") as folder:
        folder.write("SE000001/IM000001", 5, b"world")
        folder.write("SE000001/IM000001", 0, b"hello")
        assert [p.name for p in (tmp_path / "out").iterdir()] == [".emix-partial"]
        folder.publish()
    assert (tmp_path / "out" / "SE000001" / "IM000001").read_bytes() == b"helloworld"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["SE000001"]


@pytest.mark.parametrize("is_there", [False, True])
def test_unpublished_nothing_is_left(tmp_path: Path, is_there: bool) -> None:
    out = tmp_path / "out"
    if is_there:
        out.mkdir()
    with pytest.raises(KeyboardInterrupt), ExportFolder(out) as folder:  # noqa: PT012
        folder.write("SE000001/IM000001", 0, b"half")
        raise KeyboardInterrupt
    assert out.exists() is is_there
    assert not is_there or not list(out.iterdir())


def test_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(Conflict, match="not empty"):
        ExportFolder(tmp_path).open()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_what_a_killed_export_left_is_named(tmp_path: Path) -> None:
    ExportFolder(tmp_path).open()  # and nobody to close it
    with pytest.raises(Conflict, match=r"remove .*\.emix-partial"):
        ExportFolder(tmp_path).open()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "SE000001/../../x", "IM000001", ""])
def test_names_that_are_not_ours_are_not_written(tmp_path: Path, name: str) -> None:
    with ExportFolder(tmp_path / "out") as folder, pytest.raises(StoreError):
        folder.write(name, 0, b"x")


def fill(folder: ExportFolder) -> None:
    for series in (1, 2, 3):
        folder.write(f"SE{series:06d}/IM000001", 0, b"image")


def test_all_is_on_the_disk_before_anything_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    out = tmp_path / "out"
    with ExportFolder(out) as folder:
        fill(folder)
        (folder.partial / "DICOMDIR").touch()
        monkeypatch.setattr(os, "fsync", noted)
        folder.publish()
    partial = str(folder.partial)
    series = [f"{partial}/SE{n:06d}" for n in (1, 2, 3)]
    files = [f"{name}/IM000001" for name in series]
    assert set(synced[:4]) == {*files, f"{partial}/DICOMDIR"}
    assert set(synced[4:8]) == {*series, partial}
    assert synced[8:] == [str(out)], "the new names last"


def test_large_file_that_comes_whole_is_durable_at_once_and_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    content = {f"SE000001/IM00000{n}": os.urandom(70_000 + 4096 * n + n % 2) for n in range(1, 5)}
    sizes = {name: len(data) for name, data in content.items()}
    sizes["SE000001/IM000004"] += 1  # and it comes in two pieces
    content["SE000001/IM000004"] += b"\0"
    with ExportFolder(tmp_path / "out", sizes) as folder:
        monkeypatch.setattr(os, "fsync", noted)
        for name, data in content.items():
            pieces = (data,) if name != "SE000001/IM000004" else (data[:-1], data[-1:])
            offset = 0
            for piece in pieces:
                folder.write(name, offset, piece)
                offset += len(piece)
        assert synced == ["IM000001", "IM000002", "IM000003"]
        with pytest.raises(StoreError, match="File exists"):
            folder.write("SE000001/IM000001", 0, content["SE000001/IM000001"])
        folder.publish()
    assert synced[3] == "IM000004"
    assert (set(synced[4:6]), synced[6:]) == ({"SE000001", ".emix-partial"}, ["out"])
    assert {name: (tmp_path / "out" / name).read_bytes() for name in content} == content


def test_disk_that_fails_late_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a stick that is full of errors says so, long after it took the bytes."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    out = tmp_path / "out"
    with ExportFolder(out) as folder:
        fill(folder)
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match=r"\(Input/output error\); no file of this export"):
            folder.publish()
    assert not out.exists()


def put_in_the_way(folder: ExportFolder) -> Path:
    """Have the last name of an export be taken by then."""
    taken = folder.partial.parent / "SE000003" / "mine"
    taken.parent.mkdir()
    taken.touch()
    return taken


def test_what_was_published_before_a_failure_is_taken_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as folder:
        fill(folder)
        taken = put_in_the_way(folder)
        with pytest.raises(StoreError, match=r"not empty.*no file of this export has its name"):
            folder.publish()
    assert [path for path in out.rglob("*") if path.is_file()] == [taken]


def test_what_cannot_be_taken_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail_back(name: str, to: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if src_dir_fd == folder._fd:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(name, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    with ExportFolder(tmp_path / "out") as folder:
        fill(folder)
        put_in_the_way(folder)
        monkeypatch.setattr(os, "rename", fail_back)
        with pytest.raises(StoreError, match=r"left there, .*: SE000001, SE000002\. Remove them"):
            folder.publish()


def test_what_cannot_be_removed_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = ExportFolder(tmp_path / "out")
    folder.open()
    fill(folder)
    put_in_the_way(folder)
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(StoreError, match="not empty"):
        folder.publish()
    with pytest.raises(StoreError, match=r"not empty.*could not be removed .*partial; remove it"):
        folder.discard()
