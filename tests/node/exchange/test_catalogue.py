"""Every question about what is here is in the log before its answers are given."""

from typing import Any

import pytest

from node.domain.query import Level, make_query
from node.errors import StoreError, UsageError
from node.exchange.catalogue import Catalogue
from tests.support.actors import actor
from tests.support.recorded import Recorded

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
