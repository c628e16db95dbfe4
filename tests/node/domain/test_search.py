"""Search: typing errors are forgiven, and every word counts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.search import Search

RECORDS = {
    1: ("Great Falls Clinic", "Great Falls", "CT", "MR"),
    2: ("Billings Hospital", "Billings", "Radiology"),
    3: ("Falls Community Hospital", "Klamath Falls"),
    4: ("Hôpital Sainte-Élise", "Montréal", "Pédiatrie"),
    5: ("St. Peter's Health", "Helena"),
}


@pytest.fixture
def search() -> Search[int]:
    search = Search[int]()
    for key, texts in RECORDS.items():
        search.put(key, texts)
    return search


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("great falls", [1]),
        ("GRAET FALS", [1]),
        ("falls", [1, 3]),
        ("hosp bill", [2]),
        ("billngs", [2]),
        ("bilings hopsital", [2]),
        ("hopital elise", [4]),
        ("montreal pediatrie", [4]),
        ("st peters", [5]),
        ("st peter", [5]),
        ("ct", [1]),
        ("great billings", []),
        ("nowhere", []),
        ("", []),
        ("' OR 1=1 --", []),
    ],
)
def test_people_find_what_they_mean(search: Search[int], asked: str, found: list[int]) -> None:
    assert sorted(search.find(asked, 10)) == found


def test_what_fits_best_comes_first(search: Search[int]) -> None:
    assert search.find("falls hospital", 10) == [3]
    assert search.find("great", 10)[0] == 1
    search.put(6, ("Falls",))
    assert search.find("falls", 2) == [6, 3]


def test_removed_and_changed_records_are_found_no_longer(search: Search[int]) -> None:
    search.remove(2)
    assert search.find("billings", 10) == []
    search.put(1, ("Sun River Clinic",))
    assert search.find("great falls", 10) == []
    assert search.find("sun river", 10) == [1]
    for key in RECORDS:
        search.remove(key)
    assert not search._keys


@given(st.text(max_size=300))
def test_no_question_upsets_it(asked: str) -> None:
    search = Search[int]()
    search.put(1, (asked, "Great Falls"))
    assert search.find("great", 5) == [1]
    assert search.find(asked, 5) in ([], [1])


@given(st.integers(0, 10**6))
def test_one_wrong_letter_is_forgiven(seed: int) -> None:
    chance = random.Random(seed)
    search = Search[int]()
    for key, texts in RECORDS.items():
        search.put(key, texts)
    word = chance.choice(["billings", "hospital", "community", "klamath", "helena"])
    at = chance.randrange(len(word))
    typed = chance.choice(
        [word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word[:at] + "x" + word[at + 1 :]]
    )
    assert set(search.find(word, 10)) <= set(search.find(typed, 10))
