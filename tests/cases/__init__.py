"""Odd inputs that people reported in the field: built from nothing, with what is right for each.

`files` has odd files, `media` odd discs, folders and archives, `studies` odd studies. A case is an
example of a kind; who reported it stands beside it. `python -m tests.cases FOLDER [NAME ...]`
writes them out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Right:
    """What an import has to say of a case.

    Attributes:
        carried: Instances that are imported, with those that are flagged.
        flagged: Of them those that are odd.
        refused: Files that are refused, each with a reason.
        not_dicom: Files that are nothing of DICOM's: viewers, pictures.
        directories: DICOMDIRs.
        missing: Files that a DICOMDIR names and that are not there.
        words: Every one of them occurs in what is said of the files.
    """

    carried: int = 0
    flagged: int = 0
    refused: int = 0
    not_dicom: int = 0
    directories: int = 0
    missing: int = 0
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One odd input.

    Attributes:
        name: What it is called.
        kind: What is odd.
        reported: Where the like was reported.
        right: What import makes of it.
        make: Writes it into a folder.
        is_large: It takes gigabytes, or minutes.
    """

    name: str
    kind: str
    reported: str
    right: Right
    make: Callable[[Path], None]
    is_large: bool = False


def put(path: Path, content: bytes) -> None:
    """Write a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
