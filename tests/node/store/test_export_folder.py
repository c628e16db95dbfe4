"""An export's folder: everything, or nothing."""

from pathlib import Path

import pytest

from node.errors import Conflict, StoreError
from node.store.export_folder import ExportFolder


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
