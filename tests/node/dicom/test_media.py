"""Finding files: each once, in a stable order; what is wrong with one costs it alone."""

import os
from pathlib import Path

import pytest

from node.dicom import directory_reader
from node.dicom.media import find_files
from tests.cases.encoding import DEFLATED, EXPLICIT, directory, without_item
from tests.support.dicom_files import make_instance


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
        assert "a symbolic link" in below[str(tmp_path / name)]
    assert below[str(disc / "IM1")] == ""


def test_dicomdir_stands_before_what_lies_beside_it(tmp_path: Path) -> None:
    for name in ("A", "DICOMDIR", "Z"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(f.label).name for f in find_files(tmp_path)] == ["DICOMDIR", "A", "Z"]


def test_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    (found,) = find_files(tmp_path / "gone")
    assert "not there" in found.problem


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found_below(path: Path, folder: Path) -> list[str]:
    return [os.path.relpath(f.label, folder) for f in find_files(path)]


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
def test_dicomdir_that_is_named_means_what_it_names(tmp_path: Path, syntax: str) -> None:
    """As discs are copied, too; and the folder is taken whole."""
    put(
        tmp_path, "IM1", "other/IM1", "DICOM/im2.dcm", "DICOM/IM3", "DICOM/OTHER", "DICOM/ST1/IM4;1"
    )
    made = directory(["IM1", "DICOM\\IM2", "DICOM\\IM3", "DICOM\\ST1\\IM4", "GONE"], syntax=syntax)
    (tmp_path / "DICOMDIR").write_bytes(made)
    named = ["DICOMDIR", "IM1", "DICOM/im2.dcm", "DICOM/IM3", "DICOM/ST1/IM4;1"]
    assert found_below(tmp_path / "DICOMDIR", tmp_path) == named
    assert len(found_below(tmp_path, tmp_path)) == 7


@pytest.mark.parametrize("name", ["dicomdir", "DICOMDIR;1"])
def test_dicomdir_is_known_as_discs_are_copied(tmp_path: Path, name: str) -> None:
    put(tmp_path, "im1", "other")
    (tmp_path / name).write_bytes(directory(["IM1"]))
    assert found_below(tmp_path / name, tmp_path) == [name, "im1"]


def test_names_in_a_dicomdir_lead_nowhere_else(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    put(tmp_path, "secret/IM1", "IM1")
    put(disc, "im1", "IM1", "IM1.dcm")
    (disc / "LINK").symlink_to(tmp_path / "secret")
    (disc / "ONE").symlink_to(tmp_path / "IM1")
    up = ["..\\IM1", "../IM1", ".\\IM1", "LINK\\IM1", str(tmp_path / "IM1"), "\\", "A\\" * 100]
    (disc / "DICOMDIR").write_bytes(directory([*up, "ONE", "IM1", "IM1"]))
    found = {os.path.relpath(f.label, disc): f.problem for f in find_files(disc / "DICOMDIR")}
    assert list(found) == ["DICOMDIR", "ONE", "IM1"]
    assert "a symbolic link" in found["ONE"]
    (tmp_path / "cd").symlink_to(disc / "DICOMDIR")
    assert found_below(tmp_path / "cd", disc.resolve()) == list(found)


SOUND = directory([f"IM{n}" for n in range(100)])


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (SOUND[: len(SOUND) // 2], "damaged"),
        (without_item(SOUND, 51), "damaged"),
        (directory(["IM1", "X" * 300]), "too large"),
        (directory(f"{n:0200d}" for n in range(12_000)), "too large"),
    ],
    ids=["cut", "no-item", "long-name", "many-names"],
)
def test_dicomdir_that_cannot_be_followed_is_refused(tmp_path: Path, made: bytes, why: str) -> None:
    put(tmp_path, "IM1", "IM2")
    (tmp_path / "DICOMDIR").write_bytes(made)
    (found,) = find_files(tmp_path / "DICOMDIR")
    assert why in found.problem
    assert found.problem.endswith("; name the folder instead")


@pytest.mark.parametrize("made", [make_instance(1, 1), b"", b"\xa7" * 5000, b"PK\3\4"])
def test_what_is_only_called_dicomdir_stands_for_itself(tmp_path: Path, made: bytes) -> None:
    put(tmp_path, "IM1")
    (tmp_path / "DICOMDIR").write_bytes(made)
    (found,) = find_files(tmp_path / "DICOMDIR")
    assert found.problem == ""


def test_dicomdir_whose_reader_is_silent_or_says_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "DICOMDIR").write_bytes(SOUND)
    monkeypatch.setattr(directory_reader, "_MOST_BYTES", 50)
    (found,) = find_files(tmp_path / "DICOMDIR")
    assert "cannot be read completely" in found.problem
    monkeypatch.undo()
    monkeypatch.setattr(directory_reader, "_SECONDS", 0.0)
    (found,) = find_files(tmp_path / "DICOMDIR")
    assert "cannot be read completely" in found.problem
