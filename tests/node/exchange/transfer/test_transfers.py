"""What people ask of transfers is done once and told, and nobody is asked every ten seconds."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from node.documents.delivery import open_delivery
from node.documents.messages import Collect, Message, Problem, Progress
from node.documents.signed import Document
from node.domain.connections import Route
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.transfers import Direction, Priority, State, Transfer
from node.errors import (
    Conflict,
    NodeError,
    PeerBusy,
    PeerUnreachable,
    RemoteProtocolError,
    StoreError,
    UsageError,
)
from node.exchange.events import Feed
from node.exchange.transfer.transfers import CONCURRENT_SENDS, SendOrder, Transfers, Waiting
from node.store.context import StoreContext
from node.store.transfers import TransferStore
from node.system import clock
from tests.node.exchange.arriving_parts import link_pair
from tests.node.store.test_exporting import bring
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.dicom_files import make_instance, study_uid

PEER = FacilityId(bytes([7]) * 32)
HOUR = 3600.0


def make_row(**changes: Any) -> Transfer:
    row = Transfer(
        id=1,
        transfer_id=TransferId(bytes(16)),
        direction=Direction.SEND,
        peer=PEER,
        origin=PEER,
        package_id=PackageId(bytes(32)),
        study_uid="1.2",
        priority=Priority.ROUTINE,
        state=State.HELD,
        reason="",
        accepted=False,
        delivery=b"",
        delivery_digest=b"",
        sealed_key=b"",
        receipt=None,
        manifest_digest=None,
        bytes_total=1,
        bytes_done=0,
        bytes_carried=0,
        instances=1,
        plaintext_bytes=1,
        recipient="",
        note="",
        created_time=0.0,
        updated_time=0.0,
        expires_time=time.time() + 10**9,
        received_time=0.0,
        withdrawal_pending=False,
        route="",
        carried_seconds=0.0,
    )
    return replace(row, **changes)


class Book:
    """Transfers, in memory."""

    def __init__(self, *rows: Transfer) -> None:
        self.rows = {row.id: row for row in rows}
        self.changes: Feed[Transfer] = Feed()
        self.reads = 0

    async def waiting_for(self, _: FacilityId) -> Sequence[Transfer]:
        self.reads += len(self.rows)
        return [row for row in self.rows.values() if not row.state.is_final]

    async def by_number(self, number: int) -> Transfer:
        self.reads += 1
        return self.rows[number]

    async def waiting_one(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        rows = [r for r in await self.waiting_for(peer) if r.transfer_id == transfer_id]
        return rows[0] if rows else None

    async def accepted_from(self, _: FacilityId) -> Sequence[Transfer]:
        return [row for row in self.rows.values() if row.accepted]

    async def set_route(self, row: Transfer, route: str) -> Transfer:
        return await self.set_state(replace(row, route=route), row.state)

    async def set_state(self, row: Transfer, state: State, *_: object, **__: object) -> Transfer:
        self.rows[row.id] = replace(row, state=state)
        self.changes.publish(row.id, self.rows[row.id])
        return self.rows[row.id]


class HeldSender:
    """Offers, and hears each time that a person is to decide; until one has accepted."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.offers: list[float] = []
        self.offered = trio.Event()
        self.accepted: set[TransferId] = set()
        self.delivered: list[float] = []

    async def send(self, _: object, row: Transfer, __: object, route: Route, *___: object) -> None:
        row = replace(row, route=route)
        self.offers.append(trio.current_time())
        self.offered.set()
        self.offered = trio.Event()
        await self.book.set_state(
            row, State.DELIVERED if row.transfer_id in self.accepted else State.HELD
        )
        if row.transfer_id in self.accepted:
            self.delivered.append(trio.current_time())
        await trio.lowlevel.checkpoint()


class NoReceiver:
    """Receives nothing."""

    def is_carrying(self, _: Transfer) -> bool:
        return False

    async def turn(self, _: FacilityId) -> None:
        await trio.lowlevel.checkpoint()


class OneLink:
    """Links that lead to nobody."""

    peer, route = PEER, "direct"

    def is_connected(self, _: FacilityId) -> bool:
        return False

    def further_connections(self, _: FacilityId) -> int:
        return 0

    @asynccontextmanager
    async def carry(self, _: FacilityId) -> AsyncGenerator["OneLink"]:
        yield self


