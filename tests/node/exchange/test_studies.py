"""A study is in the log before it is shown, and deleted of the origin that a person named."""

from typing import Any

import pytest

from node.errors import Conflict, StoreError
from node.exchange.studies import Studies
from tests.support.actors import actor
from tests.support.recorded import Recorded

ALICE = actor("alice")


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


async def test_origin_that_several_are_called_deletes_nothing() -> None:
    def origin_named(_: str) -> str:
        raise Conflict("2 facilities are called so")

    rows: Any = Recorded(delete="gone")
    facilities: Any = type("F", (), {"origin_named": staticmethod(origin_named)})
    with pytest.raises(Conflict):
        await Studies(rows, facilities).delete("s1", "billings", ALICE)
    assert rows.calls == []
