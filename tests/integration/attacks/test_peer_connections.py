"""Peers that come at once, and peers that take more than their share of connections and calls."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.nodes import Node
from node.documents.identity import Identity
from tests.integration.attacks.connections import make_peers, pin, started, way_of
from tests.integration.hostile import HostilePeer

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.slow]
PEERS, ROUNDS, PROCESSES = 40, 40, 2
LOST_SECONDS = 5.0


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
        assert found["longest_seconds"] < LOST_SECONDS, found
    assert node.process is not None
    assert node.process.poll() is None


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
        assert came["longest_seconds"] < LOST_SECONDS, came
        node.run("peers", "remove", peer.name)
        gone = started("staying", seconds=1, **way_of(node, identity, [peer])).ended()
        assert gone["answered"] == [0], gone
        if all(crowd.process.poll() is not None for crowd in crowds):
            break
    for crowd in crowds:
        found = crowd.ended()
        assert set(found["answered"]) == {ROUNDS}, found
        assert found["longest_seconds"] < LOST_SECONDS, found
    assert node.process is not None
    assert node.process.poll() is None
