"""The index of a package, by which it is listed and found: merged per instance, and bounded."""

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from node.domain.display_text import forms
from node.domain.patients import Patient, patient_of
from node.domain.uids import MAX_UID

STUDY_KEYWORDS = (
    "PatientName",
    "PatientID",
    "StudyDate",
    "StudyDescription",
    "AccessionNumber",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "InstitutionName",
    "StudyTime",
    "StudyID",
)
SERIES_KEYWORDS = (
    "SeriesNumber",
    "Modality",
    "SeriesDescription",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "BodyPartExamined",
)
IMAGE_KEYWORDS = ("InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames")
"""Numbers of one instance; see `ImageIndex`."""

MOST_KEPT_PATIENTS, MOST_SERIES, MOST_MODALITIES = 200, 5000, 32
"""Of one package, in different words: a peer may send any number."""
_MOST_CODE, _MOST_DESCRIPTION = 16, 64  # characters of a CS or IS, and of an LO
_LEAST_INTEGER, _MOST_INTEGER = -(2**31), 2**31 - 1  # of an IS value, PS3.5 table 6.2-1


class ImageIndex(NamedTuple):
    """Attributes of one instance; None if an attribute is missing or malformed."""

    instance_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    bits_allocated: int | None = None
    number_of_frames: int | None = None

    @classmethod
    def of(cls, index: Mapping[str, str]) -> "ImageIndex":
        """Return it from what was decoded of an instance, by DICOM keyword."""
        return cls(*(_integer(index.get(keyword, "")) for keyword in IMAGE_KEYWORDS))


class ImageIndexes:
    """What each instance of a package says, by position; in little memory: they may be 200,000."""

    _ROW = struct.Struct("<B5i")

    def __init__(self, count: int = 0) -> None:
        self._rows = bytearray(count * self._ROW.size)

    def put(self, position: int, image: ImageIndex) -> None:
        """Note what an instance says; its position is below the count."""
        known = sum(1 << i for i, value in enumerate(image) if value is not None)
        self._ROW.pack_into(
            self._rows, position * self._ROW.size, known, *(value or 0 for value in image)
        )

    def get(self, position: int, default: ImageIndex, /) -> ImageIndex:
        """Return what an instance says; `default` where there is none at that position."""
        if not 0 <= position * self._ROW.size < len(self._rows):
            return default
        known, *values = self._ROW.unpack_from(self._rows, position * self._ROW.size)
        return ImageIndex(*(value if known >> i & 1 else None for i, value in enumerate(values)))


_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")


def _integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if _LEAST_INTEGER <= number <= _MOST_INTEGER else None


@dataclass
class PackageIndex:
    """The searchable values of a package's instances, or of some of them.

    Attributes:
        study: The first value found of each study attribute, by DICOM keyword.
        modalities: All modalities.
        patients: The patients of the instances, in the order in which they came.
        series: The attributes of each series, by series UID and then by DICOM keyword.
    """

    study: dict[str, str] = field(default_factory=dict)
    modalities: set[str] = field(default_factory=set)
    patients: dict[Patient, None] = field(default_factory=dict)
    series: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, indexes: Iterable[Mapping[str, str]]) -> "PackageIndex":
        """Return what some instances say together; see `add`."""
        merged = cls()
        for index in indexes:
            merged.add(index)
        return merged

    def add(self, index: Mapping[str, str]) -> None:
        """Merge what was decoded of an instance, by DICOM keyword; what is past a bound is lost."""
        for keyword in STUDY_KEYWORDS:
            if word := index.get(keyword, ""):
                self.study.setdefault(keyword, word)
        self._add_modalities(index.get("Modality", "").split())
        patient = patient_of(index)
        if patient != Patient() and len(self.patients) < MOST_KEPT_PATIENTS:
            self.patients.setdefault(patient)
        uid = index.get("SeriesInstanceUID", "")
        if uid and len(uid) <= MAX_UID:
            self._add_series(uid, index)

    def forms(self) -> dict[str, tuple[str, str]]:
        """Return how a search finds each text; it takes a while, so not in a transaction."""
        found = dict.fromkeys([*self.study.values(), *self.modalities])
        for patient in self.patients:
            found |= dict.fromkeys(patient.words)
        return {text: forms(text) for text in found}

    def merge(self, other: "PackageIndex") -> None:
        """Merge what other instances say, which came after these."""
        for keyword, word in other.study.items():
            self.study.setdefault(keyword, word)
        self._add_modalities(other.modalities)
        for patient in other.patients:
            if len(self.patients) < MOST_KEPT_PATIENTS:
                self.patients.setdefault(patient)
        for uid, values in other.series.items():
            self._add_series(uid, values)

    def _add_modalities(self, words: Iterable[str]) -> None:
        for word in words:
            if len(self.modalities) < MOST_MODALITIES:
                self.modalities.add(word[:_MOST_CODE])

    def _add_series(self, uid: str, index: Mapping[str, str]) -> None:
        if uid not in self.series and len(self.series) >= MOST_SERIES:
            return
        known = self.series.setdefault(uid, {})
        for keyword in SERIES_KEYWORDS:
            is_long = keyword == "SeriesDescription"
            word = index.get(keyword, "")[: _MOST_DESCRIPTION if is_long else _MOST_CODE]
            if word:
                known.setdefault(keyword, word)
