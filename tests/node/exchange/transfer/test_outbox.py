"""What waits for a peer is offered in time, in order, a few at once, and never forgotten."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import TransferId
from node.domain.transfers import Direction, Priority, State, Transfer
from node.exchange.transfer.outbox import (
    FIRST_HELD_PAUSE,
    LONGEST_HELD_PAUSE,
    LONGEST_PAUSE,
    Outbox,
)
from tests.node.exchange.transfer.test_transfers import make_row


def row(number: int, **changes: Any) -> Transfer:
    changes = {"state": State.PENDING, "bytes_total": 2**30, **changes}
    return make_row(id=number, transfer_id=TransferId(number.to_bytes(16, "big")), **changes)


def outbox_of(*rows: Transfer, at_once: int = 3) -> Outbox:
    """Return an outbox whose pauses are exact, into which these came at the time 0."""
    outbox = Outbox(at_once, lambda low, high: (low + high) / 2)
    for one in rows:
        outbox.changed(one, 0.0)
    return outbox


def test_a_few_are_under_way_at_once_and_the_most_urgent_go_first() -> None:
    urgent, stat = row(3, priority=Priority.URGENT), row(4, priority=Priority.STAT)
    outbox = outbox_of(row(1), row(2), urgent, stat, at_once=2)
    assert outbox.take_due(0.0) == [4, 3, 1]
    assert outbox.take_due(0.0) == []
    assert outbox.next_due == math.inf
    outbox.offered(3, row(3, state=State.DELIVERED), 5.0)
    assert outbox.next_due == 0.0
    assert outbox.take_due(5.0) == [2]


def test_what_is_stat_waits_for_nobody_and_takes_nobodys_place() -> None:
    outbox = outbox_of(*(row(n, priority=Priority.STAT) for n in range(1, 9)), row(9), at_once=1)
    assert outbox.take_due(0.0) == list(range(1, 10))
    outbox.changed(row(10, priority=Priority.STAT), 1.0)
    outbox.changed(row(11), 1.0)
    assert outbox.take_due(1.0) == [10]


def end(outbox: Outbox, numbers: list[int], now: float) -> None:
    for number in numbers:
        outbox.offered(number, row(number, state=State.DELIVERED), now)


def test_small_ones_that_are_over_soon_share_places_and_slow_ones_do_not() -> None:
    """A line of 600 ms would stand empty most of the time with three of them."""
    outbox = outbox_of(*(row(n, bytes_total=1000) for n in range(1, 200)))
    counts, under_way = [], outbox.take_due(0.0)
    for now in range(1, 8):
        counts.append(len(under_way))
        end(outbox, under_way, float(now))
        under_way = outbox.take_due(float(now))
    assert counts[0] == 3
    assert counts == sorted(counts)
    assert counts[-1] == len(under_way) == 24
    end(outbox, under_way[:3], 40.0)
    assert len(outbox.take_due(40.0)) == 1, "21 are too many for a slow line"
    end(outbox, under_way[3:], 41.0)
    assert len(outbox.take_due(41.0)) == 2


@pytest.mark.parametrize("state", [State.HELD, State.DECLINED, State.DELIVERED])
def test_only_what_was_delivered_says_how_fast_the_line_is(state: State) -> None:
    outbox = outbox_of(*(row(n, bytes_total=1000) for n in range(1, 400)))
    for now in range(10):
        for number in outbox.take_due(float(now)):
            outbox.offered(number, row(number, state=state, bytes_total=1000), float(now))
    assert len(outbox.take_due(10.0)) == (24 if state is State.DELIVERED else 3)


def test_large_one_that_takes_long_says_nothing_of_small_ones_and_a_broken_small_one_does() -> None:
    outbox = outbox_of(*(row(n, bytes_total=1000) for n in range(1, 400)))
    for now in range(10):
        end(outbox, outbox.take_due(float(now)), float(now))
    under_way = outbox.take_due(10.0)
    assert len(under_way) == 24
    end(outbox, under_way, 11.0)
    outbox.changed(row(900, priority=Priority.URGENT), 11.0)
    assert 900 in outbox.take_due(11.0)
    outbox.offered(900, row(900, state=State.DELIVERED), 500.0)
    assert outbox._packed == 8
    outbox.failed(next(iter(outbox._going)), None, 500.0)
    assert outbox._packed == 4


def test_larger_ones_take_more_room_and_large_ones_a_place_each() -> None:
    outbox = outbox_of(*(row(n, bytes_total=1000) for n in range(1, 40)))
    for now in range(10):
        end(outbox, outbox.take_due(float(now)), float(now))
    for number in range(40, 70):
        outbox.changed(row(number, bytes_total=5 * 2**19), 20.0)
    assert len(outbox.take_due(20.0)) == 6
    end(outbox, list(range(40, 46)), 21.0)
    for number in (71, 72):
        outbox.changed(row(number, priority=Priority.URGENT), 21.0)
    assert outbox.take_due(21.0) == [71, 72, 46, 47]


def test_what_came_to_nothing_is_offered_again_after_pauses_that_grow_to_a_minute() -> None:
    outbox, now, pauses = outbox_of(row(1)), 0.0, []
    for _ in range(7):
        assert outbox.take_due(now) == [1]
        outbox.failed(1, row(1), now)
        pauses.append(outbox.next_due - now)
        assert outbox.take_due(outbox.next_due - 0.01) == []
        now = outbox.next_due
    assert pauses == [2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]


def test_pause_that_a_peer_asks_for_is_kept_and_lets_no_other_grow() -> None:
    outbox = outbox_of(row(1))
    outbox.take_due(0.0)
    outbox.failed(1, row(1), 0.0, later=500.0)
    assert outbox.next_due == 500.0
    outbox.take_due(500.0)
    outbox.failed(1, None, 500.0)  # nobody knows how it stands: it waits all the same
    assert outbox.next_due == 502.0


def test_held_offer_is_offered_again_by_itself_after_pauses_that_grow_to_an_hour() -> None:
    outbox, now, pauses = outbox_of(row(1)), 0.0, []
    for _ in range(5):
        assert outbox.take_due(now) == [1]
        outbox.offered(1, row(1, state=State.HELD), now)
        pauses.append(outbox.next_due - now)
        now = outbox.next_due
    assert pauses == [FIRST_HELD_PAUSE, 1200, 2400, LONGEST_HELD_PAUSE, LONGEST_HELD_PAUSE]


def test_word_of_a_decision_is_followed_at_once_but_once_a_second_at_most() -> None:
    outbox = outbox_of(row(1))
    outbox.take_due(0.0)
    outbox.offered(1, row(1, state=State.HELD), 10.0)
    assert outbox.rung(row(1).transfer_id, 10.2)
    assert outbox.next_due == 11.0
    assert outbox.take_due(11.0) == [1]
    outbox.offered(1, row(1, state=State.HELD), 11.1)
    assert outbox.rung(row(1).transfer_id, 50.0)
    assert outbox.next_due == 50.0
    assert not outbox.rung(row(2).transfer_id, 50.0)


@pytest.mark.parametrize("ends", ["offered", "failed"])
def test_word_that_comes_while_an_offer_is_under_way_is_not_lost(ends: str) -> None:
    outbox = outbox_of(row(1))
    outbox.take_due(0.0)
    assert outbox.rung(row(1).transfer_id, 1.0)
    assert outbox.take_due(5.0) == [], "it is under way"
    getattr(outbox, ends)(1, row(1, state=State.HELD), 5.0)
    assert outbox.next_due == 6.0


def test_what_is_final_leaves_unless_the_peer_is_still_to_be_told() -> None:
    outbox = outbox_of(row(1), row(2))
    outbox.changed(row(1, state=State.CANCELLED, withdrawal_pending=True), 1.0)
    outbox.changed(row(2, state=State.DELIVERED), 1.0)
    assert (1 in outbox, 2 in outbox) == (True, False)
    assert not outbox.rung(row(2).transfer_id, 1.0)
    assert outbox.take_due(1.0) == [1]
    outbox.offered(1, row(1, state=State.CANCELLED), 2.0)
    assert 1 not in outbox
    assert outbox.next_due == math.inf


def test_withdrawal_is_told_at_once_though_the_offer_waits_for_a_person_there() -> None:
    outbox = outbox_of(row(1))
    outbox.take_due(0.0)
    outbox.offered(1, row(1, state=State.HELD), 0.0)
    outbox.changed(row(1, state=State.CANCELLED, withdrawal_pending=True), 30.0)
    assert outbox.next_due == 30.0


def test_what_comes_to_us_is_nothing_to_offer() -> None:
    outbox = outbox_of(row(1, direction=Direction.RECEIVE))
    outbox.found(row(2, direction=Direction.RECEIVE, state=State.HELD), 0.0)
    assert (1 in outbox, 2 in outbox) == (False, False)


def test_held_offers_that_are_found_are_spread_and_the_others_go_at_once() -> None:
    drawn = iter([0.1, 1.0])
    outbox = Outbox(9, lambda *_: next(drawn))
    for one in (row(1, state=State.HELD), row(2, state=State.HELD), row(3)):
        outbox.found(one, 0.0)
    outbox.found(row(4, state=State.HELD, withdrawal_pending=True), 0.0)
    assert outbox.take_due(0.0) == [3, 4]
    assert outbox.next_due == FIRST_HELD_PAUSE / 10
    assert outbox.take_due(FIRST_HELD_PAUSE - 1) == [1]
    assert outbox.take_due(FIRST_HELD_PAUSE) == [2]


def may_go(outbox: Outbox, number: int, going: dict[int, float]) -> bool:
    is_full = sum(going.values()) >= outbox._at_once
    is_stat = outbox._entries[number].priority is Priority.STAT
    return number not in going and (is_stat or not is_full)


def shares(outbox: Outbox) -> dict[int, float]:
    return {number: going.share for number, going in outbox._going.items()}


def looked_for(outbox: Outbox) -> float:
    """Return when something is due next, by a look at everything."""
    dues = (e.due for n, e in outbox._entries.items() if may_go(outbox, n, shares(outbox)))
    return min(dues, default=math.inf)


def looked_at(outbox: Outbox, now: float) -> list[int]:
    """Return what is to be offered now, by a look at everything."""
    going, taken = shares(outbox), []
    for priority, number in sorted(
        (e.priority, n) for n, e in outbox._entries.items() if e.due <= now
    ):
        if may_go(outbox, number, going):
            is_stat = priority is Priority.STAT
            share = max(outbox._entries[number].size, 1 / outbox._packed)
            going[number] = 0.0 if is_stat else share
            taken.append(number)
    return taken


def test_what_is_picked_does_not_cost_more_the_more_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20,000 is looked at a few times in all, and not each time that one is picked."""
    looks = 0
    plain = Outbox._is_later

    def counted(self: Outbox, due: float, number: int) -> bool:
        nonlocal looks
        looks += 1
        return plain(self, due, number)

    monkeypatch.setattr(Outbox, "_is_later", counted)
    outbox = outbox_of(*(row(n) for n in range(1, 20_001)))
    for n in range(1, 20_001):
        assert outbox.take_next(1.0) == n
        assert outbox.next_due == 0.0 or n == 20_000
        outbox.offered(n, row(n, state=State.DELIVERED), 1.0)
    assert outbox.next_due == math.inf
    assert looks < 100_000


