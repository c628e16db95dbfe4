"""What is reserved holds when many come at once, and nobody's share is another's."""

import pytest
import trio
from trio.testing import MockClock

from node.domain.ids import FacilityId
from node.errors import PeerBusy
from node.exchange.room import Room
from node.exchange.shares import Share
from node.pace import Pace

A, B, C = (FacilityId(bytes([n]) * 32) for n in range(3))


def test_share_is_bounded_for_a_peer_and_in_all_and_comes_back() -> None:
    share = Share("things", in_all=15, per_peer=10)
    with share.taken(A, 6):
        with pytest.raises(PeerBusy):
            share.taken(A, 5).__enter__()
        with share.taken(B, 9):
            with pytest.raises(PeerBusy):
                share.taken(C, 1).__enter__()
        with share.taken(B, 9):
            pass
    with share.taken(A, 10):
        pass


async def test_pace_lets_a_burst_go_and_then_so_much_a_second(autojump_clock: MockClock) -> None:
    pace = Pace(2.0, burst=10)
    started = trio.current_time()
    for _ in range(30):
        await pace.turn(A)
    assert trio.current_time() - started == pytest.approx(10)
    assert pace.wait_seconds(A) > 0
    assert pace.wait_seconds(B) == 0, "another's pace is its own"


async def test_pace_holds_for_many_that_wait_side_by_side(autojump_clock: MockClock) -> None:
    pace = Pace(1.0, burst=1)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(pace.turn, A)
    assert trio.current_time() - started == pytest.approx(59)


async def test_room_is_promised_once_however_many_ask_at_once() -> None:
    room = Room(lambda: 100, lambda: 10, 50)
    outcomes: list[bool] = []

    async def ask(disk: int, quota: int) -> None:
        try:
            async with room.promised(disk, quota):
                outcomes.append(True)
                await trio.sleep_forever()
        except PeerBusy:
            outcomes.append(False)

    for disk, quota, most in ((30, 0, 3), (1, 15, 2)):
        outcomes.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, disk, quota)
            while len(outcomes) < 10:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert sum(outcomes) == most


async def test_what_was_written_and_committed_is_promised_no_longer() -> None:
    free, used = 100, 0
    room = Room(lambda: free, lambda: used, 100)
    async with room.promised(80, 80) as promise:
        free = 60
        promise.wrote(40)
        assert room.unpromised_bytes() == 20
        used = 80
        promise.is_counted()
        async with room.promised(20, 20):
            pass
    assert room.unpromised_bytes() == 60
