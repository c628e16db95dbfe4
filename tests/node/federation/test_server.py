"""The peer service's places: one peer does not take those of the others."""

from typing import Any

import pytest
import trio
import trio.testing

from node.domain.ids import FacilityId
from node.errors import PeerBusy
from node.federation.server import MAX_CARRIES, ExchangeServer

A, B = FacilityId(b"a" * 32), FacilityId(b"b" * 32)
NOBODY: Any = None


def make_server() -> ExchangeServer:
    return ExchangeServer(NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY)


async def test_newer_watch_of_a_peer_ends_the_older_and_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server, ended = make_server(), dict[str, float]()

    async def watch(name: str, peer: FacilityId) -> None:
        with server._only_watch(peer):
            await trio.sleep(100)
        ended[name] = trio.current_time() - started

    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        for name, peer in (("first", A), ("other", B), ("second", A)):
            nursery.start_soon(watch, name, peer)
            await trio.sleep(1)
    assert ended == pytest.approx({"first": 2, "other": 101, "second": 102})
    assert not server._watches


async def test_peer_has_so_many_transfers_at_once_and_gets_its_places_back() -> None:
    server = make_server()
    places = [server._place(A) for _ in range(MAX_CARRIES)]
    for place in places:
        place.__enter__()
    with pytest.raises(PeerBusy, match="too many transfers"):
        server._place(A).__enter__()
    with server._place(B):
        pass
    for place in places:
        place.__exit__(None, None, None)
    with server._place(A):
        pass
    assert not server._carries
