"""Names and IDs: a name is never taken for an ID, nor for a name that looks the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import FacilityId
from node.domain.names import alike, beginning_of_id, looks_like_id, same_name

facilities = st.binary(min_size=32, max_size=32).map(FacilityId)


@given(facilities, st.sampled_from(["-", " ", "", "\u2011", " - "]), st.booleans())
def test_every_spelling_of_an_id_looks_like_one(
    facility: FacilityId, between: str, is_lower: bool
) -> None:
    text = str(facility).replace("-", between)
    assert looks_like_id(text.lower() if is_lower else text)


@given(facilities, st.integers(18, 63))
def test_beginning_of_an_id_as_it_is_written_looks_like_one(facility: FacilityId, to: int) -> None:
    text = str(facility)[:to]
    assert looks_like_id(text)
    assert looks_like_id(text + " Hospital")
    assert str(facility).replace("-", "").startswith(beginning_of_id(text))


@pytest.mark.parametrize(
    "name",
    [
        "Great Falls Clinic",
        "Western Montana Clinic",
        "Kenneth General Hospital",
        "Kreiskrankenhaus Freising",
        "Universitatsklinikum",
        "St. Vincent 24/7",
        "Hospital 2345672345672345",
        "Больница №3",
        "",
    ],
)
def test_names_of_facilities_are_no_ids(name: str) -> None:
    assert not looks_like_id(name)


@given(st.text(max_size=100))
def test_no_text_upsets_them_and_each_is_like_itself(text: str) -> None:
    looks_like_id(text)
    beginning_of_id(text)
    assert same_name(text, text)
    assert alike(text, text)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Billings", "\u0412illings"),
        ("Billings", "Bi\u006c1ings"),
        ("Billings", "BilIings"),
        ("Mercy", "Rnercy"),
        ("Caf\u00e9", "Cafe"),
        ("ILLINOIS", "Illinois"),
        ("Great Falls", "Great\u00a0Falls "),
        ("Oslo", "0slo"),
        ("Athena", "\u0391thena"),
    ],
)
def test_names_that_look_alike_are_found_out(a: str, b: str) -> None:
    assert alike(a, b)
    assert alike(b, a)


@pytest.mark.parametrize(
    ("a", "b"), [("Billings", "Helena"), ("Ali", "All"), ("Clinic 1", "Clinic 2")]
)
def test_others_are_others(a: str, b: str) -> None:
    assert not alike(a, b)
