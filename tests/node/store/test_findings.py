"""What an examination found odd is kept until a person decides, and comes out of an envelope."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.domain.ids import FacilityId, PackageId
from node.domain.manifest import (
    InstanceEntry,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from node.domain.packages import PackageState
from node.domain.verdicts import Doubt, Verdict
from node.errors import StoreError
from node.sql.database import Db
from node.store import findings, package_rows
from tests.support.stores import new_rows

ME, PEER = FacilityId(digest(b"me")), FacilityId(digest(b"peer"))
DOUBTS = [
    Doubt(0, Verdict.HOLD, ("it begins as a program does", "its size is odd")),
    Doubt(1, Verdict.FLAG, ("no character set",)),
    Doubt(2, Verdict.HOLD, ("its size is odd",)),
]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with new_rows(tmp_path) as db:
        yield db


def add_package(
    db: Db,
    name: bytes,
    state: PackageState = PackageState.CLOSED,
    *,
    study: str = "1.2",
    received_from: FacilityId | None = None,
) -> int:
    """Keep a package of three instances."""
    row = package_rows.add_package(
        db,
        package_id=PackageId(digest(name)),
        origin=received_from or ME,
        study_uid=study,
        state=state,
        epoch=1,
        wrapped_key=b"",
        received_from=received_from,
    )
    entry = InstanceEntry(
        SOPClassUID("1"), SOPInstanceUID("1.5"), SeriesInstanceUID("3"), TransferSyntaxUID("4"),
        70, b"", (),
    )  # fmt: skip
    package_rows.add_instances(db, row, 0, [entry] * 3)
    return row


def test_only_what_is_on_hold_waits_for_a_person(db: Db) -> None:
    package = add_package(db, b"1", received_from=PEER)
    findings.add(db, package, DOUBTS, "cd/IM1")
    first, second = findings.held(db)
    assert (first.package, first.position, second.position) == (package, 0, 2)
    assert (first.reasons, first.label) == (DOUBTS[0].reasons, "cd/IM1")
    assert (first.size_bytes, first.sop_instance_uid) == (70, "1.5")
    assert (first.study_uid, first.received_from) == ("1.2", PEER)
    assert findings.counts(db, package) == {"held": 2, "flagged": 1}
    assert findings.held(db, "f.id = ?", (second.id,)) == [second]


@pytest.mark.parametrize("state", [PackageState.OPEN, PackageState.ARRIVING, PackageState.DELETING])
def test_nobody_decides_about_what_is_not_here_yet_or_goes(db: Db, state: PackageState) -> None:
    findings.add(db, add_package(db, b"1", state), DOUBTS)
    assert findings.held(db) == []


def test_imported_ones_of_a_study_are_those_apart_from_all_packages(db: Db) -> None:
    apart = add_package(db, b"1", PackageState.HELD)
    for package in (
        apart,
        add_package(db, b"2"),
        add_package(db, b"3", PackageState.HELD, study="1.3"),
        add_package(db, b"4", PackageState.HELD, received_from=PEER),
    ):
        findings.add(db, package, DOUBTS[:1])
    assert [one.package for one in findings.held_imports(db, "1.2", ME)] == [apart]


def test_instance_is_released_once_and_stays_flagged(db: Db) -> None:
    package = add_package(db, b"1")
    findings.add(db, package, DOUBTS)
    found = findings.held(db)[0]
    assert findings.release(db, found)
    assert not findings.release(db, found), "somebody has decided meanwhile"
    assert found not in findings.held(db)
    assert findings.counts(db, package) == {"held": 1, "flagged": 2}


def test_each_reason_is_told_once_and_some_of_many(db: Db) -> None:
    package = add_package(db, b"1")
    findings.add(db, package, DOUBTS)
    findings.add(db, add_package(db, b"2"), [Doubt(0, Verdict.HOLD, ("another",))])
    assert sorted(findings.reasons(db, package)) == sorted(DOUBTS[0].reasons)
    assert len(findings.reasons(db, package, 1)) == 1


def test_findings_come_out_of_an_envelope_as_they_went_in() -> None:
    assert findings.decode(findings.encode(DOUBTS)) == DOUBTS
    assert findings.encode([]) == b""
    assert findings.decode(b"") == []


@pytest.mark.parametrize(
    "encoded",
    [
        b"{",
        b"\xff",
        b"7",
        b"[7]",
        b'[[0, "hold"]]',
        b'[["x", "hold", []]]',
        b'[[0, "unheard of", []]]',
        b'[[0, "hold", 7]]',
    ],
)
def test_findings_that_are_none_are_refused(encoded: bytes) -> None:
    with pytest.raises(StoreError, match="malformed"):
        findings.decode(encoded)
