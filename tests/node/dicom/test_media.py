"""Finding files: every member of a ZIP is opened without reading its directory again."""

import zipfile
from pathlib import Path

import pytest

from node.dicom import media
from node.dicom.media import Unreadable, find_files


def test_members_open_in_any_order_and_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(50):
            archive.writestr(f"{n}.dcm", f"content {n}")
    handles = [(n, file.open()) for n, file in enumerate(find_files(path))]
    for n, handle in reversed(handles):
        with handle:
            assert handle.read() == f"content {n}".encode()


def test_opening_a_member_reads_a_bounded_part_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(20):
            archive.writestr(f"{n}.dcm", b"x")
    found = list(find_files(path))

    def unwanted(*_: object) -> None:
        raise AssertionError("the directory is read again")

    monkeypatch.setattr(zipfile, "_EndRecData", unwanted)
    for file in found:
        with file.open() as handle:
            assert handle.read() == b"x"


def test_an_archive_that_changed_meanwhile_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first.dcm", b"first")
    (file,) = find_files(path)
    path.write_bytes(b"something else altogether" * 10)
    with pytest.raises(Unreadable):
        file.open()


def test_entry_without_a_name_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first.dcm", b"first")
        archive.writestr(zipfile.ZipInfo(""), b"second")
        archive.writestr("folder/", b"")
        archive.writestr("third.dcm", b"third")
    found = list(find_files(path))
    assert [f.label for f in found] == [
        f"{path}!first.dcm",
        f"{path}!(no name)",
        f"{path}!third.dcm",
    ]
    for file, content in zip(found, (b"first", b"second", b"third"), strict=True):
        with file.open() as handle:
            assert handle.read() == content


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_expand_without_a_bound_are_not_opened(tmp_path: Path, method: int) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("bomb.dcm", bytes(10_000_000))
    (file,) = find_files(path)
    with pytest.raises(Unreadable, match="cannot be bounded"):
        file.open()


def test_directory_is_bounded_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(100):
            archive.writestr(f"{n}.dcm", b"x")
    monkeypatch.setattr(media, "MAX_ZIP_DIRECTORY_BYTES", 1000)

    def unwanted(*_: object) -> None:
        raise AssertionError("the directory is read")

    monkeypatch.setattr(zipfile.ZipFile, "__init__", unwanted)
    (file,) = find_files(path)
    assert file.problem == "a ZIP of too many entries; unpack it first"


def test_honest_archive_of_many_black_images_is_read(tmp_path: Path) -> None:
    """Two hundred to one in each, and all of them together less than any ZIP may have."""
    path = tmp_path / "black.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(80):
            archive.writestr(f"{n}.dcm", bytes(524_288))
    found = list(find_files(path))
    assert len(found) == 80
    with found[-1].open() as handle:
        assert len(handle.read()) == 524_288


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