def make_transfers(sender: HeldSender) -> Transfers:
    transfers = Transfers(
        signer=None,  # type: ignore[arg-type]
        book=sender.book,  # type: ignore[arg-type]
        sender=sender,  # type: ignore[arg-type]
        receiver=NoReceiver(),  # type: ignore[arg-type]
        links=OneLink(),  # type: ignore[arg-type]
        offer_seconds=60.0,
    )
    transfers.changes = sender.book.changes
    return transfers


async def test_held_offer_is_offered_again_after_growing_pauses(autojump_clock: MockClock) -> None:
    sender = HeldSender(Book(make_row()))
    with trio.move_on_after(HOUR):
        await make_transfers(sender).run_peer(PEER)
    assert 2 <= len(sender.offers) < 20, "an hour of holding is no reason to ask 360 times"


class CountedLinks(OneLink):
    """Counts links, and breaks the one under a transfer that is to break it."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.breaks = trio.Event()

    @asynccontextmanager
    async def carry(self, _: FacilityId) -> AsyncGenerator[OneLink]:
        self.opened += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._break)
            yield self
            nursery.cancel_scope.cancel()
        self.closed += 1

    async def _break(self) -> None:
        await self.breaks.wait()
        self.breaks = trio.Event()
        raise PeerUnreachable("the line is cut")


class Deliverer(HeldSender):
    """Delivers at once, but for what a test says."""

    def __init__(self, book: Book, links: CountedLinks) -> None:
        super().__init__(book)
        self.links = links
        self.order: list[int] = []
        self.fails: dict[int, NodeError | None] = {}

    async def send(self, _: object, row: Transfer, __: object, route: Route, *___: object) -> None:
        self.order.append(row.id)
        if row.id in self.fails:
            error = self.fails.pop(row.id)
            if error is not None:
                raise error
            self.links.breaks.set()
            await trio.sleep_forever()
        await self.book.set_state(row, State.DELIVERED)


async def deliver(
    rows: list[Transfer], fails: dict[int, NodeError | None]
) -> tuple[Deliverer, CountedLinks]:
    links = CountedLinks()
    sender = Deliverer(Book(*rows), links)
    sender.fails = dict(fails)
    transfers = make_transfers(sender)
    transfers._links = links  # type: ignore[assignment]
    with trio.move_on_after(HOUR):
        await transfers.run_peer(PEER)
    assert {row.state for row in sender.book.rows.values()} == {State.DELIVERED}
    return sender, links


async def test_what_is_due_follows_on_the_same_link(autojump_clock: MockClock) -> None:
    sender, links = await deliver(many_rows(50, State.PENDING), {})
    assert sorted(sender.order) == list(range(1, 51))
    assert links.opened == CONCURRENT_SENDS
    assert links.closed == links.opened, "nothing is due any more"


async def test_link_is_left_after_a_while_for_a_better_way(autojump_clock: MockClock) -> None:
    _, links = await deliver(many_rows(700, State.PENDING), {})
    assert 7 <= links.opened <= 12


@pytest.mark.parametrize("error", [PeerBusy("later", 5), PeerUnreachable("gone"), None])
async def test_transfer_that_fails_ends_its_link_and_the_others_go_on(
    autojump_clock: MockClock, error: NodeError | None
) -> None:
    """Whether it raises, or the link breaks under it."""
    sender, links = await deliver(many_rows(9, State.PENDING), {2: error, 5: error})
    assert sorted(sender.order) == sorted([*range(1, 10), 2, 5])
    assert CONCURRENT_SENDS < links.opened <= CONCURRENT_SENDS + 4


async def test_transfer_goes_on_after_the_store_failed(autojump_clock: MockClock) -> None:
    class FailingBook(Book):
        failures = 1

        async def by_number(self, number: int) -> Transfer:
            if self.failures:
                self.failures -= 1
                raise StoreError("the disk was full")
            return await super().by_number(number)

    sender = HeldSender(FailingBook(make_row(state=State.PENDING)))
    with trio.move_on_after(HOUR):
        await make_transfers(sender).run_peer(PEER)
    assert sender.offers, "nothing else changed, and it waited for ever"
    assert sender.offers[0] < 180


def many_rows(count: int, state: State) -> list[Transfer]:
    return [
        make_row(
            id=n, transfer_id=TransferId(n.to_bytes(16, "big")), state=state, bytes_total=2**30
        )
        for n in range(1, count + 1)
    ]


async def test_offers_that_wait_for_a_person_cost_nothing(autojump_clock: MockClock) -> None:
    """300 of them: each is offered once, and the others wait for the peer's word."""
    sender = HeldSender(Book(*many_rows(300, State.PENDING)))
    with trio.move_on_after(300):
        await make_transfers(sender).run_peer(PEER)
    assert len(sender.offers) == 300
    assert sender.book.reads < 1500, "what waits is read again and again"
    sender.offers.clear()
    with trio.move_on_after(HOUR):
        await make_transfers(sender).run_peer(PEER)
    assert 300 <= len(sender.offers) < 1500, "the slow fallback, for a word that was lost"


