"""A rate is kept, and shared between pairs, whatever one of them does."""

from collections import Counter

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from directory_service.fair_share import FairShare

MIB = 2**20


async def carried(turns: FairShare, streams: dict[str, int], seconds: float) -> Counter[str]:
    """Return how much each pair passes on, with so many streams that always have something."""
    found: Counter[str] = Counter()

    async def stream(pair: str) -> None:
        while True:
            await turns.wait(pair, turns.piece_bytes)
            found[pair] += turns.piece_bytes
            await trio.lowlevel.checkpoint()

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for pair, count in streams.items():
                for _ in range(count):
                    nursery.start_soon(stream, pair)
    return found


@pytest.mark.parametrize("rate", [100_000, MIB, 100 * MIB])
async def test_pairs_share_evenly_however_many_streams_they_have(
    autojump_clock: trio.testing.MockClock, rate: int
) -> None:
    turns = FairShare(rate)
    found = await carried(turns, {"a": 8, "b": 1, "c": 3}, 20)
    assert max(found.values()) - min(found.values()) <= 2 * turns.piece_bytes
    assert sum(found.values()) == pytest.approx(20 * rate, rel=0.03)


async def test_who_is_alone_has_all_of_it(autojump_clock: trio.testing.MockClock) -> None:
    turns = FairShare(MIB)
    await trio.sleep(1000)  # what was not used then is not there now
    found = await carried(turns, {"a": 1}, 10)
    assert found["a"] == pytest.approx(10 * MIB, rel=0.03)


async def test_who_goes_away_in_the_line_holds_nobody_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turns = FairShare(MIB)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(turns.wait, "gone", MIB)
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    found = await carried(turns, {"a": 1}, 10)
    assert found["a"] >= 8 * MIB
    assert not turns._places  # nothing is kept of pairs that are not here


async def test_without_a_rate_nobody_waits() -> None:
    turns = FairShare(0)
    with trio.fail_after(5):
        for _ in range(10_000):
            await turns.wait("a", MIB)
    assert not turns._places


@given(st.integers(1, 10**12))
def test_pieces_are_small_enough_to_take_turns(rate: int) -> None:
    piece = FairShare(rate).piece_bytes
    assert 2**14 <= piece <= MIB
    assert piece == 2**14 or piece <= rate / 50 + 1
