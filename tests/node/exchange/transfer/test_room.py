"""Room is promised once, to whoever is next, and given back as it is used."""

from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

from node.domain.ids import FacilityId
from node.errors import PeerBusy
from node.exchange.transfer.room import Room
from node.exchange.transfer.shares import PLACE_SECONDS

A, B, C, D = (FacilityId(bytes([n]) * 32) for n in range(4))


async def test_room_is_promised_once_however_many_ask_at_once() -> None:
    outcomes: list[bool] = []

    async def ask(room: Room, peer: FacilityId, disk: int, quota: int) -> None:
        try:
            async with room.promised(peer, disk, quota):
                outcomes.append(True)
                await trio.sleep_forever()
        except PeerBusy:
            outcomes.append(False)

    for disk, quota, most in ((30, 0, 3), (1, 15, 2)):
        outcomes.clear()
        room = Room(lambda: 100, lambda: 10, 50)
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(ask, room, FacilityId(bytes([n]) * 32), disk, quota)
            while len(outcomes) < 10:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert sum(outcomes) == most


async def test_what_was_written_and_committed_is_promised_no_longer() -> None:
    free, used = 100, 0
    room = Room(lambda: free, lambda: used, 100)
    async with room.promised(A, 80, 80) as promise:
        free = 60
        promise.wrote(40)
        assert room.unpromised_bytes() == 20
        used = 80
        promise.is_counted()
        async with room.promised(B, 20, 20):
            pass
    assert room.unpromised_bytes() == 60


async def test_peer_that_has_room_leaves_half_of_the_rest_to_others() -> None:
    room = Room(lambda: 10**6, lambda: 0, 100)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(room.promised(A, 1, 40))
        with pytest.raises(PeerBusy):
            await stack.enter_async_context(room.promised(A, 1, 31))
        await stack.enter_async_context(room.promised(A, 1, 30))
        await stack.enter_async_context(room.promised(B, 1, 30))
    async with room.promised(A, 1, 100):
        pass


async def test_who_was_refused_is_next_however_often_another_asks(
    autojump_clock: MockClock,
) -> None:
    room = Room(lambda: 100, lambda: 0, 0)
    for _ in range(3):
        async with room.promised(A, 100, 0):
            with pytest.raises(PeerBusy):
                await room.promised(B, 60, 0).__aenter__()
        with pytest.raises(PeerBusy):
            await room.promised(A, 100, 0).__aenter__()
        async with room.promised(B, 60, 0):
            async with room.promised(D, 0, 0):
                pass
        await trio.sleep(PLACE_SECONDS)
    with pytest.raises(PeerBusy, match="no room"):
        await room.promised(B, 101, 0).__aenter__()
    async with room.promised(C, 100, 0):
        pass  # what never fits waits in no line


async def test_quota_that_changes_holds_for_what_comes_and_not_for_what_was_promised() -> None:
    room = Room(lambda: 10**6, lambda: 50, 100)
    async with room.promised(A, 1, 50) as promise:
        room.use_quota(60)
        assert promise.quota_bytes == 50
        with pytest.raises(PeerBusy, match="reserved for earlier transfers"):
            await room.promised(B, 1, 1).__aenter__()
    with pytest.raises(PeerBusy, match="quota is used up"):
        await room.promised(B, 1, 11).__aenter__()
    async with room.promised(B, 1, 10):
        pass
    room.use_quota(0)
    async with room.promised(B, 1, 10**9):
        pass


async def test_used_bytes_are_not_counted_where_nothing_goes_by_them() -> None:
    """It is a question to the database, for each offer."""
    asked: list[int] = []

    def used_bytes() -> int:
        asked.append(1)
        return 0

    async with Room(lambda: 100, used_bytes, 0).promised(A, 1, 10):
        pass
    async with Room(lambda: 100, used_bytes, 50).promised(A, 1, 0):
        pass
    assert not asked
    async with Room(lambda: 100, used_bytes, 50).promised(A, 1, 10):
        assert asked == [1]


async def test_room_comes_back_whatever_ends_the_arrival() -> None:
    room = Room(lambda: 100, lambda: 0, 100)
    with pytest.raises(ValueError, match="broken"):
        async with room.promised(A, 80, 80):
            raise ValueError("broken")
    with trio.CancelScope() as scope:
        async with room.promised(A, 80, 80):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert room.unpromised_bytes() == 100
    async with room.promised(B, 100, 100) as promise:
        promise.wrote(1000)
        assert promise.disk_bytes == 0, "more was written than was promised"
        assert room.unpromised_bytes() == 100


async def test_who_has_room_already_gets_no_place_in_the_line() -> None:
    room = Room(lambda: 100, lambda: 0, 0)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(room.promised(A, 40, 0))
        with pytest.raises(PeerBusy):
            await stack.enter_async_context(room.promised(A, 50, 0))
        await stack.enter_async_context(room.promised(B, 60, 0))
