"""Peers that come at once, and peers that take more than their share of connections and calls."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from node.documents.identity import Identity
from node.documents.messages import Collect, Problem
from node.domain.ids import TransferId
from node.errors import PeerTimeout
from node.federation.connections import wire
from node.federation.connections.peer_service import MAX_CARRIES
from node.rpc.calling import Stream
from tests.integration.attacks.connections import make_peers, pin, started, way_of
from tests.support.hostile import CARRY, HostilePeer
from tests.support.loop import run
from tests.support.nodes import Node, wait_until

pytestmark = pytest.mark.integration
PEERS, ROUNDS, PROCESSES = 40, 40, 2
LOST_SECONDS = 5.0
OF_PEER = 8


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"), "victim", "Victim Hospital")
    node.make()
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def peers(node: Node, tmp_path_factory: pytest.TempPathFactory) -> list[HostilePeer]:
    return make_peers(tmp_path_factory.mktemp("peers"), PEERS)


@pytest.fixture(scope="module")
def identity(node: Node, peers: list[HostilePeer]) -> Identity:
    return pin(node, peers)


@pytest.mark.alone
def test_forty_peers_that_reconnect_forty_times_are_all_served(
    node: Node, peers: list[HostilePeer], identity: Identity
) -> None:
    """As after a restart, all at once; two handshakes side by side once ended the process."""
    crowds = [
        started("reconnecting", rounds=ROUNDS, **way_of(node, identity, peers[n::PROCESSES]))
        for n in range(PROCESSES)
    ]
    for crowd in crowds:
        found = crowd.ended()
        assert set(found["answered"]) == {ROUNDS}, found
        assert found["lost_seconds"] < LOST_SECONDS, found
    assert node.process is not None
    assert node.process.poll() is None


@pytest.mark.alone
def test_peers_are_added_and_removed_while_forty_reconnect(
    node: Node, peers: list[HostilePeer], identity: Identity, tmp_path: Path
) -> None:
    """Every change replaces what handshakes on other threads are about to use."""
    crowds = [
        started("reconnecting", rounds=ROUNDS, **way_of(node, identity, peers[n::PROCESSES]))
        for n in range(PROCESSES)
    ]
    others = make_peers(tmp_path, 8, first=100)
    for peer in others:
        peer.pair_with(node)
        came = started("reconnecting", rounds=1, **way_of(node, identity, [peer])).ended()
        assert came["answered"] == [1], came
        assert came["lost_seconds"] < LOST_SECONDS, came
        node.run("peers", "remove", peer.name, "--yes")
        gone = started("staying", seconds=1, **way_of(node, identity, [peer])).ended()
        assert gone["answered"] == [0], gone
        if all(crowd.process.poll() is not None for crowd in crowds):
            break
    for crowd in crowds:
        found = crowd.ended()
        assert set(found["answered"]) == {ROUNDS}, found
        assert found["lost_seconds"] < LOST_SECONDS, found
    assert node.process is not None
    assert node.process.poll() is None


@pytest.mark.alone
def test_one_peer_with_three_hundred_connections_locks_no_other_out(
    node: Node, peers: list[HostilePeer], identity: Identity
) -> None:
    """Each with calls whose request never comes: it has eight, and a share of the calls."""
    hog, *others = peers[:9]
    way = way_of(node, identity, [hog])
    before = _connections(node)
    crowd = started("hogging", seconds=40, **{**way, "peers": way["peers"] * 300})
    wait_until(lambda: len(_connections(node) - before) > OF_PEER, "the attack does not begin")
    staying = started("staying", seconds=25, **way_of(node, identity, others[:4]))
    way = way_of(node, identity, others[4:])
    found = started("reconnecting", rounds=10, limit_seconds=60, **way).ended()
    assert set(found["answered"]) == {10}, found
    assert found["lost_seconds"] < LOST_SECONDS, found
    found = staying.ended()
    assert found["lost_seconds"] < LOST_SECONDS, found
    assert sum(crowd.ended()["answered"]) > 0
    wait_until(lambda: len(_connections(node) - before) <= OF_PEER, "its connections stay")
    assert node.json("status")


@pytest.mark.slow
def test_transfers_that_nobody_begins_end_and_their_places_come_back(
    node: Node, peers: list[HostilePeer], identity: Identity
) -> None:
    """Signs of life alone hold a place for a minute only."""
    peer = peers[20]

    async def attack() -> None:
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(peer.channel(node, identity))
            streams = [
                await stack.enter_async_context(channel.stream(CARRY)) for _ in range(MAX_CARRIES)
            ]
            for stream in streams:
                await stream.write(wire.heartbeat())
            for stream in streams:
                with pytest.raises(PeerTimeout):
                    await _read_to_end(stream)
            async with peer.carry(channel, identity) as link:
                await link.send(Collect(TransferId.new()))
                assert isinstance(await link.receive(), Problem)

    async def work() -> None:
        with trio.fail_after(150):
            await attack()

    run(work)


async def _read_to_end(stream: Stream[Any, Any]) -> None:
    while await stream.read() is not None:
        pass


def _connections(node: Node) -> set[str]:
    """Return the other ends of the connections at a node's peer service."""
    port = int(node.addresses["peer"].rpartition(":")[2])
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {line[2] for line in lines if line[3] == "01" and line[1].endswith(f":{port:04X}")}
