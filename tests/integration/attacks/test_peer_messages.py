"""A paired peer sends messages that are large, or that grow when they are parsed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.identity import Identity
from node.rpc.bounds import SMALL
from node.rpc.credentials import TrustSnapshot, server_credentials
from node.rpc.methods import methods
from node.rpc.serving import Call, Handler, Service, allow_all, serve
from tests.integration.attacks.messages import (
    MIB,
    MOST_MIB,
    MOST_MIB_OF_PEER,
    ask,
    flood,
    high_water,
    paired,
    swollen,
    within,
)
from tests.support.hostile import HostilePeer
from tests.support.loop import run
from tests.support.nodes import Node

pytestmark = pytest.mark.integration
_SERVICE = pb.DESCRIPTOR.services_by_name["ExchangeService"]
Victim = tuple[Node, HostilePeer, Identity]
_PATH = "/emix.exchange.v1.ExchangeService"


@pytest.fixture(scope="module")
def victim(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("victim")
    node = Node(folder, "node", "Great Falls Clinic")
    node.make()
    node.start()
    peer = HostilePeer(folder)
    yield node, peer, peer.pair_with(node)
    assert node.stop() == 0


@pytest.mark.parametrize(
    ("rpc", "body"),
    [
        ("Hello", swollen(6, 4 * MIB - 1024)),  # lists
        ("Hello", swollen(6, 2 * MIB)),
        ("Hello", swollen(6, SMALL.size)),
        ("GetList", within(1, b"x" * 2 * MIB)),
        ("Watch", within(15, b"x" * 2 * MIB)),
        ("Carry", within(1, within(5, swollen(1, 2 * MIB)))),  # wanted chunks
        ("Carry", within(1, swollen(11, 2 * MIB))),  # heartbeats
        ("Carry", swollen(1, 2 * MIB)),
    ],
)
def test_messages_of_a_peer_cost_little_memory(victim: Victim, rpc: str, body: bytes) -> None:
    node, peer, identity = victim
    assert node.process is not None
    with paired(node.addresses["peer"], peer, identity) as channel:
        flood(channel, f"{_PATH}/Hello", b"", 1)
        before = high_water(node.process.pid)
        ended = flood(channel, f"{_PATH}/{rpc}", body, 32)
    assert "OK" not in ended
    assert high_water(node.process.pid) - before < MOST_MIB_OF_PEER
    node.run("status")


def test_every_method_but_carry_takes_small_messages_only(
    victim: Victim,
) -> None:
    node, peer, identity = victim
    body = within(15, b"x" * SMALL.size)
    with paired(node.addresses["peer"], peer, identity) as channel:
        found = {m.name: ask(channel, m.path, body) for m in methods(_SERVICE)}
    del found["Carry"]
    for name, (status, details) in found.items():
        assert status == "INVALID_ARGUMENT", (name, status, details)
        assert f"at most {SMALL.size} are accepted" in details


def test_no_peer_is_heard_that_was_removed(victim: Victim) -> None:
    """A body that is no protobuf is refused for who brings it, not for its form."""
    node, _, identity = victim
    other = HostilePeer(Path(node.home).parent, "removed")
    other.pair_with(node)
    with paired(node.addresses["peer"], other, identity) as channel:
        assert (
            ask(channel, f"{_PATH}/Hello", b"\xff")[1] == "the message is not a valid HelloRequest"
        )
        node.run("peers", "remove", "removed", "--yes")
        found = {m.name: ask(channel, m.path, b"\xff") for m in methods(_SERVICE)}
    for name, (status, details) in found.items():
        assert status in ("PERMISSION_DENIED", "UNAVAILABLE"), (name, status, details)


def test_answers_of_a_peer_cost_little_memory(tmp_path: Path) -> None:
    """A peer that the node dials answers Hello with what swells when it is parsed."""
    node = Node(tmp_path, "node", "Great Falls Clinic")
    node.make()
    node.start()
    peer = HostilePeer(tmp_path)
    answered = trio.Event()
    times = 0

    async def hello(_: Call[Any]) -> pb.HelloResponse:
        nonlocal times
        times += 1
        if times == 3:  # the first two answers have been dealt with
            answered.set()
        return pb.HelloResponse.FromString(swollen(5, 4 * MIB - 1024))

    async def nothing(_: Call[Any]) -> None:
        return None

    async def work() -> int:
        identity = await trio.to_thread.run_sync(peer.pair_with, node)
        assert node.process is not None
        before = high_water(node.process.pid)
        handlers: dict[str, Handler] = {m.name: nothing for m in methods(_SERVICE)}
        trusted = TrustSnapshot(peer.tls, frozenset(identity.certificates))
        credentials = server_credentials(lambda: trusted)
        services = [Service(_SERVICE, {**handlers, "Hello": hello}, allow_all)]
        async with serve(services, "127.0.0.1:0", credentials=credentials) as port:
            file = tmp_path / "hostile.statements"
            file.write_bytes(peer.statements(f"127.0.0.1:{port}"))
            await trio.to_thread.run_sync(node.run, "peers", "pair", str(file))
            with trio.fail_after(60):
                await answered.wait()
            return high_water(node.process.pid) - before

    try:
        assert run(work) < MOST_MIB
        node.run("status")
    finally:
        assert node.stop() == 0
