"""Studies are found as people write names, and chosen by whatever names them."""

import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.dicom.examiner import open_examiner
from node.domain.display_text import findable, folded, forms, words_to_find
from node.domain.studies import Means
from node.errors import Conflict, NotFound
from node.store.choosing import choose_study
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store, run_import
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.dicom_files import encode, make_dataset, study_uid

NAMES = {
    1: "Müller^Hans",
    2: unicodedata.normalize("NFD", "Müller^Anna"),
    3: "Øvergård^Kåre",
    4: "Smith^John",
    40: "Łukasz^Zażółć",
}


def instance(study: int, number: int = 1, series: int = 1) -> bytes:
    ds = make_dataset(study, number, series=series)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = NAMES[study]
    ds.PatientBirthDate = f"19{50 + study % 50}0102"
    ds.PatientSex = "O"
    ds.AccessionNumber = f"Acc{study}"
    ds.ReferringPhysicianName = "Weiß^Ida"
    ds.InstitutionName = "Spital Süd"
    ds.SeriesNumber = series
    ds.SeriesDescription = f"Series {series}"
    return encode(ds)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[StoreContext]:
    (tmp_path / "home").mkdir()
    context = make_store(tmp_path / "home")
    folder = tmp_path / "s"
    folder.mkdir()
    for study in NAMES:
        for series in (1, 2, 10):
            (folder / f"{study}-{series}.dcm").write_bytes(instance(study, 1, series))
    # UTF-8 that is not declared: as many devices write it.
    data = (folder / "2-1.dcm").read_bytes()
    for path in folder.glob("2-*"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"ISO_IR 192", b"ISO_IR 6  "))
    async with open_examiner(parsers=1) as examiner:
        await run_import(ImportStore(context), examiner, folder)
    yield context
    context.close()


async def found(context: StoreContext, query: str) -> set[str]:
    return {uid for uid, _ in await listed(context, query)}


def choose(context: StoreContext, text: str) -> tuple[str, Means]:
    choice = context.database.read_sync(lambda db: choose_study(db, text))
    return choice.study_uid, choice.means


def uids(*studies: int) -> set[str]:
    return {study_uid(study) for study in studies}


async def test_names_are_found_without_accents_and_however_they_are_encoded(
    context: StoreContext,
) -> None:
    for query in ("muller", "MÜLLER", unicodedata.normalize("NFD", "müller"), "mueller"):
        assert await found(context, query) == uids(1, 2), query
    assert await found(context, "Müller, Anna") == uids(2)
    assert await found(context, "overgard") == await found(context, "oevergaard") == uids(3)
    assert await found(context, "lukasz zazolc") == uids(40)
    assert await found(context, "weiss spital") == uids(*NAMES)


async def test_birth_dates_and_accession_numbers_are_found(context: StoreContext) -> None:
    assert await found(context, "19540102") == await found(context, "1954-01-02") == uids(4)
    assert await found(context, "acc40") == uids(40)
    assert await found(context, "2026-11-24") == uids(*NAMES)


async def test_study_has_its_series_and_what_people_ask_for(context: StoreContext) -> None:
    _, [source] = await StudyStore(context).get("acc2")
    assert source.index["patient_name"] == NAMES[2]  # undeclared, and right all the same
    assert source.index["accession_number"] == "Acc2"
    assert (source.index["birth_date"], source.index["sex"]) == ("19520102", "O")
    assert source.index["referring_physician"] == "Weiß^Ida"
    assert source.index["institution"] == "Spital Süd"
    keys = ("SeriesNumber", "SeriesDescription", "NumberOfSeriesRelatedInstances")
    shown = [tuple(s[key] for key in keys) for s in source.series_rows]
    assert shown == [("1", "Series 1", "1"), ("2", "Series 2", "1"), ("10", "Series 10", "1")]


async def test_study_is_chosen_by_whatever_names_it(context: StoreContext) -> None:
    _, [source] = await StudyStore(context).get("smith")
    uid = study_uid(4)  # the beginning of study 40's, too
    for text, means in (
        (f"s{source.number}", Means.NUMBER),
        (uid, Means.UID),
        (f"{uid[:4]}…7.4", Means.UID),
        ("ACC4", Means.ACCESSION),
        ("smith", Means.WORDS),
        (" john SMITH ct", Means.WORDS),
    ):
        assert choose(context, text) == (uid, means), text
    assert choose(context, study_uid(40)[:-1] + "0") == (study_uid(40), Means.UID)


async def test_what_names_several_is_told_by_their_numbers_and_by_no_name(
    context: StoreContext,
) -> None:
    for text in ("muller", study_uid(1)[:-1], "ct"):
        with pytest.raises(Conflict, match=r"several studies match: s\d+, s\d+") as e:
            choose(context, text)
        assert text not in str(e.value)
    for text in ("nobody", "s999", "9.9", "", "%"):
        with pytest.raises(NotFound) as none:
            choose(context, text)
        assert "nobody" not in str(none.value)


@pytest.mark.filterwarnings("ignore:The value length")
async def test_past_is_asked_about_by_accession_number_and_by_the_beginning_of_a_uid(
    context: StoreContext, tmp_path: Path
) -> None:
    studies = StudyStore(context)
    (tmp_path / "t").mkdir()
    long_uid = f"1.2.3.{'4' * 90}"
    for number, uid, accession in ((5, study_uid(5), "4711"), (6, long_uid, "2026.11")):
        ds = make_dataset(number, 1)
        ds.StudyInstanceUID, ds.AccessionNumber = uid, accession
        (tmp_path / "t" / f"{number}.dcm").write_bytes(encode(ds))
    async with open_examiner(parsers=1) as examiner:
        await run_import(ImportStore(context), examiner, tmp_path / "t")
    for text, uid, is_whole in (
        ("4711", study_uid(5), True),
        ("2026.11", long_uid, True),
        (long_uid, long_uid, False),
        (long_uid[:70], long_uid[:70], False),  # of all that begin so, deleted ones too
        ("smith", study_uid(4), True),  # not study 40, whose UID begins so
    ):
        assert await studies.uid_or_beginning(text) == (uid, is_whole), text
    await studies.delete("4711", "", actor("test"))
    assert await studies.uid_or_beginning(study_uid(5)) == (study_uid(5), False)
    with pytest.raises(NotFound):
        await studies.uid_or_beginning("nobody")


async def test_number_of_a_study_is_never_anothers(context: StoreContext, tmp_path: Path) -> None:
    studies = StudyStore(context)
    numbers = {(await studies.get(study_uid(n)))[1][0].number: study_uid(n) for n in NAMES}
    last = max(numbers)
    await studies.delete(f"s{last}", "", actor("test"))
    (tmp_path / "t").mkdir()
    ds = make_dataset(77, 1)
    (tmp_path / "t" / "x.dcm").write_bytes(encode(ds))
    async with open_examiner(parsers=1) as examiner:
        await run_import(ImportStore(context), examiner, tmp_path / "t")
    with pytest.raises(NotFound):
        await studies.get(f"s{last}")
    assert (await studies.get(study_uid(77)))[1][0].number > last
    assert numbers[last] not in {uid for uid, _ in await listed(context)}


def test_text_is_compared_without_case_accents_and_encoding() -> None:
    assert folded("Straße ÉCOLE") == "strasse ecole"
    assert words_to_find("Müller^Hans, 2026-11-24") == ["muller", "hans", "20261124"]
    assert findable([forms("Müller")]) == "muller mueller"
