"""The peer service's places: one peer does not take those of the others."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from node.crypto.certificates import make_tls_identity
from node.documents.identity import Identity
from node.documents.messages import Collect
from node.documents.peers import Peer
from node.domain.connections import Route
from node.domain.ids import FacilityId, NodeId, TransferId
from node.errors import PeerBusy, PeerTimeout, PeerUntrusted, RemoteProtocolError
from node.federation.connections import wire
from node.federation.connections.capabilities import Capabilities
from node.federation.connections.link import GrpcLink
from node.federation.connections.peer_service import (
    BEGIN_SECONDS,
    HELLOS_A_MINUTE,
    MAX_CARRIES,
    WATCHES_A_SECOND,
    WATCHES_AT_ONCE,
    ExchangeServer,
)
from node.federation.connections.trust import Trust
from tests.node.federation.connections.test_supervisor import make_federation
from tests.support.hostile import HostilePeer

A, B = FacilityId(b"a" * 32), FacilityId(b"b" * 32)
NOBODY: Any = None


def make_server(trust: Any = NOBODY, exchange: Any = NOBODY, ways: Any = NOBODY) -> ExchangeServer:
    return ExchangeServer(
        trust, exchange, NOBODY, NOBODY, ways, NOBODY, NOBODY, NOBODY, Capabilities(()), NOBODY
    )


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


async def test_peer_opens_watches_at_a_pace(autojump_clock: trio.testing.MockClock) -> None:
    server, opened = make_server(), 0
    with trio.move_on_after(60):
        while True:
            await server._watching.turn(A)
            opened += 1
    assert opened <= WATCHES_AT_ONCE + 60 * WATCHES_A_SECOND + 1
    with trio.fail_after(1):
        await server._watching.turn(B)  # others wait for nothing


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


async def test_running_transfer_ends_when_its_peer_is_trusted_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was dialled and whoever dialled: each by itself, whatever the other side does."""
    identity = Identity.decode(HostilePeer(tmp_path).statements())
    trust = Trust(make_tls_identity(NodeId(bytes(32)), time()))
    peer = Peer(identity, "", "file", "somebody", time(), None, 0.0)
    begun = trio.Event()

    class Exchange:
        async def serve_link(self, _: object, *, is_first: bool) -> bool:
            begun.set()
            await trio.sleep_forever()

    exchange: Any = Exchange()
    ways: Any = SimpleNamespace(route_of=lambda _: Route.DIRECT)
    server = make_server(trust, exchange, ways)
    call: Any = SimpleNamespace(
        caller=peer, address="ipv4:127.0.0.1:1", read_bytes=None, write=None
    )

    async def dialled() -> None:
        with pytest.raises(PeerUntrusted):
            await server._carry(call)

    @asynccontextmanager
    async def link(*_: object) -> AsyncGenerator[None]:
        yield

    folder = tmp_path / "other"
    folder.mkdir()
    federation, _ = make_federation(folder)
    federation._trust = trust
    monkeypatch.setattr(federation._client, "carry", link)
    channel: Any = object()
    connection = federation.connection(peer.facility_id)
    connection.channel, connection.route = channel, Route.DIRECT

    async def carry() -> None:
        async with federation.carry(peer.facility_id):
            begun.set()
            await trio.sleep_forever()

    async def has_dialled() -> None:
        with pytest.raises(PeerUntrusted):
            await carry()

    for work in (dialled, has_dialled):
        begun = trio.Event()
        trust.update([peer])
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await begun.wait()
                trust.update([])


async def test_peer_that_says_hello_again_and_again_is_refused() -> None:
    server = make_server()
    request = SimpleNamespace(min_version=9, max_version=9)
    call: Any = SimpleNamespace(caller=SimpleNamespace(facility_id=A), request=request)
    refused = 0
    for _ in range(2 * HELLOS_A_MINUTE + 1):  # whichever minutes they are in
        try:
            await server._hello(call)
        except PeerBusy:
            refused += 1
        except RemoteProtocolError:
            continue
    assert refused >= 1


async def test_transfer_that_nobody_begins_gives_its_place_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Signs of life alone do not keep it; after the first message it may take its time."""
    identity = Identity.decode(HostilePeer(tmp_path).statements())
    peer = Peer(identity, "", "file", "somebody", time(), None, 0.0)
    trust = Trust(make_tls_identity(NodeId(bytes(32)), time()))
    trust.update([peer])

    class Exchange:
        async def serve_link(self, link: GrpcLink, *, is_first: bool) -> bool:
            served.append(is_first)
            if await link.receive() is None:
                return False
            await trio.sleep(300)
            return True

    def caller(first: bytes, seconds: float) -> Any:
        async def read() -> bytes | None:
            if trio.current_time() > started + seconds:
                return None
            await trio.sleep(10)
            is_first = trio.current_time() < started + 15
            return first if is_first else wire.heartbeat()

        async def write(_: object) -> None:
            return

        return SimpleNamespace(
            caller=peer, address="ipv4:127.0.0.1:1", read_bytes=read, write=write
        )

    ways, exchange = SimpleNamespace(route_of=lambda _: Route.DIRECT), Exchange()
    server = make_server(trust, exchange, ways)
    served: list[bool] = []
    started = trio.current_time()
    with pytest.raises(PeerTimeout):
        await server._carry(caller(wire.heartbeat(), 1000))
    assert trio.current_time() - started == BEGIN_SECONDS
    started = trio.current_time()
    await server._carry(caller(wire.encode(Collect(TransferId.new())), 300))
    assert trio.current_time() - started > 300
    assert served == [True, True, False]
    started = trio.current_time()
    with pytest.raises(PeerTimeout):  # after one transfer another has to begin as soon
        await server._carry(caller(wire.encode(Collect(TransferId.new())), 1000))
    assert trio.current_time() - started == pytest.approx(10 + 300 + BEGIN_SECONDS)
