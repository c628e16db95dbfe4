"""Who is refused waits; who takes calls back loses a connection; honest callers notice neither."""

import trio

from node.rpc.refusing import FLOOD_SECONDS, REFUSAL_SECONDS, REFUSALS_AT_ONCE, Refusals


class Door:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def drop(self, address: str) -> None:
        self.dropped.append(address)


_CALM = int(REFUSALS_AT_ONCE) + 1  # one is had in advance


async def _hold(refusals: Refusals, count: int, account: str = "a") -> None:
    async with trio.open_nursery() as nursery:
        for n in range(count):
            nursery.start_soon(refusals.hold, f"{account}:{n}", account)


async def test_each_refusal_is_held_and_an_honest_burst_costs_no_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Door()
    refusals = Refusals(door, max_calls=256)
    for _ in range(2):
        before = trio.current_time()
        await _hold(refusals, 40)
        assert trio.current_time() - before == REFUSAL_SECONDS
    assert not door.dropped


async def test_what_is_over_the_places_for_refusals_ends_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Door()
    refusals = Refusals(door, max_calls=20)
    await _hold(refusals, 12)
    assert len(door.dropped) == 2
    await _hold(refusals, 10)
    assert len(door.dropped) == 2


async def test_who_floods_waits_longer_and_others_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Door()
    refusals = Refusals(door, max_calls=10_000)
    await _hold(refusals, _CALM)
    for account, seconds in (("a", FLOOD_SECONDS), ("b", REFUSAL_SECONDS)):
        before = trio.current_time()
        await _hold(refusals, 16, account)
        assert trio.current_time() - before == seconds
    assert not door.dropped


async def test_calls_that_are_taken_back_count_and_hold_no_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Or a caller that resets each call at once would lose no connection, or keep out others."""
    door = Door()
    refusals = Refusals(door, max_calls=20)
    for n in range(_CALM + 1):
        assert not door.dropped
        with trio.move_on_after(0):
            await refusals.hold(f"a:{n}", "a")
    assert door.dropped == [f"a:{_CALM}"]
    await refusals.hold("b:1", "b")
    assert len(door.dropped) == 1
