"""The builder of the DICOMDIR: one odd file costs its own entry, and no other's."""

from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from node.dicom.dicomdir import write_dicomdir
from node.errors import StoreError
from tests.dicom_files import encode, make_dataset, make_instance

_ODD = {
    "a date that is none": (0x00080020, "AT", 0x5C5C5C5C),
    "a title that is numbers": (0x00081030, "FD", [1.0, 2.0]),
    "a number without an end": (0x00200013, "FD", float("inf")),
    "a time that is a number": (0x00080030, "FD", 1.5),
}
"""Values in other types than their elements have: pydicom reads, adds or writes none of these."""


def odd_file(study: int, instance: int, odd: tuple[int, str, object]) -> bytes:
    ds = make_dataset(study, instance)
    ds.add_new(*odd)
    return encode(ds)


def _exported(folder: Path, files: list[bytes]) -> Path:
    (folder / "SE000001").mkdir()
    for n, data in enumerate(files, 1):
        (folder / "SE000001" / f"IM{n:06d}").write_bytes(data)
    return folder


def _bytes_of(folder: Path) -> set[bytes]:
    return {p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR"}


@pytest.mark.parametrize("odd", _ODD.values(), ids=_ODD.keys())
def test_file_that_cannot_be_listed_is_named_and_the_others_are_listed(
    tmp_path: Path, odd: tuple[int, str, object]
) -> None:
    files = [make_instance(1, 1), odd_file(2, 1, odd), make_instance(1, 3)]
    _exported(tmp_path, files)
    assert write_dicomdir(tmp_path) == ["SE000001/IM000002"]
    file_set = FileSet(tmp_path / "DICOMDIR")
    listed = {Path(str(i.path)).read_bytes() for i in file_set}
    file_set._stage["t"].cleanup()  # pydicom leaves it to the garbage collector
    assert listed == {files[0], files[2]}
    assert _bytes_of(tmp_path) == set(files)


def test_folder_of_which_nothing_can_be_listed_stays_as_it_is(tmp_path: Path) -> None:
    files = [odd_file(n, 1, odd) for n, odd in enumerate(_ODD.values())]
    _exported(tmp_path, files)
    with pytest.raises(StoreError):
        write_dicomdir(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["SE000001"]
    assert _bytes_of(tmp_path) == set(files)
