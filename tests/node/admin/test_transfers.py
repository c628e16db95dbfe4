"""Transfers as people order, list and watch them: no change is lost, and no offer shown unasked."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from emix.admin.v1 import admin_pb2 as pb
from trio.testing import wait_all_tasks_blocked

from node.admin.transfers import TransferHandlers
from node.domain.connections import ConnectionState, PeerWay
from node.domain.held import HeldInstance
from node.domain.ids import PackageId
from node.domain.manifest import StudyInstanceUID
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.domain.transfers import Direction, Priority, State, Transfer
from node.errors import Conflict, NotFound, PeerUnreachable, PeerUntrusted, StoreError, UsageError
from node.exchange.events import Feed
from node.exchange.transfer.lists import TransferLists
from node.exchange.transfer.transfers import SendOrder, Sent
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.admin_services import (
    AdminCall,
    Log,
    answer,
    answers,
    facilities_of,
    paged,
    peer_of,
)
from tests.support.members import BILLINGS
from tests.support.recorded import Recorded, RecordedTrail

AWAY = PeerWay(ConnectionState.UNREACHABLE, problem="it is silent", round_trip_seconds=0.25)
PEER = peer_of(BILLINGS, name="Billings")
OFFER = Summary((Patient("DOE^JANE"),), "1.2")
UID = StudyInstanceUID("1.2")


def row(number: int, **changes: Any) -> Transfer:
    known = {"state": State.PENDING, "peer": BILLINGS.facility, "origin": BILLINGS.facility}
    return make_row(**{"id": number, **known, **changes})


def offer(number: int) -> Transfer:
    return row(number, state=State.HELD, direction=Direction.RECEIVE, summary=OFFER)


def numbers(got: Sequence[Any]) -> list[int]:
    return [message.transfer.number for message in got]


class Rows:
    """The transfers of the store; something can happen while they are read."""

    def __init__(self, log: Log, rows: list[Transfer]) -> None:
        self.log, self.rows = log, rows
        self.search: Callable[..., AsyncGenerator[list[Any]]] = paged(log, "search", rows)
        self.meanwhile: Callable[[], None] = lambda: None

    async def latest(self) -> list[Transfer]:
        await trio.lowlevel.checkpoint()
        self.meanwhile()
        return self.rows

    async def numbered(self, wanted: Sequence[int]) -> list[Transfer]:
        return [row for row in await self.latest() if row.id in wanted]

    async def open_ones(self) -> list[Transfer]:
        return self.rows

    async def rates(self) -> dict[Any, float]:
        return {}


class Node:
    """A node with one peer."""

    def __init__(
        self, *rows: Transfer, why_not: str = "", audit: Any = None, **transfers: Any
    ) -> None:
        self.log: Log = []
        self.way = AWAY
        self.changes: Feed[Transfer] = Feed()
        self.rows = Rows(self.log, list(rows))
        running: Any = SimpleNamespace(is_carried=lambda _: False, is_yielding=lambda _: False)
        ways: Any = SimpleNamespace(way=lambda _: self.way)
        facilities = facilities_of(PEER, why_not=why_not)
        trail = audit or RecordedTrail(self.log)
        lists = TransferLists(self.rows, running, self.changes, ways, facilities, trail)
        used: Any = Recorded(**transfers)
        waiting: Any = Recorded(held_of=transfers.get("held", []), unfinished_of=[4])
        self.service = TransferHandlers(used, lists, facilities, waiting).service()
        self.transfers: Recorded = used
        self.waiting: Recorded = waiting

    def change(self, changed: Transfer) -> None:
        self.changes.publish(changed.id, changed)


# -- sending --------------------------------------------------------------------------------------


def sent(*added: Transfer, known: Sequence[Transfer] = (), **more: Any) -> Sent:
    return Sent(UID, BILLINGS.facility, added, known, more.get("held", ()))


def request(**more: Any) -> pb.SendRequest:
    return pb.SendRequest(**({"study": "s1", "facility": "Billings"} | more))


async def ordered(call: AdminCall) -> SendOrder:
    node = Node(send=sent(row(1)))
    await answers(node.service, "Send", call)
    ((name, (order,)),) = node.transfers.calls
    assert name == "send"
    assert isinstance(order, SendOrder)
    return order


async def test_order_leaves_open_what_the_person_did_not_say() -> None:
    call = AdminCall(request())
    assert await ordered(call) == SendOrder("s1", BILLINGS.facility, BILLINGS.seal, call.actor)


async def test_order_has_all_that_the_person_said() -> None:
    call = AdminCall(
        request(
            recipient="",
            note="please read",
            priority="stat",
            again=True,
            origin="BILLINGS",
            include_held=True,
            several_patients=True,
        )
    )
    assert await ordered(call) == SendOrder(
        study="s1",
        receiver=BILLINGS.facility,
        seal_key=BILLINGS.seal,
        actor=call.actor,
        recipient="",
        note="please read",
        priority=Priority.STAT,
        is_again=True,
        origin=str(BILLINGS.facility),
        has_held=True,
        has_several_patients=True,
    )


@pytest.mark.parametrize("priority", ["high", "0", "STAT "])
async def test_priority_that_there_is_not_sends_nothing(priority: str) -> None:
    node = Node(send=sent(row(1)))
    with pytest.raises(UsageError, match="the priority is stat, urgent or routine"):
        await answers(node.service, "Send", AdminCall(request(priority=priority)))
    assert node.transfers.calls == []


async def test_request_without_a_study_only_says_whether_one_could_be_sent() -> None:
    node = Node(send=sent(row(1)))
    assert await answers(node.service, "Send", AdminCall(request(study=""))) == [pb.SendResponse()]
    node = Node(send=sent(row(1)), why_not="its invitation was revoked")
    with pytest.raises(PeerUntrusted, match=r"its invitation was revoked\. Pair with it"):
        await answers(node.service, "Send", AdminCall(request(study="")))
    assert node.transfers.calls == []


async def test_sent_packages_are_answered_with_what_was_left_out_and_why() -> None:
    held = [
        HeldInstance(n, 1, 0, ("other patient",), f"/cd/{n}", 1.0, 5, "1.4", UID, None)
        for n in range(150)
    ]
    node = Node(
        send=sent(row(8), known=[row(3, summary=OFFER)], held=[PackageId(b"p" * 32)]), held=held
    )
    page = await answer(node.service, "Send", AdminCall(request()))
    assert [(one.number, one.peer_name) for one in page.transfers] == [
        (8, "Billings"),
        (3, "Billings"),
    ]
    assert not page.transfers[1].HasField("summary")
    assert list(page.known) == [str(row(3).transfer_id)]
    assert list(page.held_packages) == [str(PackageId(b"p" * 32))]
    assert (page.origin, list(page.unfinished_imports)) == (str(BILLINGS.facility), [4])
    assert [one.held_id for one in page.held] == list(range(100))
    asked = (UID, BILLINGS.facility)
    assert node.waiting.calls == [("held_of", asked), ("unfinished_of", asked)]


async def test_study_that_cannot_be_sent_is_answered_with_the_reason() -> None:
    node = Node(send=NotFound("no study is called so"))
    call = AdminCall(request())
    with pytest.raises(NotFound, match="no study"):
        await answers(node.service, "Send", call)
    assert call.got == []


# -- listing --------------------------------------------------------------------------------------


async def test_offers_are_listed_with_whom_they_are_of_and_recorded_first() -> None:
    node = Node(offer(2), row(1))
    call = AdminCall(pb.ListTransfersRequest(open_only=True, limit=9), log=node.log)
    page = await answer(node.service, "ListTransfers", call)
    assert [one.number for one in page.transfers] == [2, 1]
    assert [p.name for p in page.transfers[0].summary.patients] == ["DOE^JANE"]
    assert "`emix accept t2`" in page.transfers[0].reason
    names = [name for name, _ in node.log]
    assert names == ["search", "offers.listed", "search ended", "written"]
    assert node.log[0][1] == (True, False, 9)
    assert node.log[1][1] == ({}, call.actor)


async def test_offers_that_cannot_be_recorded_are_not_listed() -> None:
    node = Node(offer(1), audit=Recorded(note_list=StoreError("full")))
    call = AdminCall(pb.ListTransfersRequest(held_only=True))
    with pytest.raises(StoreError):
        await answers(node.service, "ListTransfers", call)
    assert call.got == []


# -- watching -------------------------------------------------------------------------------------


Watch = Callable[[Node, AdminCall], Awaitable[None]]


@pytest.fixture
def watching(nursery: trio.Nursery) -> Watch:
    """Begin a watch; return when it has nothing more to say."""

    async def begin(node: Node, call: AdminCall) -> None:
        nursery.start_soon(answers, node.service, "WatchTransfers", call)
        await wait_all_tasks_blocked()

    return begin


async def test_watch_begins_with_the_oldest_and_goes_on_with_each_change(watching: Watch) -> None:
    node, call = Node(row(2), row(1)), AdminCall(pb.WatchTransfersRequest())
    await watching(node, call)
    assert numbers(call.got) == [1, 2]
    node.change(row(3))
    node.change(row(1, state=State.CARRYING))
    await wait_all_tasks_blocked()
    assert numbers(call.got) == [1, 2, 3, 1]
    assert call.got[-1].transfer.state == "carrying"


async def test_change_while_the_first_are_read_is_not_lost(watching: Watch) -> None:
    node, call = Node(row(1)), AdminCall(pb.WatchTransfersRequest())
    node.rows.meanwhile = lambda: node.change(row(1, state=State.DELIVERED))
    await watching(node, call)
    assert [m.transfer.state for m in call.got] == ["pending", "delivered"]


async def test_watch_of_some_transfers_says_nothing_of_others(watching: Watch) -> None:
    node = Node(*(row(n) for n in (4, 3, 2, 1)))
    call = AdminCall(pb.WatchTransfersRequest(numbers=[3, 1, 99]))
    await watching(node, call)
    assert numbers(call.got) == [1, 3]
    for n in (2, 3, 99):
        node.change(row(n))
    await wait_all_tasks_blocked()
    assert numbers(call.got) == [1, 3, 3, 99]


async def test_watch_shows_no_offers_patients(watching: Watch) -> None:
    """What shows them is recorded, and a watch is not."""
    node, call = Node(offer(1)), AdminCall(pb.WatchTransfersRequest())
    await watching(node, call)
    node.change(offer(2))
    await wait_all_tasks_blocked()
    assert numbers(call.got) == [1, 2]
    assert not any(m.transfer.HasField("summary") for m in call.got)
    assert node.log == []


async def test_connection_that_comes_changes_why_open_transfers_wait(
    watching: Watch, mock_clock: trio.testing.MockClock
) -> None:
    done = row(1, state=State.FAILED, reason="its disk is full")
    node, call = Node(row(2), done), AdminCall(pb.WatchTransfersRequest())
    await watching(node, call)
    assert [m.transfer.reason for m in call.got] == [
        "its disk is full",
        "it is silent; it goes on by itself",
    ]
    mock_clock.jump(2.1)
    await wait_all_tasks_blocked()
    assert len(call.got) == 2, "nothing has changed"
    node.way = replace(AWAY, is_connected=True, problem="")
    mock_clock.jump(2.1)
    await wait_all_tasks_blocked()
    assert numbers(call.got[2:]) == [2]
    assert call.got[2].transfer.reason.startswith("it waits for its turn")
    mock_clock.jump(2.1)
    await wait_all_tasks_blocked()
    assert len(call.got) == 3


async def test_transfer_that_has_ended_is_not_looked_at_again(
    watching: Watch, mock_clock: trio.testing.MockClock
) -> None:
    node, call = Node(row(1)), AdminCall(pb.WatchTransfersRequest())
    await watching(node, call)
    node.change(row(1, state=State.CANCELLED))
    await wait_all_tasks_blocked()
    node.way = replace(AWAY, problem="something else")
    mock_clock.jump(2.1)
    await wait_all_tasks_blocked()
    assert [m.transfer.state for m in call.got] == ["pending", "cancelled"]


async def test_watch_ends_when_its_caller_leaves() -> None:
    node = Node(row(2), row(1))
    call = AdminCall(pb.WatchTransfersRequest(), leaves_after=1)
    with pytest.raises(PeerUnreachable):
        await answers(node.service, "WatchTransfers", call)
    assert numbers(call.got) == [1]


async def test_number_that_no_transfer_can_have_is_refused() -> None:
    call = AdminCall(pb.WatchTransfersRequest(numbers=[1, 2**63]))
    with pytest.raises(UsageError, match="no transfer has such a number"):
        await answers(Node(row(1)).service, "WatchTransfers", call)
    assert call.got == []


async def test_many_studies_are_ordered_and_one_that_fails_keeps_no_other() -> None:
    async def send(order: SendOrder) -> Sent:
        await trio.sleep(0.01 if order.study == "s0" else 0)  # the first is ready last
        if order.study in ("s3", "s17"):
            raise NotFound(f"no study {order.study}")
        number = int(order.study[1:])
        return sent(*(row(1000 * number + n) for n in range(250 if number == 5 else 1)))

    node = Node()
    node.transfers.send = send  # type: ignore[attr-defined]
    request_ = pb.SendStudiesRequest(
        studies=[f"s{n}" for n in range(40)], order=request(study="", note="many")
    )
    got = await answers(node.service, "SendStudies", AdminCall(request_))
    order = [one.index for one in got]
    assert order == sorted(order), "in the order given"
    assert {one.index: one.error for one in got if one.error_code} == {
        3: "no study s3",
        17: "no study s17",
    }
    assert {one.error_code for one in got} == {"", "not-found"}
    of_five = [t.number for one in got if one.index == 5 for t in one.sent.transfers]
    assert of_five == [5000 + n for n in range(250)]
    assert all(len(one.sent.transfers) <= 100 for one in got)
    assert len({one.index for one in got}) == 40


async def test_facility_that_cannot_be_sent_to_ends_all_of_them() -> None:
    node = Node(why_not="not paired")
    request_ = pb.SendStudiesRequest(studies=["s1", "s2"], order=request(study=""))
    with pytest.raises(PeerUntrusted):
        await answers(node.service, "SendStudies", AdminCall(request_))
    assert node.transfers.calls == []


def test_very_many_transfers_can_be_watched_and_only_that_request_is_large() -> None:
    service = Node().service
    many = pb.WatchTransfersRequest(numbers=range(2**62, 2**62 + 100_000))
    assert many.ByteSize() < service.bound("WatchTransfers").size
    assert set(service.bounds) == {"WatchTransfers", "SendStudies"}


# -- deciding -------------------------------------------------------------------------------------


async def test_transfer_is_cancelled_for_who_asked() -> None:
    node = Node(cancel=row(5, state=State.CANCELLED, summary=OFFER))
    call = AdminCall(pb.CancelTransferRequest(transfer="t5"))
    found = (await answer(node.service, "CancelTransfer", call)).transfer
    assert (found.number, found.state) == (5, "cancelled")
    assert not found.HasField("summary")
    assert node.transfers.calls == [("cancel", ("t5", call.actor))]


@pytest.mark.parametrize("accept", [True, False])
async def test_offer_is_decided_as_the_person_said(accept: bool) -> None:
    state = State.CARRYING if accept else State.DECLINED
    node = Node(decide=row(5, state=state))
    call = AdminCall(pb.DecideOfferRequest(transfer="t5", accept=accept, reason="not ours"))
    found = (await answer(node.service, "DecideOffer", call)).transfer
    assert found.state == state
    assert node.transfers.calls == [("decide", ("t5", accept, "not ours", call.actor))]


async def test_offer_that_is_decided_already_is_answered_with_that() -> None:
    node = Node(decide=Conflict("transfer t5 is delivered"))
    call = AdminCall(pb.DecideOfferRequest(transfer="t5", accept=True))
    with pytest.raises(Conflict, match="t5 is delivered"):
        await answer(node.service, "DecideOffer", call)
