"""Who is one patient, and who is another."""

import pytest

from node.domain.patients import MOST_PATIENTS, Patient, distinct, is_another

JOHN = Patient("Smith^John", "P1", "19500102", "M")


@pytest.mark.parametrize(
    "other",
    [
        JOHN,
        Patient("SMITH^JOHN^^Dr", "P1"),
        Patient("smith john", " p1 "),
        Patient("Smith", "P1"),
        Patient("", "P1"),
        Patient("Smith^John", ""),
        Patient(),
    ],
)
def test_one_patient_written_otherwise_is_one(other: Patient) -> None:
    assert not is_another(other, JOHN)
    assert distinct([other, JOHN])[0].patient_id.strip().upper() == "P1"


@pytest.mark.parametrize(
    "other", [Patient("Smith^John", "P2"), Patient("Davis^Dora", "P1"), Patient("Davis^Dora")]
)
def test_other_id_or_other_name_is_another(other: Patient) -> None:
    assert is_another(other, JOHN)
    assert distinct([JOHN, other, JOHN]) == [JOHN, other]


def test_accents_and_their_spelling_make_no_other_patient() -> None:
    mueller = Patient("Müller^Jörg", "P1")
    assert not is_another(Patient("MUELLER^JOERG", "P1"), mueller)
    assert not is_another(Patient("Mu\u0308ller^Jorg", "P1"), mueller)


def test_values_of_several_patients_do_not_mix() -> None:
    assert distinct([Patient("A"), Patient("B", "PB", "19600101"), Patient("A", "PA")]) == [
        Patient("A", "PA"),
        Patient("B", "PB", "19600101"),
    ]


def test_patients_without_end_are_bounded() -> None:
    assert len(distinct(Patient(f"N{n}", f"P{n}") for n in range(3000))) == MOST_PATIENTS
