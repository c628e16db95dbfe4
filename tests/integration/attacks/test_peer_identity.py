"""A paired peer that takes another's place: its node, its certificate, what it has signed."""

from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from node.documents.identity import Profile, make_statements
from node.documents.signed import certify_node
from node.errors import NodeError
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.routes.dialing import Dialer
from tests.integration.attacks.identity import (
    alarms,
    certified_anew,
    exported,
    facility_key_of,
)
from tests.support.hostile import HELLO, HostilePeer, hello
from tests.support.loop import run
from tests.support.nodes import CommandFailed, Node, two_nodes, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as pair:
        yield pair


def paired_with(node: Node, folder: Path, name: str) -> HostilePeer:
    """Return a hostile peer that is pinned, by statements that everything else is newer than."""
    peer = HostilePeer(folder, name)
    keys = peer.keys
    file = folder / "old.emix"
    file.write_bytes(
        make_statements(
            keys.secrets.node_key,
            keys.signer.signer,
            [peer.tls.certificate_der],
            keys.secrets.seal_keys[0].public,
            Profile(name, (), (), 1),
        )
    )
    node.run("peers", "pair", str(file))
    return peer


def hold_connected(victim: Node, friend: Node) -> None:
    """Check that a friend that comes back is known, and known as itself."""
    friend.stop()
    friend.start()
    name = friend.display_name
    for node in (victim, friend):
        wait_until(
            lambda node=node: all(
                p["state"] == "connected"
                for p in node.json("peers")["peers"]
                if p["display_name"] in (name, victim.display_name)
            ),
            f"{node.display_name} is cut off",
        )


def test_peer_that_certifies_anothers_node_takes_nothing_from_it(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    """It presents the other's own signed parts under a certificate of its own."""
    friend, victim = nodes
    peer = paired_with(victim, tmp_path, "thief")
    forged = certified_anew(exported(friend), facility_key_of(tmp_path, peer))

    async def work() -> None:
        introducer = IntroductionClient(Dialer())
        with pytest.raises(NodeError):
            await introducer.present_statements(victim.addresses["introduction"], forged, ())

    run(work)
    hold_connected(victim, friend)
    assert any(str(peer.facility) in alarm for alarm in alarms(victim))


def test_same_in_a_hello_raises_the_alarm_too(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    friend, victim = nodes
    peer = paired_with(victim, tmp_path, "caller")
    identity = peer.pair_with(victim)
    request = hello()
    request.statements = certified_anew(exported(friend), facility_key_of(tmp_path, peer))

    async def work() -> None:
        async with peer.channel(victim, identity) as channel:
            with pytest.raises(NodeError, match="not its own"):
                await channel.unary(HELLO, request, timeout=10)

    run(work)
    hold_connected(victim, friend)
    assert any(str(peer.facility) in alarm for alarm in alarms(victim))


def test_statements_with_anothers_node_are_not_paired_with(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    friend, victim = nodes
    peer = HostilePeer(tmp_path, "by-file")
    file = tmp_path / "forged.emix"
    file.write_bytes(certified_anew(exported(friend), facility_key_of(tmp_path, peer)))
    with pytest.raises(CommandFailed, match="not its own"):
        victim.run("peers", "pair", str(file))
    hold_connected(victim, friend)


def test_node_that_two_facilities_claim_with_its_consent_is_the_firsts(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    """Two facilities of one attacker: whose connection it is must never be a question."""
    _, victim = nodes
    first = paired_with(victim, tmp_path, "first")
    second = HostilePeer(tmp_path, "second")
    key = first.keys.secrets.node_key
    shared = make_statements(
        key,
        certify_node(facility_key_of(tmp_path, second), key, time()),
        [first.tls.certificate_der],
        first.keys.secrets.seal_keys[0].public,
        Profile("second", (), (), int(time())),
    )
    file = tmp_path / "second.emix"
    file.write_bytes(shared)
    with pytest.raises(CommandFailed, match="node key or TLS certificate is facility"):
        victim.run("peers", "pair", str(file))
    assert any(str(second.facility) in alarm for alarm in alarms(victim))
    # Nor later: pinned with a node of its own, it presents the shared one.
    second.pair_with(victim)
    later = Profile("second", (), (), int(time()) + 60)
    moved = make_statements(
        key,
        certify_node(facility_key_of(tmp_path, second), key, time()),
        [first.tls.certificate_der],
        first.keys.secrets.seal_keys[0].public,
        later,
    )

    async def work() -> None:
        introducer = IntroductionClient(Dialer())
        with pytest.raises(NodeError):
            await introducer.present_statements(victim.addresses["introduction"], moved, ())
        async with first.channel(victim, first.pair_with(victim)) as channel:
            await channel.unary(HELLO, hello(), timeout=10)

    run(work)