async def test_decision_that_is_told_is_followed_at_once(autojump_clock: MockClock) -> None:
    sender = HeldSender(Book(*many_rows(300, State.PENDING)))
    transfers = make_transfers(sender)
    with trio.move_on_after(HOUR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfers.run_peer, PEER)
            await trio.sleep(60)
            before, told = len(sender.offers), trio.current_time()
            sender.accepted.add(TransferId((7).to_bytes(16, "big")))
            # Another's word, and one about nothing.
            transfers.decided(FacilityId(bytes(32)), TransferId((7).to_bytes(16, "big")))
            transfers.decided(PEER, TransferId(bytes(16)))
            transfers.decided(PEER, TransferId((7).to_bytes(16, "big")))
            await sender.offered.wait()
            assert trio.current_time() == told
            await trio.sleep(10)
            assert len(sender.offers) == before + 1
            nursery.cancel_scope.cancel()
    assert sender.delivered == [told]


async def test_peer_that_says_so_all_the_time_is_offered_to_once_a_second(
    autojump_clock: MockClock,
) -> None:
    sender = HeldSender(Book(make_row(state=State.PENDING)))
    transfers = make_transfers(sender)
    with trio.move_on_after(HOUR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfers.run_peer, PEER)
            for _ in range(100):
                transfers.decided(PEER, TransferId(bytes(16)))
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
    assert len(sender.offers) <= 12


async def test_what_was_accepted_while_nobody_listened_is_told_first(
    autojump_clock: MockClock,
) -> None:
    rows = many_rows(3, State.HELD)
    rows[1] = replace(rows[1], direction=Direction.RECEIVE, accepted=True)
    told: list[TransferId] = []

    async def notify(transfer_id: TransferId) -> None:
        told.append(transfer_id)
        await trio.lowlevel.checkpoint()

    with trio.move_on_after(HOUR):
        await make_transfers(HeldSender(Book(*rows))).watch_decided(PEER, notify)
    assert told == [rows[1].transfer_id]


async def test_collector_is_told_of_a_held_offer_after_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    told: list[float] = []

    async def notify(_: TransferId) -> None:
        told.append(trio.current_time())
        await trio.lowlevel.checkpoint()

    book: Any = Book(make_row())
    with trio.move_on_after(HOUR):
        await Waiting(book, Feed(), PEER, lambda _: False).run(notify)
    assert 2 <= len(told) < 20
    told.clear()
    book = Book(make_row(state=State.PENDING))
    with trio.move_on_after(HOUR):
        await Waiting(book, Feed(), PEER, lambda _: False).run(notify)
    assert len(told) > 300, "what waits for no person is told again soon"


STAT = ("Dr. Jones", "second opinion", Priority.STAT)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


class Sender:
    """Sends the one study to one facility."""

    def __init__(self, context: StoreContext) -> None:
        unused = cast("Any", None)
        self.facility = context.facility
        self._seal_key = context.secrets.seal_keys[0].public
        self.store = TransferStore(context)
        self.transfers = Transfers(
            signer=context.signer,
            book=self.store,
            sender=unused,
            receiver=unused,
            links=unused,
            offer_seconds=3600,
        )

    async def send(self, **words: Any) -> tuple[list[Transfer], list[Transfer]]:
        order = SendOrder(
            study=study_uid(1),
            seal_key=self._seal_key,
            actor=actor("test"),
            **{"receiver": FacilityId(bytes(32)), **words},
        )
        sent = await self.transfers.send(order)
        return list(sent.added), list(sent.known)


@pytest.fixture
async def sender(context: StoreContext, tmp_path: Path) -> Sender:
    await bring(context, tmp_path / "s", {"1": make_instance(1, 1)})
    return Sender(context)


