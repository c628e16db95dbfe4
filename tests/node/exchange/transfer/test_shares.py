"""What is reserved holds when many come at once, and nobody's share is another's."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.documents.manifest import MAX_BYTES
from node.documents.messages import Collect, Message, Withdraw
from node.domain.ids import FacilityId, TransferId
from node.domain.transfers import Transfer
from node.errors import PeerBusy
from node.exchange.transfer.receiving import OFFERS_A_SECOND, OFFERS_AT_ONCE, Receiver
from node.exchange.transfer.sending import Sender
from node.exchange.transfer.shares import ChunkPlaces, Share
from node.exchange.transfer.transfers import Transfers
from node.pace import Pace
from tests.node.exchange.arriving_parts import link_pair

A, B, C, D = (FacilityId(bytes([n]) * 32) for n in range(4))
NOBODY: Any = None


def test_share_is_bounded_for_a_peer_and_in_all_and_comes_back() -> None:
    share = Share("things", in_all=30, per_peer=10)
    with share.taken(A, 6):
        with pytest.raises(PeerBusy):
            share.taken(A, 5).__enter__()
        with share.taken(B, 10), share.taken(C, 7), pytest.raises(PeerBusy):
            share.taken(D, 4).__enter__()
        with share.taken(B, 10):
            pass
    with share.taken(A, 10):
        pass


def test_two_peers_with_the_largest_do_not_keep_out_a_third() -> None:
    share = Sender(NOBODY, NOBODY)._manifests
    with share.taken(A, MAX_BYTES), share.taken(B, MAX_BYTES), share.taken(C, MAX_BYTES // 2):
        with share.taken(D, MAX_BYTES // 4):
            pass


async def test_chunks_of_a_peer_wait_for_its_places_and_its_transfers_have_turns() -> None:
    places = ChunkPlaces(in_all=5, per_peer=3)
    held: list[tuple[FacilityId, str, object]] = []

    async def carry(peer: FacilityId, transfer: str) -> None:
        while True:
            holder = object()
            await places.acquire(peer, holder)
            held.append((peer, transfer, holder))

    def free_first() -> None:
        peer, _, holder = held.pop(0)
        places.release(peer, holder)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry, A, "x")
        await wait_all_tasks_blocked()
        nursery.start_soon(carry, A, "y")
        await wait_all_tasks_blocked()
        assert [t for _, t, _ in held] == ["x", "x", "x"]
        for _ in range(6):
            free_first()
            await wait_all_tasks_blocked()
        assert sorted(t for _, t, _ in held) in (["x", "x", "y"], ["x", "y", "y"])
        nursery.start_soon(carry, B, "z")
        await wait_all_tasks_blocked()
        assert [t for _, t, _ in held[3:]] == ["z", "z"], "so many in all"
        nursery.cancel_scope.cancel()
    while held:
        free_first()
    for n in range(3):
        with trio.fail_after(1):
            await places.acquire(C, n)  # whoever was cancelled while it waited holds none


async def test_pace_lets_a_burst_go_and_then_so_much_a_second(autojump_clock: MockClock) -> None:
    pace = Pace(2.0, burst=10)
    started = trio.current_time()
    for _ in range(30):
        await pace.turn(A)
    assert trio.current_time() - started == pytest.approx(9.5)  # the last is had in advance
    assert pace.wait_seconds(A) > 0
    assert pace.wait_seconds(B) == 0, "another's pace is its own"


async def test_pace_holds_for_many_that_wait_side_by_side(autojump_clock: MockClock) -> None:
    pace = Pace(1.0, burst=1)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(pace.turn, A)
    assert trio.current_time() - started == pytest.approx(58)


async def test_pace_gives_a_large_thing_at_once_and_has_it_waited_for(
    autojump_clock: MockClock,
) -> None:
    """A burst as large as the largest thing would be as many small ones at once."""
    pace = Pace(1.0, burst=2)
    assert pace.wait_seconds(A, 30) == 0
    assert pace.wait_seconds(A, 1) == pytest.approx(28)
    with trio.move_on_after(5):
        await pace.turn(A, 10)
    assert pace.wait_seconds(A, 1) == pytest.approx(23), "nothing is taken by who gave up"
    assert pace.wait_seconds(B, 1) == 0


async def test_who_ends_waiting_has_taken_nothing(autojump_clock: MockClock) -> None:
    pace = Pace(1.0, burst=1)
    await pace.turn(A, 50)
    for _ in range(10):
        with trio.move_on_after(1):
            await pace.turn(A, 50)
    assert pace.wait_seconds(A) == pytest.approx(39)


async def test_pace_of_any_number_of_callers_takes_bounded_room(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.pace._MOST", 100)
    pace = Pace(1.0, burst=5)
    for n in range(1000):
        assert pace.wait_seconds(n, 10) == 0
        assert len(pace._used_until) <= 100
    assert pace.wait_seconds(999) > 0, "who came last is not forgotten"


async def test_nobody_waits_longer_than_a_minute(autojump_clock: MockClock) -> None:
    pace = Pace(1.0, burst=1)
    for _ in range(100):
        pace.charge(A, 20)
    started = trio.current_time()
    await pace.turn(A, 5000)
    assert trio.current_time() - started <= 60


@pytest.mark.parametrize(
    ("first", "cost"), [(Collect(TransferId(bytes(16))), 1), (Withdraw(TransferId(bytes(16))), 16)]
)
async def test_transfers_begin_at_a_pace_whichever_way(
    autojump_clock: MockClock, first: Message, cost: int
) -> None:
    """What brings nothing new takes the node as long, and is waited for longer."""
    policy = SimpleNamespace(quota_bytes=0)
    carrier = SimpleNamespace(free_bytes=None, used_bytes=None)
    nobody: Any = dict.fromkeys(("me", "seal_keys", "store", "examiner", "clock"))
    book: Any = NoTransfers()
    receiver = Receiver(transfers=book, carrier=carrier, policy=policy, installed=(), **nobody)  # type: ignore[arg-type]
    others: Any = dict.fromkeys(("signer", "sender", "links"))
    transfers = Transfers(book=book, receiver=receiver, offer_seconds=1.0, **others)
    started = trio.current_time()
    for _ in range(int(OFFERS_AT_ONCE + 10 * OFFERS_A_SECOND) // cost):
        theirs, ours = link_pair(A, B)
        await theirs.send(first)
        await transfers.serve_link(ours)
    assert trio.current_time() - started == pytest.approx(10, abs=0.5)


class NoTransfers:
    """Knows of no transfer."""

    async def waiting_one(self, _: FacilityId, __: TransferId) -> Transfer | None:
        return None

    async def find_received(self, _: FacilityId, __: TransferId) -> None:
        return None
