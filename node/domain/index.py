"""What a package is listed and found by, merged instance by instance; its size has a bound."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
)
SERIES_KEYWORDS = ("SeriesNumber", "Modality", "SeriesDescription")

MOST_KEPT_PATIENTS, MOST_SERIES, MOST_MODALITIES = 200, 5000, 32
"""Of one package, in different words: a peer may send any number."""
_MOST_CODE, _MOST_DESCRIPTION = 16, 64  # characters of a CS or IS, and of an LO


@dataclass
class PackageIndex:
    """The searchable values of a package's instances, or of some of them.

    Attributes:
        study: By DICOM keyword; of each the first word that was said.
        modalities: All of them.
        patients: Whom the instances are of, in the order in which they came.
        series: What is said of each series, by its UID and then by DICOM keyword.
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
