"""The node's upkeep, as its admin asks for it: what leaves is in the log first."""

from typing import Any

import pytest

from node.domain.actors import Actor
from node.domain.retention import Step
from node.errors import Conflict, StoreError
from node.exchange.keeping import Keeping
from node.system import clock
from tests.support.actors import actor
from tests.support.recorded import Recorded, RecordedTrail

ALICE = actor("alice")


def keeping(store: Any = None, retention: Any = None, notes: Any = None) -> tuple[Any, list[Any]]:
    calls = store.calls if store else []
    return Keeping(store, retention, notes, RecordedTrail(calls)), calls


async def test_backup_is_in_the_log_before_its_first_piece() -> None:
    store = Recorded(backup=None)
    kept, calls = keeping(store)
    await kept.backup("/media/\udce4", {b"x"}, print, print, ALICE)
    assert [name for name, _ in calls] == ["node.backed-up", "backup"]
    assert calls[0][1] == ({"destination": "/media/\\xe4"}, ALICE)


class Retained:
    """Three old packages, two at once."""

    days = 30

    def __init__(self, calls: list[Any]) -> None:
        self._pages = {0: [1, 2], 2: [3], 3: []}
        self._calls = calls

    async def page(self, after: int) -> list[Any]:
        self._calls.append(("page", (after,)))
        return [type("Aged", (), {"number": n}) for n in self._pages[after]]

    async def step(self, _: Any) -> Step:
        return Step(1, 2)


async def test_retention_is_listed_in_pages_and_that_is_recorded_first() -> None:
    calls: list[Any] = []
    kept = Keeping(None, Retained(calls), None, RecordedTrail(calls))  # type: ignore[arg-type]
    assert kept.retention_days == 30
    found = [one.number async for page in kept.aged(ALICE) for one in page]
    assert found == [1, 2, 3]
    assert calls[0] == ("retention.listed", ({}, ALICE))
    assert [name for name, _ in calls[1:]] == ["page"] * 3
    assert await kept.apply_retention(ALICE) == Step(1, 2)


async def test_clock_is_confirmed_only_where_it_is_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Clock:
        jump = 0.0
        is_confirmed = False

        def confirm(self) -> None:
            self.is_confirmed = True

    one = Clock()
    monkeypatch.setattr(clock, "CLOCK", one)
    notes: Any = Recorded(confirmed=None)
    kept, _ = keeping(notes=notes)
    assert await kept.confirm_clock(ALICE) == 0.0
    assert not one.is_confirmed
    one.jump = 3600.0
    assert await kept.confirm_clock(ALICE) == 3600.0
    assert one.is_confirmed
    assert notes.calls == [("confirmed", ("a person", ALICE))]


async def test_check_and_counts_are_the_stores() -> None:
    store = Recorded(check=2, counts={"studies": 1})
    kept, _ = keeping(store)
    assert await kept.check(read_data=True, report=print) == 2
    assert await kept.counts() == {"studies": 1}


class FullLog(RecordedTrail):
    """An audit log that takes nothing."""

    async def append(self, kind: str, facts: dict[str, object], actor: Actor) -> None:
        raise StoreError("the disk is full")


async def test_what_cannot_be_recorded_neither_leaves_nor_is_shown() -> None:
    store: Any = Recorded(backup=None)
    seen: list[Any] = []
    kept = Keeping(store, Retained(seen), Recorded(), FullLog())
    with pytest.raises(StoreError):
        await kept.backup("/media", (), print, print, ALICE)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await anext(kept.aged(ALICE))
    assert (store.calls, seen) == ([], [])


async def test_backup_hands_on_what_its_writer_has_and_where_pieces_go() -> None:
    store: Any = Recorded(backup=None)
    kept, _ = keeping(store)
    await kept.backup("/media", {b"x"}, print, max, ALICE)
    assert store.calls[-1] == ("backup", (print, max, {b"x"}))


async def test_retention_that_a_suspect_clock_forbids_is_said_to_be() -> None:
    class Suspect(Retained):
        async def step(self, _: Any) -> Step:
            raise Conflict("the clock is suspect")

    kept: Any = Keeping(None, Suspect([]), None, RecordedTrail())  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        await kept.apply_retention(ALICE)
