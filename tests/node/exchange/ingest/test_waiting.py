"""What of imports waits for a person is listed, counted and decided, and lists are recorded."""

from typing import Any

import pytest

from node.errors import NotFound
from node.exchange.ingest.waiting import WaitingImports
from tests.support.actors import actor
from tests.support.recorded import Recorded, RecordedTrail

ALICE = actor("alice")


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


async def test_list_that_fails_is_not_recorded() -> None:
    missing: Any = Recorded(list_held=NotFound("x"), list_imports=NotFound("x"))
    trail = RecordedTrail()
    with pytest.raises(NotFound):
        await WaitingImports(missing, trail).held(ALICE)
    with pytest.raises(NotFound):
        await WaitingImports(missing, trail).unfinished(ALICE)
    assert not trail.calls
