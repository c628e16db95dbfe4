"""The patients of a study: normally one, but several can share a Study Instance UID by mistake."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from node.domain.display_text import folded, forms

MOST_PATIENTS = 100
"""Patients per study that are distinguished, at most: a peer may send any number."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient, as an instance says; each value may be missing."""

    name: str = ""
    patient_id: str = ""
    birth_date: str = ""
    sex: str = ""

    @property
    def words(self) -> list[str]:
        """What a study is to be found by: name, ID and birth date."""
        return [word for word in (self.name, self.patient_id, self.birth_date) if word]


def patient_of(index: Mapping[str, str]) -> Patient:
    """Return whom an instance is of, by what was decoded of it, keyed by DICOM keyword."""
    return Patient(
        index.get("PatientName", ""),
        index.get("PatientID", ""),
        index.get("PatientBirthDate", ""),
        index.get("PatientSex", ""),
    )


def distinct(found: Iterable[Patient]) -> list[Patient]:
    """Return the distinct patients, each with all that is known of it, in the order found.

    Two entries are the same patient if their IDs are equal or one is missing, and if their names
    agree. Names agree despite differences in accents, case, or the number of parts.
    """
    patients: list[tuple[Patient, str, set[str]]] = []
    for one in found:
        plain_id, words = folded(one.patient_id).strip(), _words(one.name)
        for i, (other, other_id, others) in enumerate(patients):
            is_id_one = not plain_id or not other_id or plain_id == other_id
            if is_id_one and (words <= others or others <= words):
                patients[i] = (_merged(other, one), other_id or plain_id, words | others)
                break
        else:
            if len(patients) < MOST_PATIENTS:
                patients.append((one, plain_id, words))
    return [patient for patient, _, _ in patients]


@lru_cache(maxsize=256)  # asked for each instance, and nearly all say the same
def is_another(one: Patient, known: Patient) -> bool:
    """Return whether an instance is of another patient than those before it; see `distinct`."""
    return len(distinct([known, one])) > 1


def _words(name: str) -> set[str]:
    """Return the parts of a name in each way in which it can be written."""
    return set("".join(c if c.isalnum() else " " for c in " ".join(forms(name))).split())


def _merged(known: Patient, more: Patient) -> Patient:
    return Patient(
        known.name or more.name,
        known.patient_id or more.patient_id,
        known.birth_date or more.birth_date,
        known.sex or more.sex,
    )
