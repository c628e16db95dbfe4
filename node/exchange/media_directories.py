"""What the DICOMDIRs among imported files say: which files there ought to be. No I/O.

A DICOMDIR names files as ISO 9660 has them: eight upper-case letters, no suffix (PS3.10 §8.2). The
same disc, copied or mounted otherwise, has them in lower case, or with `.dcm` or `;1` behind. So
names are compared without all that.
"""

from collections.abc import Iterable

_NAME = "DICOMDIR"
_SUFFIXES = (".DCM", ".DICOM", ".IMA")
_ARCHIVE = "!"
_SEPARATORS = "/\\!"
MOST_KEPT = 200_000
"""Labels of files that are kept beside DICOMDIRs; discs have far fewer."""


def is_called_dicom(label: str) -> bool:
    """Return whether a file's name says that it is DICOM, or a DICOMDIR."""
    return label.upper().endswith(_SUFFIXES) or _is_directory(_split(label)[1])


class MediaDirectories:
    """What DICOMDIRs name, held against the files that are seen.

    Attributes:
        first: The label of a DICOMDIR; empty if none was seen.
        is_whole: Whether all was kept that this takes; if not, what is missing cannot be told.
    """

    def __init__(self) -> None:
        self.first = ""
        self.is_whole = True
        self._folders: set[str] = set()  # that have a DICOMDIR, with what separates at the end
        self._seen: set[int] = set()  # hashes of places
        self._named: dict[int, str] = {}  # by hash of its place, how to call a file
        self._others: list[str] = []  # labels of files that are no DICOM
        self._are_all_seen = True

    def see(self, label: str) -> None:
        """Note that there is such a file; a DICOMDIR before what lies beside it, if possible."""
        folder, name = _split(label)
        if _is_directory(name):
            self.first = self.first or label
            self._folders.add(folder)
        elif _ARCHIVE in label or self._is_covered(label):
            if len(self._seen) >= MOST_KEPT:
                self.is_whole = self._are_all_seen = False  # then nothing is said to be missing
            else:
                self._seen.add(_place(label))

    def put_off(self, label: str) -> bool:
        """Take a file that is no DICOM, if a DICOMDIR may name it; `others` has it at the end."""
        if not self._is_covered(label) or len(self._others) >= MOST_KEPT:
            return False
        self._others.append(label)
        return True

    def name(self, label: str, references: Iterable[str]) -> None:
        """Take what the DICOMDIR of that label names."""
        folder, _ = _split(label)
        for reference in references:
            if len(self._named) >= MOST_KEPT:
                self.is_whole = False
            else:
                named = folder + reference
                self._named.setdefault(_place(named), named)

    def missing(self) -> list[str]:
        """Return what is named and was not seen, in the order of the DICOMDIRs."""
        if not self._are_all_seen:
            return []
        return [label for place, label in self._named.items() if place not in self._seen]

    def others(self) -> list[tuple[str, bool]]:
        """Return the labels that were put off, each with whether a DICOMDIR names it."""
        return [(label, _place(label) in self._named) for label in self._others]

    def _is_covered(self, label: str) -> bool:
        """Whether a DICOMDIR lies beside a file, or above it."""
        while self._folders and label:
            label, _ = _split(label.rstrip(_SEPARATORS))
            if label in self._folders:
                return True
        return False


def _split(label: str) -> tuple[str, str]:
    at = max(label.rfind(separator) for separator in _SEPARATORS) + 1
    return label[:at], label[at:]


def _is_directory(name: str) -> bool:
    return _without_version(name.upper()) == _NAME


def _without_version(name: str) -> str:
    return name.removesuffix(";1")


def _place(label: str) -> int:
    """Return the same number for every way in which a place is written."""
    plain = _without_version(label.upper().replace("\\", "/"))
    for suffix in _SUFFIXES:
        plain = plain.removesuffix(suffix)
    return hash(plain.rstrip("."))
