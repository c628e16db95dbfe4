"""What DICOMDIRs name, held against what is seen: as discs are written, mounted and copied."""

import pytest

from node.exchange import media_directories
from node.exchange.media_directories import MediaDirectories


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
    assert media.missing() == []


@pytest.mark.parametrize("label", ["/cd/DICOM/IM1.JPG", "/cd/IM1", "/other/DICOM/IM1"])
def test_another_file_stands_for_none(label: str) -> None:
    media = seen("/cd/DICOMDIR", label)
    media.name("/cd/DICOMDIR", ["DICOM/IM1"])
    assert media.missing() == ["/cd/DICOM/IM1"]


def test_what_is_no_dicom_is_put_off_only_beside_a_dicomdir() -> None:
    media = seen("/cd/DICOMDIR")
    assert media.put_off("/cd/VIEWER/A")
    assert not media.put_off("/elsewhere/A")
    media.name("/cd/DICOMDIR", ["VIEWER/A"])
    assert media.others() == [("/cd/VIEWER/A", True)]


def test_with_more_files_than_are_kept_none_is_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media_directories, "MOST_KEPT", 2)
    media = seen("/cd/DICOMDIR", "/cd/A", "/cd/B", "/cd/C")
    media.name("/cd/DICOMDIR", ["A", "X"])
    assert media.missing() == []
