"""What a person or a peer waits for does not grow with what was delivered before."""

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from node.documents.delivery import Delivery
from node.domain.ids import FacilityId
from node.domain.query import Query
from node.sql.database import Database, Db
from node.store import package_rows
from node.store.arrivals import ArrivalStore
from node.store.audit import AuditStore
from node.store.catalogue import CatalogueStore
from node.store.context import StoreContext
from node.store.studies import StudyStore
from node.store.transfers import TransferStore
from tests.node.store.test_arrivals import make_delivery, make_signer
from tests.node.store.test_import_resumes import make_store
from tests.support.catalogue import listed
from tests.support.history import History, fill, study_of

T = TypeVar("T")
FEW, MANY = 200, 4000
_STEPS = 100


@dataclass
class Counting:
    """A database that counts the steps of SQLite's machine: how much work a question is."""

    database: Database
    steps: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _counted(self, work: Callable[[Db], T]) -> Callable[[Db], T]:
        def count() -> int:
            with self.lock:
                self.steps += _STEPS
            return 0

        def run(db: Db) -> T:
            db.conn.set_progress_handler(count, _STEPS)
            try:
                return work(db)
            finally:
                db.conn.set_progress_handler(None, 0)

        return run

    async def read(self, work: Callable[[Db], T]) -> T:
        return await self.database.read(self._counted(work))

    async def write(self, work: Callable[[Db], T]) -> T:
        return await self.database.write(self._counted(work))

    def read_sync(self, work: Callable[[Db], T]) -> T:
        return self.database.read_sync(self._counted(work))

    def write_sync(self, work: Callable[[Db], T]) -> T:
        return self.database.write_sync(self._counted(work))

    def close(self) -> None:
        self.database.close()


@dataclass(frozen=True)
class Store:
    """A store with a history, whose work is counted."""

    context: StoreContext
    counting: Counting
    peer: FacilityId
    delivery: Delivery
    document: Any


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    made = []
    for number in (FEW, MANY):
        context = make_store(tmp_path_factory.mktemp(f"s{number}"))
        sender = make_signer()
        fill(context, History(sender.facility_id, number, number // 4))
        counting = Counting(context.database)
        counted = replace(context, database=counting)  # type: ignore[arg-type]
        offer = make_delivery(sender, context.facility)
        made.append(Store(counted, counting, sender.facility_id, *offer))
    yield made[0], made[1]
    for store in made:
        store.context.close()


async def list_studies(store: Store) -> object:
    studies = StudyStore(store.context)
    return await studies.sources((await listed(store.context, limit=50))[:50])


async def ask_what_waits(store: Store) -> object:
    return await TransferStore(store.context).waiting_for(store.peer)


async def find_open(store: Store) -> object:
    return await TransferStore(store.context).open_ones()


async def find_expired(store: Store) -> object:
    return await TransferStore(store.context).expired(0.0)


async def ask_rates(store: Store) -> object:
    rates = await TransferStore(store.context).rates()
    assert rates[store.peer] == 10_000
    return rates


async def list_held_offers(store: Store) -> object:
    async with aclosing(TransferStore(store.context).search(held_only=True)) as pages:
        return [page async for page in pages]


async def list_open_transfers(store: Store) -> object:
    async with aclosing(TransferStore(store.context).search(open_only=True)) as pages:
        return [page async for page in pages]


async def name_one_by_its_id(store: Store) -> object:
    transfers = TransferStore(store.context)
    [row] = await transfers.numbered([7])
    return await transfers.get(str(row.transfer_id)[:12])


async def take_an_offer(store: Store) -> object:
    arrivals = ArrivalStore(store.context, TransferStore(store.context))
    return await arrivals.keep_offer(store.delivery, store.document, b"", is_held=True)


async def list_what_arrived(store: Store) -> object:
    catalogue = CatalogueStore(store.context, AuditStore(store.context))
    return await catalogue.studies(Query(arrived_only=True, limit=50))


async def begin_to_watch(store: Store) -> object:
    return await TransferStore(store.context).latest()


async def find_unfinished(store: Store) -> object:
    def work(db: Db) -> int:
        count = db.execute("SELECT COUNT(*) FROM packages WHERE state = 'open'").fetchone()
        return int(count[0]) + len(package_rows.find_packages(db, "state = 'deleting'", ()))

    return await store.context.database.read(work)


async def find_sends(store: Store) -> object:
    transfers = TransferStore(store.context)
    [row] = await transfers.numbered([7])
    return await transfers.sends_of(store.peer, row.origin, row.package_id)


async def show_a_study(store: Store) -> object:
    return await StudyStore(store.context).get(study_of(3))


@pytest.mark.parametrize(
    "ask",
    [
        list_studies,
        ask_what_waits,
        find_open,
        find_expired,
        ask_rates,
        list_held_offers,
        list_open_transfers,
        name_one_by_its_id,
        take_an_offer,
        list_what_arrived,
        begin_to_watch,
        find_unfinished,
        find_sends,
        show_a_study,
    ],
)
async def test_question_is_no_more_work_after_years(
    stores: tuple[Store, Store], ask: Callable[[Store], Awaitable[object]]
) -> None:
    """Work, in steps of SQLite's machine, after 250 transfers and after 5,000."""
    few, many = [await _steps(store, ask) for store in stores]
    assert many <= 2 * few + 2000, f"{few} steps, then {many}"


async def _steps(store: Store, ask: Callable[[Store], Awaitable[object]]) -> int:
    await ask(store)  # what is the first time only does not count
    before = store.counting.steps
    await ask(store)
    return store.counting.steps - before


async def test_long_list_keeps_nobody_from_writing_or_reading(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    started, let_go = threading.Event(), threading.Event()

    def long(db: Db) -> int:
        before = db.execute("SELECT COUNT(*) FROM audit").fetchone()[0]
        started.set()
        assert let_go.wait(20)
        return int(db.execute("SELECT COUNT(*) FROM audit").fetchone()[0]) - int(before)

    def short(db: Db) -> None:
        db.execute("INSERT INTO audit VALUES (1, 1, 'a', '{}', 'node', zeroblob(16), zeroblob(32))")

    try:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                grown = await context.database.read(long)
                assert grown == 0, "a list is of one moment"

            nursery.start_soon(ask)
            await trio.to_thread.run_sync(started.wait)
            with trio.fail_after(10):
                await context.database.write(short)
                assert await context.database.read(
                    lambda db: db.execute("SELECT COUNT(*) FROM audit").fetchone()[0]
                )
            let_go.set()
    finally:
        let_go.set()
        context.close()


async def test_old_transfers_are_forgotten_by_policy_and_never_before_their_packages(
    tmp_path: Path,
) -> None:
    context = make_store(tmp_path)
    try:
        fill(context, History(make_signer().facility_id, 40, 10))
        transfers = TransferStore(context)
        assert await transfers.forget_old(30) == 0, "their packages are here"
        context.database.write_sync(lambda db: db.execute("DELETE FROM packages WHERE id % 2"))
        assert await transfers.forget_old(365) == 0
        assert 20 <= await transfers.forget_old(30) <= 25, "those of the last month still stand"
        assert await transfers.forget_old(30) == 0
        assert len(await transfers.find()) >= 25
    finally:
        context.close()
