"""What the node does once a day ends it by no full disk."""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from node.app.current import Current
from node.app.housekeeping import Housekeeper
from node.domain.transfers import State, Transfer
from node.errors import StoreFull
from node.exchange.transfer.transfers import Transfers
from node.sql.database import Db
from node.store import audit_rows
from node.store.arrivals import ArrivalStore
from node.store.context import StoreContext
from node.store.maintenance import Maintenance
from node.store.retention import RetentionStore
from node.store.transfers import TransferStore
from tests.node.store.test_arrivals import make_delivery, make_signer
from tests.node.store.test_import_resumes import make_store


class Book(TransferStore):
    """Notes that the disk was found full."""

    def __init__(self, context: StoreContext) -> None:
        super().__init__(context)
        self.was_full = trio.Event()

    async def set_state(self, row: Transfer, state: State, *rest: Any, **kept: Any) -> Transfer:
        try:
            return await super().set_state(row, state, *rest, **kept)
        except StoreFull:
            self.was_full.set()
            raise


def fill(context: StoreContext) -> None:
    """Leave no room in the database for one more entry."""

    def bound(db: Db) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 1}")

    context.database.write_sync(bound)  # which holds for the connection that writes
    with suppress(StoreFull):
        for _ in range(1000):
            context.database.write_sync(lambda db: audit_rows.append(db, "test", {}))


async def test_full_disk_does_not_end_the_node(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        book = Book(context)
        delivery, document = make_delivery(make_signer(), context.facility, expires=-700.0)
        await ArrivalStore(context, book).keep_offer(delivery, document, b"", is_held=True)
        fill(context)
        transfers = Transfers(
            signer=context.signer,
            book=book,
            sender=None,  # type: ignore[arg-type]
            receiver=None,  # type: ignore[arg-type]
            links=None,  # type: ignore[arg-type]
            offer_seconds=60.0,
        )
        current = Current(SimpleNamespace(transfers_days=0))  # type: ignore[arg-type]
        retention = RetentionStore(context, 0)
        maintenance = Maintenance(context, tmp_path)
        housekeeper = Housekeeper(current, context.ballast, transfers, book, retention, maintenance)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(housekeeper.run)
                await book.was_full.wait()
                await wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
    finally:
        context.close()
