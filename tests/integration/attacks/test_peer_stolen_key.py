"""A thief of a node's key, after its facility has replaced the node."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

import pytest
from emix.exchange.v1 import exchange_pb2 as pb

from node.app.home import Home, Unlocked, unlock
from node.crypto.certificates import server_name
from node.documents.identity import Identity, Profile, make_statements
from node.documents.messages import Problem
from node.errors import NodeError
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.routes.dialing import Dialer
from node.rpc.calling import open_channel
from node.rpc.credentials import client_credentials
from tests.integration.attacks.identity import alarms, exported
from tests.support.dicom_files import study_uid, write_study
from tests.support.hostile import HELLO, WATCH, HostilePeer, forge, hello
from tests.support.loop import run
from tests.support.nodes import CommandFailed, Directory, Node, pair, wait_until

pytestmark = pytest.mark.integration


@dataclass
class World:
    """A facility that replaces its node, its peer, and what a thief took before."""

    facility: Node
    peer: Node
    directory: Directory
    stolen: Path

    def keys(self) -> Unlocked:
        return unlock(Home(self.stolen), None)

    def statements(self) -> bytes:
        """What the thief states: newer than anything, signed with the stolen key."""
        keys = self.keys()
        return make_statements(
            keys.secrets.node_key,
            keys.signer.signer,
            [tls.certificate_der for tls in keys.secrets.tls],
            keys.secrets.seal_keys[0].public,
            Profile(self.facility.display_name, ("thief.example:1",), (), int(time()) + 300),
        )


def is_connected(node: Node) -> bool:
    return bool(node.json("peers")["peers"][0]["state"] == "connected")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("stolen")
    facility = Node(folder, "facility", "Robbed Clinic")
    peer = Node(folder, "peer", "Friendly Hospital")
    directory = Directory(folder)
    servers = (directory, facility, peer)
    try:
        for server in servers:
            server.make()
            server.start()
        pair(facility, peer)
        directory.enroll(facility, peer)
        facility.run("import", str(write_study(folder / "in", 1, 1)))
        facility.run("send", study_uid(1), peer.display_name, "--wait")
        facility.stop()
        shutil.copytree(facility.home, folder / "thief", ignore=shutil.ignore_patterns("*.sock"))
        facility.run("node", "replace", "--recovery-kit", str(facility.kit))
        facility.start()
        wait_until(lambda: is_connected(facility) and is_connected(peer), "no connection", 60)
        yield World(facility, peer, directory, folder / "thief")
    finally:
        for server in servers:
            server.stop()


def test_replaced_node_is_known_by_peer_and_directory_without_anybodys_help(world: World) -> None:
    facility = world.facility
    facility.run("send", study_uid(1), world.peer.display_name, "--again", "--wait")
    [network] = facility.json("networks")["networks"]
    assert (network["standing"], network["state"]) == ("member", "connected")
    assert Identity.decode(exported(facility)).facility_id == world.keys().signer.facility_id


def test_old_node_is_refused_by_peers(world: World) -> None:
    keys = world.keys()
    theirs = Identity.decode(exported(world.peer))

    async def work() -> None:
        async with open_channel(
            world.peer.addresses["peer"],
            credentials=client_credentials(keys.secrets.tls[0], theirs.certificates),
            server_name=server_name(theirs.node_id),
        ) as channel:
            with pytest.raises(NodeError):
                await channel.unary(HELLO, hello(), timeout=10)
            with pytest.raises(NodeError):
                async with channel.stream(WATCH, pb.WatchRequest()) as watch:
                    await watch.read()

    run(work)


def test_old_node_presents_itself_in_vain_and_raises_an_alarm(world: World) -> None:
    async def work() -> None:
        with pytest.raises(NodeError):
            await IntroductionClient(Dialer()).present_statements(
                world.peer.addresses["introduction"], world.statements(), ()
            )

    run(work)
    assert any("its old node key is in use" in alarm for alarm in alarms(world.peer))
    file = world.stolen.with_suffix(".emix")
    file.write_bytes(world.statements())
    with pytest.raises(CommandFailed, match="has replaced the node"):
        world.peer.run("peers", "pair", str(file))
    world.facility.stop()
    world.facility.start()
    wait_until(lambda: is_connected(world.facility) and is_connected(world.peer), "cut off", 60)


def test_package_that_the_old_key_signs_now_is_refused_from_others_too(
    world: World, tmp_path: Path
) -> None:
    """An accomplice that is paired delivers it, with the robbed facility as its origin."""
    accomplice = HostilePeer(tmp_path, "accomplice")
    identity = accomplice.pair_with(world.peer)
    origin = HostilePeer(tmp_path, "origin")
    origin.keys = world.keys()
    forgery = forge(accomplice, identity, 77, origin=origin)

    async def work() -> object:
        async with (
            accomplice.channel(world.peer, identity) as channel,
            accomplice.carry(channel, identity) as link,
        ):
            return await forgery.send(link)

    last = run(work)
    assert isinstance(last, Problem)
    assert last.code == "bad-manifest"
    assert not world.peer.json("studies", study_uid(77))["studies"]
    world.peer.run("peers", "remove", "accomplice", "--yes")


def test_old_node_is_refused_by_the_directory_for_good(world: World) -> None:
    """Also after a restart of the directory, while the new node is away."""
    thief = Node(world.stolen.parent, "thief", "Robbed Clinic")
    world.facility.stop()
    world.directory.stop()
    world.directory.start()
    text = (thief.home / "emix.toml").read_text()
    for port in (world.facility.addresses or {}).values():
        text = text.replace(port, "127.0.0.1:0")
    try:
        thief.start()
        wait_until(
            lambda: "has replaced this node" in thief.json("networks")["networks"][0]["problem"],
            "the directory lets it in",
            60,
        )
        assert any(
            "a replaced node of facility" in a for a in world.directory.json("status")["alarms"]
        )
    finally:
        thief.stop()
        world.facility.start()
