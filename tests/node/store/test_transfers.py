"""Transfers as rows: a final state never moves."""

from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest

from node.documents.receipt import Receipt, sign_receipt
from node.domain.actors import NODE
from node.domain.audit import alarm_text
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.domain.transfers import Direction, Priority, State
from node.exchange.transfer.transfers import Transfers
from node.sql.database import Db
from node.store import transfer_rows
from node.store.arrivals import ArrivalStore
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.transfers import TransferStore
from tests.node.store.test_arrivals import make_delivery, make_signer
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor


async def test_withdrawal_is_never_to_be_told_of_what_is_still_pending(tmp_path: Path) -> None:
    """The node may be killed after any commit."""
    context = make_store(tmp_path)
    try:
        committed = list[tuple[State, bool]]()
        store = TransferStore(
            context, lambda row: committed.append((row.state, row.withdrawal_pending))
        )
        delivery, document = make_delivery(context.signer, make_signer().facility_id)

        def add(db: Db) -> int:
            return transfer_rows.add_transfer(
                db, Direction.SEND, delivery, document, b"", State.PENDING, study_uid="1.2"
            )

        row_id = await context.database.write(add)
        parts: dict[str, Any] = dict.fromkeys(("signer", "sender", "receiver", "links"))
        transfers = Transfers(book=store, offer_seconds=60.0, **parts)
        row = await transfers.cancel(f"t{row_id}", actor("somebody"))
        assert committed == [(State.CANCELLED, True)]
        await store.note_withdrawal_known(row)
        assert not (await transfers.cancel(f"t{row_id}", actor("somebody"))).withdrawal_pending
    finally:
        context.close()


@pytest.mark.parametrize(("direction", "left"), [(Direction.RECEIVE, 3), (Direction.SEND, 5)])
async def test_chunks_found_lost_are_no_longer_done_where_they_are_missing(
    tmp_path: Path, direction: Direction, left: int
) -> None:
    """What is promised to a transfer that goes on is what is still to come."""
    context = make_store(tmp_path)
    try:
        store = TransferStore(context)
        delivery, document = make_delivery(context.signer, make_signer().facility_id)

        def add(db: Db) -> int:
            return transfer_rows.add_transfer(
                db, direction, delivery, document, b"", State.CARRYING, study_uid="1.2"
            )

        row_id = await context.database.write(add)
        (row,) = await store.find("id = ?", (row_id,))
        await store.note_progress(row, 5, 5, 1.0)
        after = await store.note_progress(row, 3, 2, 0.5)
        assert (after.bytes_done, after.bytes_carried, after.carried_seconds) == (left, 7, 1.5)
    finally:
        context.close()


@pytest.mark.parametrize("end", [State.CANCELLED, State.DECLINED, State.FAILED])
async def test_late_receipt_is_kept_and_moves_no_final_transfer(tmp_path: Path, end: State) -> None:
    context = make_store(tmp_path)
    try:
        store = TransferStore(context)
        receiver = make_signer()
        delivery, document = make_delivery(context.signer, receiver.facility_id)

        def add(db: Db) -> int:
            return transfer_rows.add_transfer(
                db, Direction.SEND, delivery, document, b"", State.PENDING, study_uid="1.2"
            )

        row_id = await context.database.write(add)
        (row,) = await store.find("id = ?", (row_id,))
        row = await store.set_state(row, end, "as a person said")
        receipt = Receipt(
            delivery.transfer_id,
            document.digest(),
            bytes(32),
            delivery.package_id,
            receiver.facility_id,
            1,
            1,
            time(),
        )
        signed = sign_receipt(receipt, receiver)
        after = await store.keep_receipt(row, signed)
        assert (after.state, after.reason) == (end, "as a person said")
        assert after.receipt == signed.encode()
    finally:
        context.close()


def add_row(context: StoreContext, direction: Direction, state: State, **changes: Any) -> int:
    signers = (context.signer, make_signer())
    sender, receiver = signers if direction is Direction.SEND else signers[::-1]
    delivery, document = make_delivery(sender, receiver.facility_id)
    delivery = replace(delivery, **changes)
    return context.database.write_sync(
        lambda db: transfer_rows.add_transfer(
            db, direction, delivery, document, b"", state, study_uid="1.2"
        )
    )


