"""What DICOMDIRs name, held against what is seen: as discs are written, mounted and copied."""

import tracemalloc
from collections.abc import Callable

import pytest

from node.exchange.ingest import media_directories
from node.exchange.ingest.media_directories import MediaDirectories


def seen(*labels: str) -> MediaDirectories:
    media = MediaDirectories()
    for label in labels:
        media.see(label)
    return media


@pytest.mark.parametrize(
    "label",
    [
        "/cd/DICOM/IM1",
        "/cd/dicom/im1.dcm",
        "/cd/DICOM/IM1;1",
        "/cd/DICOM/IM1.",
        "/cd/Dicom/im1.DICOM",
    ],
)
def test_file_is_there_however_its_name_is_written(label: str) -> None:
    media = seen("/cd/DICOMDIR", label)
    media.name("/cd/DICOMDIR", ["DICOM/IM1"])
    assert list(media.missing()) == []


@pytest.mark.parametrize("label", ["/cd/DICOM/IM1.JPG", "/cd/IM1", "/other/DICOM/IM1"])
def test_another_file_stands_for_none(label: str) -> None:
    media = seen("/cd/DICOMDIR", label)
    media.name("/cd/DICOMDIR", ["DICOM/IM1"])
    assert list(media.missing()) == ["/cd/DICOM/IM1"]


def test_what_is_no_dicom_is_put_off_only_beside_a_dicomdir() -> None:
    media = seen("/cd/DICOMDIR")
    assert media.put_off("/cd/VIEWER/A")
    assert not media.put_off("/elsewhere/A")
    media.name("/cd/DICOMDIR", ["VIEWER/A"])
    assert list(media.others()) == [("/cd/VIEWER/A", True)]


def test_with_more_files_than_are_kept_none_is_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media_directories, "MOST_KEPT", 2)
    media = seen("/cd/DICOMDIR", "/cd/A", "/cd/B", "/cd/C")
    media.name("/cd/DICOMDIR", ["A", "X"])
    assert list(media.missing()) == []
    assert not media.is_whole


def name_many(media: MediaDirectories) -> None:
    media.name("/" + "d" * 8000 + "/DICOMDIR", (f"IM{n}" for n in range(20_000)))


def see_many_directories(media: MediaDirectories) -> None:
    for n in range(20_000):
        media.see("/" + "d" * 8000 + f"{n}/DICOMDIR")


def put_many_off(media: MediaDirectories) -> None:
    media.see("/DICOMDIR")
    for n in range(20_000):
        media.put_off("/" + "d" * 8000 + f"{n}")


@pytest.mark.parametrize("work", [name_many, see_many_directories, put_many_off])
def test_what_is_kept_of_long_names_is_bounded(work: Callable[[MediaDirectories], None]) -> None:
    """A megabyte of an archive can have gigabytes of them."""
    media = MediaDirectories()
    tracemalloc.start()
    try:
        work(media)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 80 * 2**20
    assert media.is_whole == (work is name_many)
    media.name("/a/DICOMDIR", ["IM1"])  # and that ends nothing


def test_folders_nested_without_end_are_not_looked_through() -> None:
    media = seen("/" * 100_000 + "DICOMDIR", "/" * 100_000 + "IM1")
    assert not media.is_whole
    assert not media.put_off("/" * 100_000 + "IM2")


def test_what_cannot_be_put_off_is_named_by_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    media = seen("/cd/DICOMDIR")
    media.name("/cd/DICOMDIR", ["A"])
    monkeypatch.setattr(media_directories, "MOST_KEPT", 0)
    assert not media.put_off("/cd/a.dcm")
    assert media.is_named("/cd/a.dcm")
    assert not media.is_named("/cd/B")
    assert not media.is_whole
    other = MediaDirectories()
    other.name("/cd/COPY", ["A"])  # a DICOMDIR that is not called so
    assert (other.first, other.is_whole) == ("/cd/COPY", False)
