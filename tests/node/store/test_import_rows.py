"""An import's row stands from its beginning until nothing of it is open any more."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.domain.ids import FacilityId, PackageId
from node.domain.index import PackageIndex
from node.domain.manifest import (
    AttachmentEntry,
    InstanceEntry,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from node.domain.packages import PackageState
from node.errors import NotFound
from node.sql.database import Db
from node.store import import_rows, package_rows
from tests.support.actors import actor
from tests.support.stores import new_rows

ME, PEER = FacilityId(digest(b"me")), FacilityId(digest(b"peer"))
INSTANCE = InstanceEntry(
    SOPClassUID("1"),
    SOPInstanceUID("2"),
    SeriesInstanceUID("3"),
    TransferSyntaxUID("4"),
    1,
    b"",
    (),
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with new_rows(tmp_path) as db:
        yield db


def begin(
    db: Db,
    *sources: str,
    who: str = "alice",
    resumes: int = 0,
    running: Collection[int] = frozenset(),
) -> int:
    return import_rows.begin(db, sources, actor(who), resumes=resumes, running=running)


def add_package(
    db: Db, name: bytes, number: int | None, study: str = "1.2", origin: FacilityId = ME
) -> int:
    return package_rows.add_package(
        db,
        package_id=PackageId(digest(name)),
        origin=origin,
        study_uid=study,
        state=PackageState.OPEN,
        epoch=1,
        wrapped_key=b"",
        import_id=number,
    )


def numbers(db: Db) -> list[int]:
    return [one.id for one in import_rows.unfinished(db)]


@pytest.mark.parametrize("sources", [("/b", "/a"), ("/a", "/b", "/a")])
def test_import_of_the_same_sources_goes_on(db: Db, sources: Sequence[str]) -> None:
    first = begin(db, "/a", "/b")
    import_rows.end(db, first, "the disk was full")
    assert begin(db, *sources, who="bob") == first
    (one,) = import_rows.unfinished(db)
    assert (one.sources, one.operator, one.problem) == (("/a", "/b"), "bob", "")


def test_import_of_other_sources_or_of_none_is_another(db: Db) -> None:
    made = [begin(db, "/a"), begin(db, "/a", "/b"), begin(db), begin(db)]
    assert len(set(made)) == 4
    assert numbers(db) == made


def test_nothing_goes_on_with_an_import_that_runs(db: Db) -> None:
    first = begin(db, "/a")
    second = begin(db, "/a", running={first})
    assert second != first
    with pytest.raises(NotFound, match=f"i{first} is running"):
        begin(db, "/b", resumes=first, running={first})
    with pytest.raises(NotFound, match="no import i99 is unfinished"):
        begin(db, "/b", resumes=99)
    assert numbers(db) == [first, second]


def test_import_that_is_named_keeps_the_sources_it_began_with(db: Db) -> None:
    first = begin(db, "/cd")
    assert begin(db, "/cd1", resumes=first) == first
    (one,) = import_rows.unfinished(db)
    assert one.sources == ("/cd",)


def test_two_that_were_cut_off_become_one(db: Db) -> None:
    first = begin(db, "/a")
    second = begin(db, "/a", running={first})
    packages = [add_package(db, b"1", first), add_package(db, b"2", second, "1.3")]
    assert begin(db, "/a") == first
    assert numbers(db) == [first]
    assert import_rows.open_studies(db, first) == {packages[0]: "1.2", packages[1]: "1.3"}


@pytest.mark.parametrize(("problem", "has_package"), [("full", False), ("", True), ("full", True)])
def test_import_stays_while_it_has_a_problem_or_something_open(
    db: Db, problem: str, has_package: bool
) -> None:
    number, other = begin(db, "/a"), begin(db, "/b")
    if has_package:
        add_package(db, b"1", number)
    import_rows.end(db, number, problem)
    assert [(one.id, one.problem) for one in import_rows.unfinished(db)] == [
        (number, problem),
        (other, ""),
    ]


def delete(db: Db, package: int) -> None:
    db.execute("UPDATE packages SET state = 'deleting' WHERE id = ?", (package,))


def test_import_of_which_all_is_closed_or_goes_is_forgotten(db: Db) -> None:
    number = begin(db, "/a")
    package_rows.close_package(
        db, add_package(db, b"1", number), PackageState.OPEN, b"manifest", b"name"
    )
    delete(db, add_package(db, b"2", number))
    import_rows.end(db, number, "")
    assert numbers(db) == []


def test_package_with_anything_in_it_is_not_empty(db: Db) -> None:
    number = begin(db, "/a")
    rows = [add_package(db, bytes([n]), number) for n in range(3)]
    package_rows.add_instances(db, rows[0], 0, [INSTANCE])
    package_rows.add_attachments(db, rows[1], 0, [AttachmentEntry("text/plain", 1, b"", ())])
    add_package(db, b"another's", begin(db, "/b"))
    delete(db, add_package(db, b"going", number))
    assert import_rows.empty_rows(db, number) == [rows[2]]


def test_what_an_import_has_kept_is_told_by_study(db: Db) -> None:
    number = begin(db, "/a")
    for name, study in ((b"1", "1.9"), (b"2", "1.2"), (b"3", "1.2")):
        row = add_package(db, name, number, study)
        package_rows.add_instances(db, row, 0, [INSTANCE])
        index = PackageIndex.of([{"PatientID": "P1", "PatientName": "Brown^Bob"}])
        package_rows.merge_index(db, row, index, index.forms())
    db.execute("UPDATE packages SET sealed_bytes = 10")
    (one,) = import_rows.unfinished(db)
    assert [(s.study_uid, s.instances, s.sealed_bytes) for s in one.studies] == [
        ("1.9", 1, 10),
        ("1.2", 2, 20),
    ]
    assert [[p.patient_id for p in study.patients] for study in one.studies] == [["P1"], ["P1"]]


def test_imports_that_brought_a_part_of_a_study_are_found_by_it(db: Db) -> None:
    made = [begin(db, f"/{n}") for n in range(4)]
    add_package(db, b"1", made[2])
    add_package(db, b"2", made[0])
    add_package(db, b"3", made[0])
    add_package(db, b"4", made[1], "1.3")
    add_package(db, b"5", made[3], origin=PEER)
    add_package(db, b"6", None)
    assert import_rows.of_study(db, "1.2", ME) == [made[0], made[2]]
