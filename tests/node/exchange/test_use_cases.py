"""Use cases that record what people look at: what is in the log, and in which order."""

from typing import Any

import pytest

from node.domain.query import Level, make_query
from node.domain.retention import Step
from node.errors import NotFound, StoreError, UsageError
from node.exchange.catalogue import Catalogue
from node.exchange.ingest.waiting import WaitingImports
from node.exchange.keeping import Keeping
from node.exchange.studies import Studies
from node.system import clock
from tests.support.actors import actor
from tests.support.recorded import Recorded, RecordedTrail

ALICE = actor("alice")
QUERY = make_query(Level.STUDY, {"PatientID": "P1"})


@pytest.mark.parametrize("method", ["studies", "find"])
async def test_question_is_recorded_before_its_answers_are_given(method: str) -> None:
    store: Any = Recorded(studies=["a", "b"], find=["a", "b"], note_queried=None)
    assert await getattr(Catalogue(store), method)(QUERY, ALICE) == ["a", "b"]
    assert store.calls == [(method, (QUERY,)), ("note_queried", (QUERY, 2, ALICE))]


@pytest.mark.parametrize("method", ["studies", "find"])
async def test_question_that_fails_or_cannot_be_recorded_shows_nothing(method: str) -> None:
    store: Any = Recorded(studies=UsageError("x"), find=UsageError("x"), note_queried=None)
    with pytest.raises(UsageError):
        await getattr(Catalogue(store), method)(QUERY, ALICE)
    assert store.names == [method]
    store = Recorded(studies=["a"], find=["a"], note_queried=StoreError("full"))
    with pytest.raises(StoreError):
        await getattr(Catalogue(store), method)(QUERY, ALICE)


async def test_study_is_recorded_before_it_is_shown() -> None:
    rows: Any = Recorded(get=("chosen", ["source"]), note_shown=None, sources=["s"], delete="gone")
    facilities: Any = type("F", (), {"origin_named": staticmethod(str.upper)})
    studies: Any = Studies(rows, facilities)
    assert await studies.look_at("s1", ALICE) == ("chosen", ["source"])
    assert rows.calls == [("get", ("s1",)), ("note_shown", (["source"], ALICE))]
    assert await studies.sources([]) == ["s"]
    assert await studies.delete("s1", "billings", ALICE) == "gone"
    assert rows.calls[-1] == ("delete", ("s1", "BILLINGS", ALICE))


async def test_study_that_cannot_be_recorded_is_not_shown() -> None:
    rows: Any = Recorded(get=("chosen", ["source"]), note_shown=StoreError("full"))
    with pytest.raises(StoreError):
        await Studies(rows, rows).look_at("s1", ALICE)


async def test_what_waits_of_imports_is_listed_counted_and_decided() -> None:
    rows: Any = Recorded(
        list_held=["h1", "h2"],
        held_of=["h1"],
        decide_held="package",
        list_imports=[("i1", True), ("i2", False), ("i3", False)],
        unfinished_of=[2],
        discard_import=4,
    )
    trail = RecordedTrail(rows.calls)
    waiting: Any = WaitingImports(rows, trail)
    assert await waiting.held(ALICE) == ["h1", "h2"]
    assert rows.calls == [("list_held", ()), ("held.listed", ({"held": 2}, ALICE))]
    assert await waiting.unfinished(ALICE) == [("i1", True), ("i2", False), ("i3", False)]
    assert rows.calls[-1] == ("imports.listed", ({"imports": 3}, ALICE))
    assert await waiting.count_unfinished() == 2
    assert await waiting.held_of("1.2", "origin") == ["h1"]
    assert await waiting.unfinished_of("1.2", "origin") == [2]
    assert await waiting.decide(7, release=True, actor=ALICE) == "package"
    assert rows.calls[-1] == ("decide_held", (7, True, ALICE))
    assert await waiting.discard(3, ALICE) == 4


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
    assert await kept.check(read_data=True, tell=print) == 2
    assert await kept.counts() == {"studies": 1}
    missing: Any = Recorded(list_held=NotFound("x"))
    with pytest.raises(NotFound):
        await WaitingImports(missing, RecordedTrail()).held(ALICE)
