"""What is here is found by its attributes at each level, as a look at everything finds it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.domain.audit import AuditFilter
from node.domain.catalogue import Found
from node.domain.query import ATTRIBUTES, Kind, Level, criterion, make_query
from node.domain.uids import MAX_UID
from node.errors import UsageError
from node.store import catalogue
from node.store.audit import AuditStore
from node.store.catalogue import CatalogueStore
from node.store.context import StoreContext
from tests.node.store.test_exporting import bring
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.dicom_files import encode, make_dataset, study_uid

NAMES = {
    1: "Müller^Anna",
    2: "MULLER^BERTA",
    3: "Yamada^Tarou=山田^太郎",
    4: "Mu%ller^[x]_y",
    5: "",
}
ALICE = actor("alice")


def instance(study: int, number: int) -> bytes:
    ds = make_dataset(study, number, series=1 + number % 2)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = NAMES[study]
    ds.PatientID = f"P{study % 3}"
    ds.PatientBirthDate = f"195{study}0102"
    ds.PatientSex = "MFO"[study % 3]
    ds.StudyDate, ds.StudyTime = f"2026110{study}", f"10{study}5"
    ds.StudyID, ds.AccessionNumber = f"E{study}", f"Acc{study}" if study != 5 else ""
    ds.StudyDescription = ["MRT Schädel", "CT HEAD", "CT head 50%", "", "X_Y"][study - 1]
    ds.ReferringPhysicianName, ds.InstitutionName = "Weiß^Ida", "Spital Süd"
    ds.Modality = ["CT", "MR"][number % 2] if study == 2 else "CT"
    ds.SeriesNumber, ds.InstanceNumber = 1 + number % 2, 10 - number
    ds.SeriesDescription, ds.BodyPartExamined = f"axial {number % 2}", "HEAD"
    ds.PerformedProcedureStepStartDate = ds.StudyDate
    ds.PerformedProcedureStepStartTime = "101500"
    return encode(ds)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreContext]:
    folder = tmp_path_factory.mktemp("catalogue")
    context = make_store(folder / "home")
    files = {f"{s}-{n}": instance(s, n) for s in NAMES for n in range(1, 4)}
    trio.run(bring, context, folder / "s", files)
    yield context
    context.close()


async def found(context: StoreContext, level: Level, **keys: str) -> list[Found]:
    store = CatalogueStore(context, AuditStore(context))
    return await store.find(make_query(level, keys))


async def studies(context: StoreContext, **keys: str) -> set[int]:
    answers = await found(context, Level.STUDY, **keys)
    numbers = {study_uid(n): n for n in NAMES}
    assert len({a.study_uid for a in answers}) == len(answers)
    return {numbers[a.study_uid] for a in answers}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {1, 2, 3, 4, 5}),
        ({"PatientName": "MUELLER*"}, {1}),
        ({"PatientName": "muller"}, {1, 2}),
        ({"PatientName": "*山*"}, {3}),
        ({"PatientName": "mu%l*"}, {4}),
        ({"PatientName": "*[x]?y"}, {4}),
        ({"PatientName": "muller", "PatientID": "P2"}, {2}),
        ({"PatientName": "muller", "PatientSex": "F"}, {1}),
        ({"PatientID": "p2"}, set()),
        ({"PatientID": "P*"}, {1, 2, 3, 4, 5}),
        ({"PatientBirthDate": "19520101-19531231"}, {2, 3}),
        ({"StudyDate": "20261103-"}, {3, 4, 5}),
        ({"StudyDate": "20261103", "StudyTime": "1000-1040"}, {3}),
        ({"StudyTime": "1035"}, {3}),
        ({"StudyID": "E4"}, {4}),
        ({"AccessionNumber": "Acc2"}, {2}),
        ({"AccessionNumber": "ACC2"}, set()),
        ({"AccessionNumber": "Acc?"}, {1, 2, 3, 4}),
        ({"StudyDescription": "*schadel*"}, {1}),
        ({"StudyDescription": "*schaedel*"}, {1}),
        ({"StudyDescription": "ct head*"}, {2, 3}),
        ({"StudyDescription": "*50%"}, {3}),
        ({"StudyDescription": "x?y"}, {5}),
        ({"ReferringPhysicianName": "weiss"}, {1, 2, 3, 4, 5}),
        ({"InstitutionName": "spital sud"}, {1, 2, 3, 4, 5}),
        ({"ModalitiesInStudy": "MR"}, {2}),
        ({"ModalitiesInStudy": "MR\\CT"}, {1, 2, 3, 4, 5}),
        ({"StudyInstanceUID": f"{study_uid(2)},{study_uid(4)}"}, {2, 4}),
    ],
)
async def test_studies_are_found_by_their_attributes(
    context: StoreContext, keys: dict[str, str], expected: set[int]
) -> None:
    assert await studies(context, **keys) == expected


async def test_study_says_what_is_known_of_it(context: StoreContext) -> None:
    (answer,) = await found(context, Level.STUDY, StudyInstanceUID=study_uid(2))
    assert answer.values == {
        "StudyInstanceUID": study_uid(2),
        "PatientName": "MULLER^BERTA",
        "PatientID": "P2",
        "PatientBirthDate": "19520102",
        "PatientSex": "O",
        "StudyDate": "20261102",
        "StudyTime": "1025",
        "StudyID": "E2",
        "AccessionNumber": "Acc2",
        "StudyDescription": "CT HEAD",
        "ReferringPhysicianName": "Weiß^Ida",
        "InstitutionName": "Spital Süd",
        "ModalitiesInStudy": "CT MR",
        "NumberOfStudyRelatedSeries": "2",
        "NumberOfStudyRelatedInstances": "3",
    }


async def test_series_and_instances_are_found_and_say_what_is_known_of_them(
    context: StoreContext,
) -> None:
    series = await found(context, Level.SERIES, StudyInstanceUID=study_uid(2))
    assert [s.values["SeriesNumber"] for s in series] == ["1", "2"]
    assert [s.values["NumberOfSeriesRelatedInstances"] for s in series] == ["1", "2"]
    (magnetic,) = await found(context, Level.SERIES, Modality="MR")
    assert magnetic.values["BodyPartExamined"] == "HEAD"
    assert magnetic.values["PerformedProcedureStepStartDate"] == "20261102"
    uid = magnetic.values["SeriesInstanceUID"]
    images = await found(context, Level.IMAGE, SeriesInstanceUID=uid)
    assert [i.values["InstanceNumber"] for i in images] == ["7", "9"]
    (image,) = await found(
        context, Level.IMAGE, SOPInstanceUID=images[0].values["SOPInstanceUID"], Rows="64"
    )
    ds = make_dataset(2, 3)
    assert image.values["Columns"] == str(ds.Columns)
    assert image.values["BitsAllocated"] == str(ds.BitsAllocated)
    assert image.values["AvailableTransferSyntaxUID"] == "1.2.840.10008.1.2.1"
    assert not await found(context, Level.IMAGE, SeriesInstanceUID=uid, Rows="65")


async def test_answers_are_given_in_pages_that_do_not_overlap(context: StoreContext) -> None:
    store = CatalogueStore(context, AuditStore(context))
    everything = await store.find(make_query(Level.IMAGE, {}))
    pages = [
        await store.find(make_query(Level.IMAGE, {}, limit=4, offset=offset))
        for offset in range(0, len(everything) + 1, 4)
    ]
    assert [answer for page in pages for answer in page] == everything
    assert len(everything) == 15
    assert not await store.find(make_query(Level.IMAGE, {}, limit=4, offset=15))


async def test_search_of_too_many_studies_says_how_to_narrow_it(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "MOST_WALKED", 4)
    with pytest.raises(UsageError, match="more than 4 studies; name a patient"):
        await found(context, Level.SERIES, Modality="XA")
    assert len(await found(context, Level.STUDY)) == 5


async def test_question_is_in_the_audit_log_once(context: StoreContext) -> None:
    audit = AuditStore(context)
    store = CatalogueStore(context, audit)
    query = make_query(Level.STUDY, {"PatientID": "P1"}, ["head"])
    for _ in range(3):
        await store.note_queried(query, 2, ALICE)
    pages = audit.search(AuditFilter(kind="catalogue.queried"))
    entries = [entry async for page in pages for entry in page if entry.operator == "alice"]
    assert [json.loads(entry.body) for entry in entries] == [
        {
            "level": "study",
            "query": "head",
            "keys": {"PatientID": "P1"},
            "arrived": False,
            "offset": 0,
            "limit": 0,
            "answers": 2,
        }
    ]


async def test_patient_who_was_asked_for_is_the_one_that_is_answered(tmp_path: Path) -> None:
    context = make_store(tmp_path / "home")
    files = {}
    for number, (name, patient_id) in enumerate((("CARTER^C", "PC"), ("DAVIS^D", "PD")), 1):
        ds = make_dataset(1, number)
        ds.PatientName, ds.PatientID = name, patient_id
        files[str(number)] = encode(ds)
    await bring(context, tmp_path / "s", files)
    (answer,) = await found(context, Level.STUDY, PatientName="davis*")
    assert (answer.values["PatientName"], answer.values["PatientID"]) == ("DAVIS^D", "PD")
    assert not await found(context, Level.STUDY, PatientName="davis*", PatientID="PC")
    for level in (Level.SERIES, Level.IMAGE):  # of whom a series is nobody knows
        for answer in await found(context, level, PatientID="PD"):
            assert not answer.values["PatientName"]
            assert not answer.values["PatientID"]
    context.close()


async def test_what_is_said_of_one_patients_package_is_not_said_of_anothers(
    tmp_path: Path,
) -> None:
    context = make_store(tmp_path / "home")
    for number, (patient_id, accession) in enumerate((("A1", "ACC-A"), ("B1", "")), 1):
        ds = make_dataset(1, number)
        ds.PatientName, ds.PatientID = f"{patient_id}^X", patient_id
        ds.AccessionNumber = accession
        ds.StudyDescription = "of A only" if accession else ""
        await bring(context, tmp_path / str(number), {"1": encode(ds)})
    (answer,) = await found(context, Level.STUDY, PatientID="B1")
    assert (answer.values["PatientName"], answer.values["AccessionNumber"]) == ("B1^X", "")
    assert not answer.values["StudyDescription"]
    (answer,) = await found(context, Level.STUDY, PatientID="A1")
    assert answer.values["AccessionNumber"] == "ACC-A"
    context.close()


async def test_answer_shows_what_was_asked_for_though_packages_differ(tmp_path: Path) -> None:
    context = make_store(tmp_path / "home")
    for number, (accession, day) in enumerate((("LATE", "20260101"), ("OTHER", "20260102")), 1):
        ds = make_dataset(1, number, series=number)
        ds.AccessionNumber, ds.StudyDate = accession, day
        await bring(context, tmp_path / str(number), {"1": encode(ds)})
    for accession, day in (("LATE", "20260101"), ("OTHER", "20260102")):
        (answer,) = await found(context, Level.STUDY, AccessionNumber=accession)
        assert (answer.values["AccessionNumber"], answer.values["StudyDate"]) == (accession, day)
    series = await found(context, Level.SERIES, AccessionNumber="LATE")
    assert len(series) == 2
    for one in series:  # the keys of the study hold in one package, the series is in another
        uid = one.values["SeriesInstanceUID"]
        assert len(
            await found(context, Level.SERIES, AccessionNumber="LATE", SeriesInstanceUID=uid)
        )
        (image,) = await found(context, Level.IMAGE, AccessionNumber="LATE", SeriesInstanceUID=uid)
        sop = image.values["SOPInstanceUID"]
        assert (
            len(await found(context, Level.IMAGE, AccessionNumber="LATE", SOPInstanceUID=sop)) == 1
        )
    context.close()


@pytest.mark.parametrize("key", ["PatientID", "AccessionNumber"])
async def test_as_many_values_as_are_taken_are_looked_for(context: StoreContext, key: str) -> None:
    values = [f"none{n}" for n in range(998)] + ["P1", "Acc1"]
    assert await studies(context, **{key: "\\".join(values)}) >= {1}
    with pytest.raises(UsageError, match="values with wildcards"):
        await studies(context, **{key: "\\".join(f"x{n}*" for n in range(101))})


async def test_study_of_many_series_is_read_once(tmp_path: Path) -> None:
    """What an image-level question costs does not grow with series times instances."""
    context = make_store(tmp_path / "home")
    files = {str(n): encode(make_dataset(1, n, series=n)) for n in range(1, 61)}
    await bring(context, tmp_path / "s", files)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def ask(db: Any) -> int:
        db.conn.set_progress_handler(count, 100)
        try:
            return len(list(catalogue._matching(db, make_query(Level.IMAGE, {}))))
        finally:
            db.conn.set_progress_handler(None, 0)

    assert context.database.read_sync(ask) == 60
    assert steps < 500
    context.close()


async def test_too_many_answers_are_none(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "MOST_ANSWERS", 14)
    with pytest.raises(UsageError, match="more than 14 answers"):
        await found(context, Level.IMAGE)
    store = CatalogueStore(context, AuditStore(context))
    assert len(await store.find(make_query(Level.IMAGE, {}, limit=14))) == 14


TEXTS: dict[str, list[str]] = {
    "PatientName": ["muller", "mu*", "*anna", "yamada^*", "山田", "*%*", "[*", "m?ller*", "*^*"],
    "PatientID": ["P1", "P*", "p1", "?2", "P1\\P2"],
    "PatientSex": ["M", "F\\O"],
    "PatientBirthDate": ["19530102", "19520101-", "-19520102"],
    "StudyDate": ["20261101", "20261102-20261104", "-20261103"],
    "StudyTime": ["10", "1015", "1020-", "-1035"],
    "StudyDescription": ["*head*", "ct*", "mrt schadel", "*%*", "x_y", "????"],
    "ModalitiesInStudy": ["MR", "C*", "M?", "US"],
    "AccessionNumber": ["Acc1", "acc1", "Acc*", "*4"],
    "ReferringPhysicianName": ["weiss^*", "weiß", "ida"],
}


@settings(max_examples=150)
@given(keys=st.dictionaries(st.sampled_from(sorted(TEXTS)), st.integers(0, 20), max_size=4))
def test_index_finds_what_a_look_at_everything_finds(
    context: StoreContext, keys: dict[str, int]
) -> None:
    wanted = {name: TEXTS[name][n % len(TEXTS[name])] for name, n in keys.items()}
    everything = trio.run(lambda: found(context, Level.STUDY))
    criteria = [c for c in (criterion(*item) for item in wanted.items()) if c]
    expected = {
        one.study_uid
        for one in everything
        if all(c.matches(one.values[c.attribute.keyword]) for c in criteria)
    }
    answers = trio.run(lambda: found(context, Level.STUDY, **wanted))
    assert {one.study_uid for one in answers} == expected


@given(
    level=st.sampled_from(Level),
    keys=st.dictionaries(
        st.sampled_from([k for k, a in ATTRIBUTES.items() if a.kind is not Kind.COUNT]),
        st.text(st.sampled_from("a*?[]%_'\"\\-^=1.,ü "), max_size=2 * MAX_UID),
        max_size=5,
    ),
    words=st.lists(st.text(st.sampled_from("a%_\\1.*ü"), min_size=1, max_size=9), max_size=3),
)
def test_no_question_fails_but_by_saying_what_is_wrong(
    context: StoreContext, level: Level, keys: dict[str, str], words: list[str]
) -> None:
    try:
        query = replace(make_query(level, keys, words), limit=50)
    except UsageError:
        return
    store = CatalogueStore(context, AuditStore(context))
    answers: Any = trio.run(store.find, query)
    assert len(answers) <= 15