def words_of(row: Transfer) -> tuple[str, str, Priority]:
    """Return what the signed delivery says, and hold the row against it."""
    said = open_delivery(Document.decode(row.delivery))
    assert (said.recipient, said.note, said.priority) == (row.recipient, row.note, row.priority)
    return row.recipient, row.note, row.priority


async def test_what_is_sent_again_says_what_it_said_before(sender: Sender) -> None:
    recipient, note, priority = STAT
    (first,), _ = await sender.send(recipient=recipient, note=note, priority=priority)
    await sender.store.set_state(first, State.DELIVERED)
    (again,), _ = await sender.send(is_again=True)
    assert words_of(again) == STAT
    await sender.store.set_state(again, State.FAILED)
    (third,), _ = await sender.send(is_again=True, note="")
    assert words_of(third) == ("Dr. Jones", "", Priority.STAT)


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_other_words_are_a_new_delivery_of_what_is_there(
    sender: Sender, *, is_delivered: bool
) -> None:
    (first,), _ = await sender.send()
    assert words_of(first) == ("", "", Priority.ROUTINE)
    if is_delivered:
        await sender.store.set_state(first, State.DELIVERED)
    added, known = await sender.send()
    assert (added, [row.id for row in known]) == ([], [first.id])
    (changed,), known = await sender.send(note="to the tumour board", priority=Priority.STAT)
    assert (words_of(changed), known) == (("", "to the tumour board", Priority.STAT), [])
    # Said again, or left open, they are the same.
    added, known = await sender.send(note="to the tumour board")
    assert (added, [row.id for row in known]) == ([], [changed.id])
    added, known = await sender.send()
    assert (added, [row.id for row in known]) == ([], [changed.id])


async def test_what_was_taken_back_says_nothing_any_more(sender: Sender) -> None:
    (first,), _ = await sender.send(note="the wrong patient's")
    await sender.store.take_back(first, actor("test"))
    (again,), _ = await sender.send()
    assert words_of(again) == ("", "", Priority.ROUTINE)


async def test_order_that_cannot_be_meant_promises_nothing(sender: Sender) -> None:
    with pytest.raises(UsageError, match="characters"):
        await sender.send(note="x" * 10_000)
    with pytest.raises(UsageError, match="characters"):
        await sender.send(recipient="x" * 10_000)
    with pytest.raises(UsageError, match="this facility itself"):
        await sender.send(receiver=sender.facility)
    assert await sender.store.find() == []


async def test_delivery_stands_for_as_long_as_it_was_said_when_it_was_signed(
    sender: Sender,
) -> None:
    (first,), _ = await sender.send()
    sender.transfers.use_offer_seconds(60)
    (second,), _ = await sender.send(note="another")
    for row, seconds in ((first, 3600), (second, 60)):
        said = open_delivery(Document.decode(row.delivery))
        assert said.expires_time - said.created_time == pytest.approx(seconds, abs=1)


async def test_what_was_taken_back_is_to_be_told_and_what_has_come_is_not_taken_back(
    sender: Sender,
) -> None:
    (row,), _ = await sender.send()
    taken_back = await sender.transfers.cancel(row.name, actor("test"))
    assert (taken_back.state, taken_back.withdrawal_pending) == (State.CANCELLED, True)
    (other,), _ = await sender.send()
    await sender.store.set_state(other, State.DELIVERED)
    with pytest.raises(Conflict):
        await sender.transfers.cancel(other.name, actor("test"))


class EndlessSender(HeldSender):
    """Is never done."""

    async def send(self, _: object, row: Transfer, *__: object) -> None:
        self.offered.set()
        await trio.sleep_forever()


class RowBook(Book):
    """Takes a transfer back, too."""

    async def get(self, _: str, **__: object) -> Transfer:
        return self.rows[1]

    async def take_back(self, row: Transfer, *_: object) -> Transfer:
        return await self.set_state(row, State.CANCELLED)


async def test_transfer_that_is_taken_back_while_it_is_sent_ends_and_the_receiver_is_told() -> None:
    row = make_row(state=State.PENDING)
    sender = EndlessSender(RowBook(row))
    transfers = make_transfers(sender)
    theirs, ours = link_pair(PEER, FacilityId(bytes(32)))
    await theirs.send(Collect(row.transfer_id))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfers.serve_link, ours)
            await sender.offered.wait()
            assert transfers.is_carried(row)
            await transfers.cancel("t1", actor("test"))
        said = await theirs.receive()
    assert said == Problem("peer-refused", "cancelled by the sender", is_final=True)
    assert not transfers.is_carried(row)


