"""Odd studies: what is in them, rather than how it is encoded."""

from collections.abc import Callable
from pathlib import Path

from tests.cases import Case, Right, put
from tests.cases.encoding import (
    ENCAPSULATED_PDF,
    RAW_DATA,
    document,
    element,
    image,
    item,
    made_uid,
    part10,
)

CASES: list[Case] = []
_PRIVATE_CLASSES = ("1.3.12.2.1107.5.9.1", "1.3.46.670589.11.0.0.12.1", "1.2.840.113619.4.30")


def _case(
    kind: str, reported: str, right: Right, *, is_large: bool = False
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def note(make: Callable[[Path], None]) -> Callable[[Path], None]:
        name = make.__name__.strip("_").replace("_", "-")
        CASES.append(Case(name, kind, reported, right, make, is_large))
        return make

    return note


@_case(
    "the same SOP Instance UIDs in two series, with other pixels",
    "healthcare-dicom-dicomweb-adapter #153, dcm4chee-arc #4518, #4969",
    Right(carried=4, flagged=2, words=("another image of this import",)),
)
def _instances_in_two_series(folder: Path) -> None:
    name = "instances in two series"
    for series in (1, 2):
        for number in (1, 2):
            other = image(name, number + 100 * series) | {
                0x00080018: ("UI", made_uid(name, "instance", number)),
                0x0020000E: ("UI", made_uid(name, "series", series)),
                0x00200011: ("IS", str(series)),
            }
            put(folder / f"SERIES{series}" / f"IM{number}", part10(other))


@_case(
    "numbers that are no integers, and dates that are none",
    "pydicom #1643, #1661, dicoogle #378",
    Right(carried=7),
)
def _odd_numbers(folder: Path) -> None:
    name = "odd numbers"
    numbers = (("1.5", "1"), ("1", "1.0"), ("A1", "1"), ("456115117112105110101", "1"), ("", ""))
    for number, (instance, series) in enumerate(numbers, 1):
        odd = {0x00200013: ("IS", instance), 0x00200011: ("IS", series)}
        put(folder / f"IM{number}", part10(image(name, number) | odd))
    dated = {0x00080020: ("DA", "2026.01.15"), 0x00080030: ("TM", "10:15:00")}
    put(folder / "IM6", part10(image(name, 6) | dated))
    worded = {
        0x00080020: ("DA", "NX DE_XXXXXXXXXX"),
        0x00080060: ("CS", "ct lower case and much too long"),
    }
    put(folder / "IM7", part10(image(name, 7) | worded))


@_case(
    "private SOP classes and raw data beside images",
    "pydicom #1895 (Philips), spec2nii #32 (Siemens)",
    Right(carried=5),
)
def _raw_data(folder: Path) -> None:
    name = "raw data"
    put(folder / "IM1", part10(image(name, 1)))
    for number, sop_class in enumerate((*_PRIVATE_CLASSES, RAW_DATA), 2):
        put(folder / f"RAW{number}", part10(document(name, number, sop_class, "CT")))


@_case(
    "anonymised: no patient, dates, numbers or modality",
    "fo-dicom #488, Slicer #2040",
    Right(carried=2),
)
def _anonymised(folder: Path) -> None:
    gone = (
        0x00080020, 0x00080030, 0x00080050, 0x00081030, 0x00100030, 0x00100040, 0x00200010,
        0x00200011, 0x00200013,
    )  # fmt: skip
    emptied = {0x00080060: ("CS", ""), 0x00100010: ("PN", ""), 0x00100020: ("LO", "")}
    for number in (1, 2):
        elements = image("anonymised", number) | emptied
        kept = {tag: value for tag, value in elements.items() if tag not in gone}
        put(folder / f"IM{number}", part10(kept))


@_case(
    "a study that is one PDF report",
    "Weasis #457, CTK #620; PS3.3 F.5.37",
    Right(carried=1),
)
def _one_report(folder: Path) -> None:
    title = (
        element(0x00080100, "SH", "18748-4")
        + element(0x00080102, "SH", "LN")
        + element(0x00080104, "LO", "Diagnostic imaging report")
    )
    elements = document("one report", 1, ENCAPSULATED_PDF, "DOC") | {
        0x00280301: ("CS", "YES"),
        0x0040A043: ("SQ", item(title)),
        0x00420010: ("ST", "Radiology report"),
        0x00420011: ("OB", b"%PDF-1.4\n1 0 obj <<>> endobj\n%%EOF\n"),
        0x00420012: ("LO", "application/pdf"),
    }
    put(folder / "REPORT", part10(elements))


@_case(
    "a second patient under the same Study Instance UID",
    "kind of dcm4chee-arc #2758",
    Right(carried=2, flagged=1, words=("another patient",)),
)
def _two_patients(folder: Path) -> None:
    for number, (name, patient) in enumerate((("CARTER^CARL", "PC1"), ("DAVIS^DORA", "PD2")), 1):
        identity = {
            0x00100010: ("PN", name),
            0x00100020: ("LO", patient),
            0x0020000E: ("UI", made_uid("two patients", "series", number)),
        }
        put(folder / str(number) / "IM1", part10(image("two patients", number) | identity))