def test_what_is_put_off_again_and_again_takes_bounded_room() -> None:
    outbox = outbox_of(row(1), row(2))
    for n in range(10_000):
        for number in outbox.take_due(1000.0 * n):
            outbox.failed(number, row(number), 1000.0 * n)
        outbox.rung(row(1).transfer_id, 1000.0 * n + 1)
    assert sum(map(len, outbox._later.values())) + len(outbox._ready) < 2000


@given(st.integers(1, 3), st.data())
def test_whatever_happens_what_waits_is_under_way_or_due(at_once: int, data: st.DataObject) -> None:
    outbox = outbox_of(at_once=at_once)
    rows: dict[int, Transfer] = {}
    going: set[int] = set()
    now = 0.0
    for _ in range(20):
        now += data.draw(st.sampled_from([0.0, 0.3, 2.0, 700.0]))
        number = data.draw(st.integers(1, 5))
        new = row(
            number,
            state=data.draw(st.sampled_from([State.PENDING, State.HELD, State.DELIVERED])),
            priority=Priority(number % 3),
            bytes_total=2**30 if number % 2 else 1000,
        )
        match data.draw(st.sampled_from(["changed", "rung", "ended", "take"])):
            case "changed" if rows.get(number, new).state is not State.DELIVERED:
                rows[number] = new
                outbox.changed(new, now)
            case "rung":
                waits = number in rows and rows[number].state is not State.DELIVERED
                assert outbox.rung(new.transfer_id, now) == waits
            case "ended" if number in going:
                going.discard(number)
                if rows[number].state is not State.DELIVERED:
                    rows[number] = new
                ended = data.draw(st.sampled_from([outbox.offered, outbox.failed]))
                ended(number, rows[number], now)
            case _:
                was_due = outbox.next_due <= now
                expected = looked_at(outbox, now)
                taken = outbox.take_due(now, most=data.draw(st.sampled_from([None, 1])))
                assert taken == expected[: len(taken)]
                assert bool(taken) == was_due == bool(expected)
                assert not going & set(taken)
                going |= set(taken)
        assert max(outbox.next_due, now) == max(looked_for(outbox), now)
        waiting = {n for n, one in rows.items() if one.state is not State.DELIVERED}
        assert {n for n in range(1, 6) if n in outbox} == waiting
        routine = [n for n in going if n % 3 != Priority.STAT]
        assert sum(1 if n % 2 else 1 / 8 for n in routine) <= at_once + 1
        if waiting - going and not going:
            assert outbox.next_due <= now + 1.5 * LONGEST_HELD_PAUSE
