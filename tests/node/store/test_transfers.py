"""Transfers as rows: a final state never moves."""

from pathlib import Path
from time import time
from typing import Any

import pytest

from node.documents.receipt import Receipt, sign_receipt
from node.domain.transfers import Direction, State
from node.exchange.transfers import Transfers
from node.sql.database import Db
from node.store import transfer_rows
from node.store.transfers import TransferStore
from tests.node.store.test_arrivals import make_delivery, make_signer
from tests.node.store.test_import_resumes import make_store


async def test_withdrawal_is_never_to_be_told_of_what_is_still_pending(tmp_path: Path) -> None:
    """The node may be killed after any commit."""
    context = make_store(tmp_path)
    try:
        store, committed = TransferStore(context), list[tuple[State, bool]]()
        store.on_change = lambda row: committed.append((row.state, row.untold))
        delivery, document = make_delivery(context.signer, make_signer().facility_id)

        def add(db: Db) -> int:
            return transfer_rows.add_transfer(
                db, Direction.SEND, delivery, document, b"", State.PENDING, study_uid="1.2"
            )

        row_id = await context.database.write(add)
        parts: dict[str, Any] = dict.fromkeys(("signer", "sender", "receiver", "links"))
        transfers = Transfers(book=store, offer_seconds=60.0, **parts)
        row = await transfers.cancel(f"t{row_id}", "somebody")
        assert committed == [(State.CANCELLED, True)]
        await store.set_told(row)
        assert not (await transfers.cancel(f"t{row_id}", "somebody")).untold
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