async def test_transfer_is_on_one_link_at_a_time() -> None:
    row = make_row(state=State.PENDING)
    sender = EndlessSender(Book(row))
    transfers = make_transfers(sender)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                theirs, ours = link_pair(PEER, FacilityId(bytes(32)))
                await theirs.send(Collect(row.transfer_id))
                if not transfers.is_carried(row):
                    nursery.start_soon(transfers.serve_link, ours)
                    await sender.offered.wait()
            with pytest.raises(Conflict, match="another link"):
                await transfers.serve_link(ours)
            assert transfers.is_carried(row), "the first goes on"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("route", "noted"), [(Route.DIRECT, Route.DIAL_BACK), (Route.RELAY, Route.RELAY)]
)
async def test_collected_transfer_went_over_the_others_dialling(route: Route, noted: Route) -> None:
    row = make_row(state=State.PENDING)
    sender = HeldSender(Book(row))
    theirs, ours = link_pair(PEER, FacilityId(bytes(32)))
    ours.route = route
    await theirs.send(Collect(row.transfer_id))
    await make_transfers(sender).serve_link(ours)
    assert sender.book.rows[1].route == noted


async def test_what_does_not_wait_is_not_collected_and_may_come_later() -> None:
    transfers = make_transfers(HeldSender(Book(make_row(state=State.DELIVERED))))
    theirs, ours = link_pair(PEER, FacilityId(bytes(32)))
    await theirs.send(Collect(make_row().transfer_id))
    await transfers.serve_link(ours)
    said = await theirs.receive()
    assert isinstance(said, Problem)
    assert (said.code, said.is_final) == ("not-found", False)


async def test_link_that_begins_with_anything_else_breaks_the_protocol() -> None:
    transfers = make_transfers(HeldSender(Book()))
    theirs, ours = link_pair(PEER, FacilityId(bytes(32)))
    first: Message = Progress(1, 1)
    await theirs.send(first)
    with pytest.raises(RemoteProtocolError, match="begins with"):
        await transfers.serve_link(ours)


async def test_delivery_whose_time_is_over_fails_unless_the_clock_is_in_doubt(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_doubted in (True, False):
        if is_doubted:
            doubted = clock.Clock(time.time, lambda: 0.0)
            doubted.begin(time.time() - 30 * 86400)
            monkeypatch.setattr(clock, "CLOCK", doubted)
        else:
            monkeypatch.undo()
        sender = HeldSender(Book(make_row(state=State.PENDING, expires_time=time.time() - 1)))
        with trio.move_on_after(30):
            await make_transfers(sender).run_peer(PEER)
        assert bool(sender.offers) is is_doubted
        assert sender.book.rows[1].state is (State.HELD if is_doubted else State.FAILED)


async def test_busy_peer_is_offered_to_again_when_it_said(autojump_clock: MockClock) -> None:
    class BusySender(HeldSender):
        async def send(
            self, _: object, row: Transfer, __: object, route: Route, *___: object
        ) -> None:
            self.offers.append(trio.current_time())
            raise PeerBusy("no room on the receiver's disk", 500.0)

    sender = BusySender(Book(make_row(state=State.PENDING)))
    started = trio.current_time()
    with trio.move_on_after(HOUR):
        await make_transfers(sender).run_peer(PEER)
    pauses = [b - a for a, b in zip([started, *sender.offers], sender.offers, strict=False)]
    assert pauses[0] == 0
    assert all(400 <= pause <= 600 for pause in pauses[1:])
    assert len(pauses) >= 6


async def test_collector_is_told_at_once_of_what_is_new_and_of_nothing_that_is_carried() -> None:
    row, other = make_row(state=State.PENDING), make_row(id=2, peer=FacilityId(bytes(32)))
    carried = make_row(id=3, transfer_id=TransferId(bytes([3]) * 16), state=State.PENDING)
    told: list[TransferId] = []
    heard = trio.Event()

    async def notify(transfer_id: TransferId) -> None:
        told.append(transfer_id)
        heard.set()
        await trio.lowlevel.checkpoint()

    book: Any = Book()
    changes: Feed[Transfer] = Feed()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            waiting = Waiting(book, changes, PEER, lambda one: one.id == carried.id)
            nursery.start_soon(waiting.run, notify)
            await trio.testing.wait_all_tasks_blocked()
            for one in (carried, other, row):
                changes.publish(one.id, one)
            await heard.wait()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert told == [row.transfer_id]
