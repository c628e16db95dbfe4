"""Questions to the catalogue: what is written how, and what matches."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.query import (
    ATTRIBUTES,
    MAX_VALUES,
    MAX_WILDCARDS,
    Kind,
    Level,
    attribute,
    criterion,
    make_query,
    wildcard_matches,
)
from node.errors import UsageError


def matches(name: str, wanted: str, value: str) -> bool:
    found = criterion(name, wanted)
    assert found is not None
    return found.matches(value)


@pytest.mark.parametrize(
    ("name", "wanted", "value", "is_match"),
    [
        ("PatientName", "MULLER^ANNA", "Müller^Anna", True),
        ("PatientName", "MUELLER^A*", "Müller^Anna", True),
        ("PatientName", "Müller", "MULLER^ANNA^^", True),
        ("PatientName", "Mull", "MULLER^ANNA", False),
        ("PatientName", "*anna*", "MULLER^ANNA", True),
        ("PatientName", "Yamada^Tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PatientName", "山田*", "Yamada^Tarou=山田^太郎", True),
        ("PatientName", "MULLER^ANNA^", "MULLER^ANNA", True),
        ("PatientName", "muller^*", "Muller ^Anna", True),
        ("PatientName", "홍^길?", "Hong^Gildong=洪^吉洞=홍^길동", True),
        ("PatientName", "호*", "Hong^Gildong=洪^吉洞=홍^길동", False),
        ("PatientID", "P12", "P12", True),
        ("PatientID", "p12", "P12", False),
        ("PatientID", "P1?", "P12", True),
        ("PatientID", "P*2", "P2", True),
        ("PatientID", "P1", "P12", False),
        ("StudyDate", "20261124", "20261124", True),
        ("StudyDate", "20261101-20261130", "20261124", True),
        ("StudyDate", "-20261123", "20261124", False),
        ("StudyDate", "20261124-", "20261124", True),
        ("StudyDate", "20261101-", "2026.11.24", False),
        ("StudyTime", "10", "103059.5", True),
        ("StudyTime", "1000-1030", "103059", True),
        ("StudyTime", "1000-1030", "1031", False),
        ("StudyTime", "103000", "1030", True),
        ("StudyTime", "10:00-10:30", "1015", True),
        ("StudyDate", "2026-11-01-2026-11-30", "20261124", True),
        ("StudyDate", "2026-11-24", "20261124", True),
        ("ModalitiesInStudy", "CT\\PT", "MR PT", True),
        ("ModalitiesInStudy", "CT", "MR PT", False),
        ("StudyDescription", "*SCHADEL*", "MRT Schädel nativ", True),
        ("StudyDescription", "schaedel", "Schädel", True),
        ("StudyInstanceUID", "1.2.3,1.2.4", "1.2.4", True),
        ("StudyInstanceUID", "1.2.3\\1.2.4", "1.2.3", True),
        ("StudyInstanceUID", "1.2", "1.2.4", False),
        ("SeriesNumber", "2", "02", True),
        ("SeriesNumber", "2", "12", False),
        ("SeriesNumber", "2", "two", False),
        ("PatientSex", "F", "", False),
    ],
)
def test_values_match_as_the_standard_says(
    name: str, wanted: str, value: str, *, is_match: bool
) -> None:
    assert matches(name, wanted, value) is is_match


@pytest.mark.parametrize("wanted", ["", "*", "  ", "**"])
def test_empty_key_matches_anything(wanted: str) -> None:
    assert criterion("PatientName", wanted) is None


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        ("StudyDate", "20261324", "this day does not exist"),
        ("StudyDate", "20260230-", "this day does not exist"),
        ("StudyDate", "-", "days are written"),
        ("StudyTime", "2530", "times are written"),
        ("StudyTime", "1060", "times are written"),
        ("StudyInstanceUID", "1.2.*", "no wildcards"),
        ("StudyInstanceUID", ",".join(["1.2"] * (MAX_VALUES + 1)), "at most"),
        ("SeriesNumber", "1-5", "whole number"),
        ("PatientName", "*a" * (MAX_WILDCARDS + 1), "asterisks"),
        ("PatientID", "x" * 1000, "characters"),
        ("PatientID", "\\", "no value"),
        ("StudyDate", "20261130-20261101", "lower end"),
        ("NumberOfStudyRelatedSeries", "3", "cannot be searched"),
        ("PatientWeight", "70", "no such key called PatientWeight"),
        ("PatientNam", "x", "perhaps PatientName"),
        ("Patient Name = doe", "x", r"no such key\. `emix query --help`"),
    ],
)
def test_what_is_written_wrongly_is_said(name: str, wanted: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        criterion(name, wanted)


def test_tag_names_an_attribute_as_its_keyword_does() -> None:
    for name in ("00100010", "PatientName", "patientname", "PATIENTNAME"):
        assert attribute(name) == ATTRIBUTES["PatientName"]


def test_tags_and_keywords_are_those_of_the_dictionary() -> None:
    from pydicom.datadict import keyword_for_tag

    assert {a.keyword: keyword_for_tag(a.tag) for a in ATTRIBUTES.values()} == {
        k: k for k in ATTRIBUTES
    }


def test_key_of_a_lower_level_is_refused() -> None:
    with pytest.raises(UsageError, match="search at that level"):
        make_query(Level.STUDY, {"Modality": "CT"})
    assert make_query(Level.IMAGE, {"Modality": "CT", "Rows": ""}).at(Level.SERIES)


def test_key_is_given_once_by_whatever_name() -> None:
    with pytest.raises(UsageError, match="given twice"):
        make_query(Level.STUDY, {"PatientID": "1", "00100020": "2"})


@given(st.text("ab*?[", max_size=8), st.text("ab[", max_size=8))
def test_wildcards_match_as_a_regular_expression_does(pattern: str, value: str) -> None:
    parts = {"*": ".*", "?": "."}
    wanted = "".join(parts.get(c) or re.escape(c) for c in pattern)
    assert wildcard_matches(pattern, value) == bool(re.fullmatch(wanted, value))


@given(st.sampled_from(sorted(ATTRIBUTES)), st.text(max_size=40))
def test_no_text_makes_anything_but_a_criterion_or_an_error(name: str, text: str) -> None:
    try:
        found = criterion(name, text)
    except UsageError:
        return
    assert found is None or found.attribute.kind is not Kind.COUNT
    if found is not None:
        found.matches(text)