async def alarms(context: StoreContext) -> list[str]:
    return [alarm_text(entry) for entry in await AuditStore(context).open_alarms()]


async def test_transfer_that_failed_or_was_declined_is_an_alarm(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        store = TransferStore(context)
        sends = [add_row(context, Direction.SEND, State.PENDING) for _ in range(4)]
        for row_id, state in zip(
            sends, (State.FAILED, State.DECLINED, State.CANCELLED, State.FAILED), strict=True
        ):
            (row,) = await store.numbered([row_id])
            who = actor("uid 0 (root)") if row_id == sends[3] else NODE
            await store.set_state(row, state, "chunk ab is damaged", actor=who)
        said = await alarms(context)
        assert len(said) == 2  # whoever ended the last one knows
        assert said[0].startswith(f"transfer: t{sends[0]} to facility ")
        assert said[0].endswith("failed: chunk ab is damaged")
        assert "was declined: chunk ab is damaged" in said[1]
        row_id = add_row(context, Direction.RECEIVE, State.CARRYING)
        (row,) = await store.numbered([row_id])
        await store.set_state(row, State.FAILED, "the delivery has expired")
        assert "from facility " in (await alarms(context))[2]
    finally:
        context.close()


async def test_transfer_that_is_overdue_is_an_alarm_once(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        store, now = TransferStore(context), time()
        stat = add_row(context, Direction.SEND, State.PENDING, priority=Priority.STAT)
        routine = add_row(context, Direction.SEND, State.CARRYING, priority=Priority.ROUTINE)
        held = add_row(context, Direction.RECEIVE, State.HELD, priority=Priority.URGENT)
        add_row(context, Direction.RECEIVE, State.CARRYING, priority=Priority.STAT)  # theirs
        assert await store.note_overdue(now + 14 * 60) == 0
        assert await store.note_overdue(now + 16 * 60) == 1
        assert await store.note_overdue(now + 25 * 3600) == 2
        assert await store.note_overdue(now + 50 * 3600) == 0
        said = await alarms(context)
        for number, text in zip(
            (stat, held, routine),
            ("is not delivered", "waits for a person here", "is not delivered"),
            strict=True,
        ):
            assert any(s.startswith(f"transfer-overdue: t{number} ") and text in s for s in said)
        audit = AuditStore(context)
        await audit.acknowledge((await audit.open_alarms())[-1].sequence, actor("somebody"))
        assert await store.note_overdue(now + 90 * 3600) == 0
        assert await alarms(context) == []
    finally:
        context.close()


async def test_what_an_offer_told_is_forgotten_when_it_has_ended(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        store = TransferStore(context)
        sender = make_signer()
        delivery, document = make_delivery(sender, context.facility)
        told = Summary((Patient("Müller^Jörg", "P1"),), "1.2.3", "20261124", "Thorax", "CT")
        arrivals = ArrivalStore(context, store)
        row = await arrivals.keep_offer(delivery, document, b"", is_held=True, summary=told)
        assert row.summary == told
        row = await store.set_state(row, State.DECLINED, "not ours")
        assert row.summary is None
        kept = context.database.read_sync(
            lambda db: db.execute("SELECT summary FROM transfers").fetchone()[0]
        )
        assert kept == ""
    finally:
        context.close()


async def test_offers_of_a_peer_that_are_overdue_are_one_alarm_until_it_is_seen(
    tmp_path: Path,
) -> None:
    context = make_store(tmp_path)
    sender = make_signer().facility_id

    def offer() -> int:
        stat = {"priority": Priority.STAT, "sender": sender}
        return add_row(context, Direction.RECEIVE, State.HELD, **stat)

    try:
        store, audit, later = TransferStore(context), AuditStore(context), time() + 3600
        seen = [offer() for _ in range(20)]
        assert await store.note_overdue(later) == 1
        (said,) = await alarms(context)
        assert said.startswith(f"transfer-overdue: t{seen[0]} ")
        assert "and 19 more, wait for a person here" in said
        last = offer()
        assert await store.note_overdue(later) == 0
        await audit.acknowledge((await audit.open_alarms())[-1].sequence, actor("somebody"))
        assert await store.note_overdue(later) == 1
        (said,) = await alarms(context)
        assert said.startswith(f"transfer-overdue: t{last} ")
    finally:
        context.close()
