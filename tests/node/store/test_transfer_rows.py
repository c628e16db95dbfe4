"""Rows of transfers come out as they went in; of what has ended only the proof is kept."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.crypto.digests import digest
from node.domain.actors import NODE
from node.domain.audit import alarm_text
from node.domain.packages import PackageState
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.domain.transfers import Direction, Priority, State, Transfer
from node.errors import NotFound
from node.sql.database import Db
from node.store import audit_rows, package_rows, transfer_rows
from tests.node.store.test_arrivals import make_delivery, make_signer
from tests.support.stores import new_rows

ME, PEER = make_signer(), make_signer()
MANIFEST = b"a manifest"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with new_rows(tmp_path) as db:
        yield db


def add(
    db: Db, direction: Direction, state: State = State.PENDING, *, key: bytes = b"k", **changes: Any
) -> Transfer:
    sender, receiver = (ME, PEER) if direction is Direction.SEND else (PEER, ME)
    delivery, document = make_delivery(sender, receiver.facility_id)
    delivery = replace(delivery, **changes)
    row = transfer_rows.add_transfer(
        db, direction, delivery, document, key, state, study_uid="1.2", plaintext_bytes=7
    )
    return transfer_rows.by_id(db, row)


def add_package(db: Db, row: Transfer) -> int:
    """Keep the package of a transfer, closed."""
    package = package_rows.add_package(
        db,
        package_id=row.package_id,
        origin=row.origin,
        study_uid="1.2",
        state=PackageState.ARRIVING,
        epoch=1,
        wrapped_key=b"",
    )
    name = digest(MANIFEST)
    package_rows.close_package(db, package, PackageState.ARRIVING, MANIFEST, name)
    return package


def receive(db: Db, row: Transfer) -> None:
    db.execute("UPDATE transfers SET receipt = x'01' WHERE id = ?", (row.id,))


def values(db: Db, column: str) -> list[object]:
    return [row[column] for row in db.query("SELECT * FROM transfers ORDER BY id")]


@pytest.mark.parametrize("direction", Direction)
def test_transfer_is_what_its_delivery_says(db: Db, direction: Direction) -> None:
    said: dict[str, Any] = {
        "priority": Priority.URGENT,
        "recipient": "Dr. Jones",
        "note": "for the board",
    }
    row = add(db, direction, State.HELD, instances=3, sealed_bytes=40, **said)
    assert row.peer == PEER.facility_id, "the other side, whichever sends"
    assert row.origin == (ME if direction is Direction.SEND else PEER).facility_id
    assert (row.priority, row.recipient, row.note) == tuple(said.values())
    assert (row.state, row.direction, row.study_uid) == (State.HELD, direction, "1.2")
    assert (row.instances, row.bytes_total, row.bytes_done, row.plaintext_bytes) == (3, 40, 0, 7)
    assert (row.accepted, row.withdrawal_pending, row.receipt, row.summary) == (
        False,
        False,
        None,
        None,
    )


def test_delivery_of_years_stands_no_longer_than_any(db: Db) -> None:
    delivery, _ = make_delivery(ME, PEER.facility_id)
    years = delivery.created_time + 1e9
    row = add(db, Direction.SEND, created_time=delivery.created_time, expires_time=years)
    assert row.expires_time == replace(delivery, expires_time=years).stands_until < years


def test_newest_are_found_first_and_as_many_as_are_asked_for(db: Db) -> None:
    rows = [add(db, Direction.SEND).id for _ in range(4)]
    assert [row.id for row in transfer_rows.find(db, "id != ?", (rows[2],))] == [
        rows[3],
        rows[1],
        rows[0],
    ]
    assert [row.id for row in transfer_rows.find(db, "1", (), 2)] == [rows[3], rows[2]]
    with pytest.raises(NotFound):
        transfer_rows.by_id(db, rows[3] + 1)


@pytest.mark.parametrize(
    ("index", "condition"),
    [
        ("transfers_ended", transfer_rows.IS_ENDED),
        ("transfers_waiting", transfer_rows.IS_WAITING),
    ],
)
def test_condition_is_word_for_word_the_one_of_its_index(
    db: Db, index: str, condition: str
) -> None:
    """Of another condition SQLite says that the index has no answer."""
    row = add(db, Direction.SEND, State.DELIVERED if "ended" in index else State.PENDING)
    sql = " ".join(["SELECT id FROM transfers INDEXED BY", index, "WHERE", condition])
    assert [found[0] for found in db.execute(sql)] == [row.id]


def test_of_an_offer_that_came_to_nothing_its_digest_is_left(db: Db) -> None:
    offer = add(db, Direction.RECEIVE, State.DECLINED, recipient="Dr. Jones", note="a word")
    transfer_rows.keep_summary(db, offer.id, Summary((Patient("Brown^Bob"),), "1.2"))
    transfer_rows.forget_offer(db, offer.id)
    left = transfer_rows.by_id(db, offer.id)
    assert (left.delivery, left.sealed_key, left.recipient, left.note) == (b"", b"", "", "")
    assert left.summary is None
    assert (left.delivery_digest, left.transfer_id) == (offer.delivery_digest, offer.transfer_id)


@pytest.mark.parametrize("direction", Direction)
def test_proof_is_not_forgotten_with_an_offer(db: Db, direction: Direction) -> None:
    row = add(db, direction, State.DELIVERED, note="a word")
    if direction is Direction.RECEIVE:
        receive(db, row)
    before = transfer_rows.by_id(db, row.id)
    transfer_rows.forget_offer(db, row.id)
    assert transfer_rows.by_id(db, row.id) == before


def test_summary_comes_out_as_it_was_told_and_none_changes_nothing(db: Db) -> None:
    row = add(db, Direction.RECEIVE, State.HELD)
    told = Summary((Patient("Müller^Jörg", "P1"), Patient(sex="F")), "1.2", "20261124", "Thorax")
    transfer_rows.keep_summary(db, row.id, told)
    transfer_rows.keep_summary(db, row.id, None)
    assert transfer_rows.by_id(db, row.id).summary == told


def test_manifest_is_kept_once_and_outlives_its_package(db: Db) -> None:
    first = add(db, Direction.SEND, State.DELIVERED)
    again = add(db, Direction.SEND, State.DELIVERED, package_id=first.package_id)
    other = add(db, Direction.SEND, State.DELIVERED)
    add_package(db, first)
    for row in (first, again, other):
        transfer_rows.keep_manifest(db, row)
    db.execute("DELETE FROM packages")
    kept = db.query("SELECT * FROM transfer_manifests")
    assert list(kept) == [{"digest": digest(MANIFEST), "manifest": MANIFEST}]
    assert values(db, "manifest_digest") == [digest(MANIFEST), digest(MANIFEST), None]


def test_keys_are_forgotten_of_what_arrived_and_was_deleted(db: Db) -> None:
    for state in (State.DELIVERED, State.CANCELLED, State.CARRYING):
        add(db, Direction.RECEIVE, state)
    add(db, Direction.SEND, State.DELIVERED)
    add_package(db, add(db, Direction.RECEIVE, State.DELIVERED))
    transfer_rows.forget_sealed_keys(db)
    assert values(db, "sealed_key") == [b"", b"", b"k", b"k", b"k"]


@pytest.mark.parametrize("name", ["Billings", ""])
def test_alarm_names_the_peer_as_it_is_called_here(db: Db, name: str) -> None:
    row = add(db, Direction.SEND)
    db.execute(
        "INSERT INTO peers (facility, statements, endpoint, pinned_how, pinned_by, pinned_time,"
        " name) VALUES (?, x'', '', '', '', 0, ?)",
        (PEER.facility_id.digest, name),
    )
    transfer_rows.alarm_ended(db, row, State.FAILED, "", NODE)
    (alarm,) = audit_rows.open_alarms(db)
    said = name or f"facility {PEER.facility_id.short()}"
    assert f" to {said} " in alarm_text(alarm)
    assert alarm_text(alarm).endswith("failed: failed"), "the state, where no reason is known"
