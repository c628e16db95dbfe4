"""DICOMDIRs: what they name, and that not all of it can be told."""

import pytest

from node.dicom.examine import examine_bytes
from node.domain.verdicts import Verdict
from tests.cases.encoding import DEFLATED, directory, without_item

NAMES = [f"DICOM\\IM{n:06d}" for n in range(100)]
SOUND = directory(NAMES)


@pytest.mark.parametrize(
    "made", [SOUND, directory(NAMES, syntax=DEFLATED)], ids=["plain", "deflated"]
)
def test_directory_names_its_files(made: bytes) -> None:
    found = examine_bytes(made)
    assert (found.verdict, found.is_partial) == (Verdict.DIRECTORY, False)
    assert list(found.references) == [name.replace("\\", "/") for name in NAMES]


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (SOUND[: len(SOUND) // 2], 0),  # its sequence says that it is longer
        (without_item(SOUND, 51), 50),
        (directory([*NAMES[:3], "X" * 300, *NAMES[3:5]]), 5),
        (directory(f"{n:0200d}" for n in range(12_000)), 9710),
        (directory([*NAMES, "Y" * 999], syntax=DEFLATED), 100),
    ],
    ids=["cut", "no-item", "long-name", "many-names", "deflated"],
)
def test_directory_that_cannot_be_followed_says_so(made: bytes, named: int) -> None:
    found = examine_bytes(made)
    assert (found.verdict, found.is_partial) == (Verdict.DIRECTORY, True)
    assert len(found.references) == named
    assert found.reasons[0].startswith(("the DICOMDIR is damaged", "the DICOMDIR is too large"))
