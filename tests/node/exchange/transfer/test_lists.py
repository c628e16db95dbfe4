"""Transfers as people see them: listed, watched, and why each waits."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import trio

from node.domain.connections import ConnectionState, PeerWay
from node.domain.transfers import State, Transfer
from node.exchange.events import Feed
from node.exchange.transfer.lists import TransferLists
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.actors import actor
from tests.support.recorded import RecordedTrail

ALICE, NO_WAY = actor("alice"), PeerWay()


class Rows:
    """Two pages of transfers."""

    def __init__(self, *pages: list[Transfer]) -> None:
        self._pages = pages
        self.asked: list[Any] = []

    async def search(self, **wanted: Any) -> AsyncGenerator[list[Transfer]]:
        self.asked.append(wanted)
        for page in self._pages:
            await trio.lowlevel.checkpoint()
            yield page

    async def numbered(self, numbers: Any) -> Any:
        return ("numbered", numbers)

    async def latest(self) -> Any:
        return "latest"

    async def rates(self) -> Any:
        return {}

    async def open_ones(self) -> Any:
        return []


def make(rows: Rows, *, way: PeerWay = NO_WAY, peer: Any = None) -> tuple[Any, RecordedTrail]:
    trail = RecordedTrail()
    running: Any = SimpleNamespace(is_carried=lambda _: False, is_yielding=lambda _: False)
    ways: Any = SimpleNamespace(way=lambda _: way)
    pins: Any = SimpleNamespace(pin_of=lambda _: peer, why_distrusted=lambda one: one.distrusted)
    return TransferLists(rows, running, Feed(), ways, pins, trail), trail


async def test_list_that_shows_whom_offers_are_of_is_recorded() -> None:
    offer, plain = make_row(id=2, summary=object()), make_row()
    lists, trail = make(Rows([offer], [plain]))
    found = [
        row
        async for page in lists.search(ALICE, open_only=True, held_only=False, limit=5)
        for row in page
    ]
    assert found == [offer, plain]
    assert trail.calls == [("offers.listed", ({}, ALICE))]
    lists, trail = make(Rows([plain]))
    async for _ in lists.search(ALICE, open_only=False, held_only=False, limit=0):
        pass
    assert not trail.calls


async def test_watched_are_those_of_the_numbers_or_the_latest() -> None:
    lists, _ = make(Rows())
    assert await lists.watched({3, 1}) == ("numbered", [1, 3])
    assert await lists.watched(frozenset()) == "latest"


def test_reason_tells_of_the_peer_and_the_way_to_it() -> None:
    row = make_row(state=State.PENDING)
    removed = SimpleNamespace(is_removed=True, distrusted="")
    assert "was removed here" in make(Rows(), peer=removed)[0].reason(row)
    assert "was removed here" in make(Rows(), peer=None)[0].reason(row)
    revoked = SimpleNamespace(is_removed=False, distrusted="it was revoked")
    assert make(Rows(), peer=revoked)[0].reason(row).startswith("it was revoked. Pair")
    trusted = SimpleNamespace(is_removed=False, distrusted="")
    away = PeerWay(ConnectionState.UNREACHABLE, problem="it is silent", round_trip_seconds=0.2)
    lists, _ = make(Rows(), way=away, peer=trusted)
    assert lists.reason(row) == "it is silent; it goes on by itself"
    assert lists.round_trip_seconds(row) == 0.2
