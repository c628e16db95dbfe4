"""A paired peer that answers our calls with what no honest node would: the node lives on."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.identity import Identity, Profile, make_statements
from node.rpc.credentials import TrustSnapshot, server_credentials
from node.rpc.serving import Call, Service, allow_all, serve
from tests.support.hostile import HostilePeer
from tests.support.loop import run
from tests.support.nodes import Node

pytestmark = pytest.mark.integration
Handler = Callable[[Call[Any]], Awaitable[Any]]


async def _hello(_: Call[Any]) -> pb.HelloResponse:
    return pb.HelloResponse(version=1, time_milliseconds=int(time.time() * 1000))


async def _short_transfer_id(call: Call[Any]) -> None:
    await call.write(pb.WatchResponse(transfer_id=b"short"))
    await trio.sleep_forever()


async def _many_transfers(call: Call[Any]) -> None:
    for n in range(200):
        await call.write(pb.WatchResponse(transfer_id=n.to_bytes(16, "big")))
    await trio.sleep_forever()


async def _end_at_once(call: Call[Any]) -> None:
    del call


async def _read_and_end(call: Call[Any]) -> None:
    await call.read()


@pytest.mark.parametrize("watch", [_short_transfer_id, _many_transfers, _end_at_once])
def test_node_lives_on_whatever_a_peer_answers(tmp_path: Path, watch: Handler) -> None:
    node = Node(tmp_path, "node", "Victim Hospital")
    node.make()
    node.start()
    peer = HostilePeer(tmp_path)
    called = trio.Event()

    async def seen(call: Call[Any]) -> None:
        called.set()
        await watch(call)

    async def work() -> None:
        identity = await trio.to_thread.run_sync(peer.pair_with, node)
        descriptor = pb.DESCRIPTOR.services_by_name["ExchangeService"]
        handlers: dict[str, Handler] = {
            **{m.name: seen for m in descriptor.methods},
            "Hello": _hello,
            "Carry": _read_and_end,
        }
        trusted = TrustSnapshot(peer.tls, frozenset(identity.certificates))
        credentials = server_credentials(lambda: trusted)
        services = [Service(descriptor, handlers, allow_all)]
        async with serve(services, "127.0.0.1:0", credentials=credentials) as port:
            file = tmp_path / "hostile.statements"
            file.write_bytes(_statements(peer, f"127.0.0.1:{port}"))
            await trio.to_thread.run_sync(node.run, "peers", "pair", str(file))
            with trio.fail_after(30):
                await called.wait()
            for _ in range(10):
                await trio.to_thread.run_sync(node.run, "status")

    try:
        run(work)
        assert node.process is not None
        assert node.process.poll() is None
    finally:
        assert node.stop() == 0


def _statements(peer: HostilePeer, endpoint: str) -> bytes:
    secrets = peer.keys.secrets
    encoded = make_statements(
        secrets.node_key,
        peer.keys.signer.signer,
        [peer.tls.certificate_der],
        secrets.seal_keys[0].public,
        Profile(peer.name, (endpoint,), (), int(time.time())),
    )
    Identity.decode(encoded)
    return encoded
