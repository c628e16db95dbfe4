"""Three hundred connections of a stranger at once, at every door, for a minute."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.relays import our_relay
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.routes.dialing import Dialer
from tests.integration.attacks.connections import Crowd, make_peers, pin, started, way_of
from tests.support.loop import run
from tests.support.nodes import Directory, Node

pytestmark = [pytest.mark.integration, pytest.mark.alone]
STRANGERS, SECONDS, LOST_SECONDS = 300, 60, 5.0


def _strangers(address: str, source: int = 66) -> Crowd:
    """Strangers that are somewhere else than the honest."""
    return started("strangers", address=address, count=STRANGERS, seconds=SECONDS, source=source)


def _attacked(crowds: list[Crowd]) -> None:
    for crowd in crowds:
        assert crowd.ended()["connected"] > STRANGERS


@contextmanager
def _asked_all_the_time(
    ask: Callable[[], object], pause_seconds: float = 0.5
) -> Iterator[list[float]]:
    """Ask again and again for the time of the block; the list gets how long each time took."""
    took, end = list[float](), threading.Event()

    def go_on() -> None:
        while not end.wait(pause_seconds):
            started = time.monotonic()
            ask()
            took.append(time.monotonic() - started)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield took
    finally:
        end.set()
        thread.join()


def test_strangers_at_both_doors_of_a_node_take_no_peer_its_connection(tmp_path: Path) -> None:
    """Peers that stay, stay; one that comes gets in; who is removed is out; new ones are told."""
    node = Node(tmp_path, "victim", "Victim Hospital")
    node.make()
    node.start()
    try:
        peers = make_peers(tmp_path, 12)
        identity = pin(node, peers)
        crowds = [_strangers(node.addresses[door]) for door in ("peer", "introduction")]
        staying = started("staying", seconds=SECONDS, **way_of(node, identity, peers[:8]))
        coming = started("reconnecting", rounds=40, **way_of(node, identity, peers[8:]))
        door = node.addresses["introduction"]

        def ask() -> None:
            run(lambda: IntroductionClient(Dialer()).fetch_statements(door))

        with _asked_all_the_time(ask, 3):  # it answers thirty times a minute
            for peer in make_peers(tmp_path, 5, first=100):
                peer.pair_with(node)
                way = way_of(node, identity, [peer])
                came = started("reconnecting", rounds=1, **way).ended()
                assert came["lost_seconds"] < LOST_SECONDS, came
                node.run("peers", "remove", peer.name, "--yes")
                gone = started("staying", seconds=1, **way).ended()
                assert gone["answered"] == [0], gone
        for crowd in (staying, coming):
            found = crowd.ended()
            assert found["lost_seconds"] < LOST_SECONDS, found
        assert set(found["answered"]) == {40}, found
        _attacked(crowds)
        assert node.json("status")
    finally:
        assert node.stop() == 0


def test_strangers_at_a_directory_take_no_node_its_connection(tmp_path: Path) -> None:
    directory, node = Directory(tmp_path), Node(tmp_path, "clinic", "Great Falls Clinic")
    other = Node(tmp_path, "late", "Billings Hospital")
    try:
        directory.make()
        directory.start()
        for one in (node, other):
            one.make()
            one.start()
        directory.enroll(node)
        crowds = [_strangers(directory.address), _strangers(directory.relay)]
        states = list[str]()

        def look() -> None:
            states.append(node.json("networks")["networks"][0]["state"])

        with _asked_all_the_time(look):
            directory.enroll(other)
            _attacked(crowds)
        assert set(states) == {"connected"}
        assert directory.json("status")
    finally:
        for server in (node, other, directory):
            assert server.stop() == 0


def test_strangers_at_a_relay_take_no_pair_its_connection() -> None:
    with our_relay() as relay:
        source, sink = relay.join()
        crowds = [_strangers(relay.address)]

        def carry() -> None:
            source.sendall(b"x" * 1000)
            got = b""
            while len(got) < 1000:
                got += sink.recv(1000)
            for end in relay.join():
                end.close()

        with _asked_all_the_time(carry) as took:
            _attacked(crowds)
        for end in (source, sink):
            end.close()
        assert max(took) < LOST_SECONDS, took
