"""Finding files: each once, in a stable order; what is wrong with one costs it alone."""

from pathlib import Path

from node.dicom.media import find_files


def test_folders_nested_without_end_are_named_and_end_nothing(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(200):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "x.dcm").touch()
    (tmp_path / "y.dcm").touch()
    found = list(find_files(tmp_path))
    assert [Path(f.label).name for f in found] == ["y.dcm", "d"]
    assert found[1].problem == "folders are nested too deep"


def test_what_is_named_is_followed_and_a_link_below_it_is_named(tmp_path: Path) -> None:
    """`/media/cdrom` is a link to `cdrom0` on many systems."""
    disc = tmp_path / "cdrom0"
    disc.mkdir()
    (disc / "IM1").write_bytes(b"one")
    (tmp_path / "cdrom").symlink_to("cdrom0")
    (tmp_path / "one").symlink_to("cdrom0/IM1")
    assert [(f.label, f.problem) for f in find_files(tmp_path / "cdrom")] == [
        (str(tmp_path / "cdrom/IM1"), "")
    ]
    assert [(f.label, f.problem) for f in find_files(tmp_path / "one")] == [
        (str(tmp_path / "one"), "")
    ]
    below = {f.label: f.problem for f in find_files(tmp_path)}
    for name in ("cdrom", "one"):
        assert "a link" in below[str(tmp_path / name)]
    assert below[str(disc / "IM1")] == ""


def test_dicomdir_stands_before_what_lies_beside_it(tmp_path: Path) -> None:
    for name in ("A", "DICOMDIR", "Z"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(f.label).name for f in find_files(tmp_path)] == ["DICOMDIR", "A", "Z"]


def test_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    (found,) = find_files(tmp_path / "gone")
    assert "not there" in found.problem
