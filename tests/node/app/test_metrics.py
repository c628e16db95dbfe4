"""A node's metrics: what its tasks change is read in their thread."""

import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from emix.admin.v1 import admin_pb2 as pb

from node.app.config import load_config
from node.app.home import Home, NewNode, make_home, unlock
from node.app.node import open_node
from node.domain.ids import FacilityId
from node.federation.connections.connection import Connection
from node.federation.connections.supervisor import Federation
from node.rpc.calling import open_channel
from node.rpc.methods import method
from tests.support.hostile import HostilePeer
from tests.support.loop import run
from tests.support.nodes import free_port

_PAIR = method(
    pb.DESCRIPTOR.services_by_name["PeerService"],
    "PairPeer",
    pb.PairPeerRequest,
    pb.PairPeerResponse,
)


def test_connections_are_counted_in_the_thread_that_changes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "node")
    make_home(home, NewNode("node", tmp_path / "kit", None, "127.0.0.1:0", "127.0.0.1:0"))
    listen = f"127.0.0.1:{free_port()}"
    config = replace(load_config(home.config), metrics_listen=listen, lan="off")
    statements = HostilePeer(tmp_path).statements()
    threads: set[int] = set()
    connection = Federation.connection

    def watched(self: Federation, facility: FacilityId) -> Connection:
        threads.add(threading.get_ident())
        return connection(self, facility)

    def page() -> str:
        with urllib.request.urlopen(f"http://{listen}/metrics") as response:
            return str(response.read().decode())

    async def work() -> None:
        async with open_node(home, config, unlock(home, None)):
            async with open_channel(f"unix:{home.socket.resolve()}") as channel:
                await channel.unary(_PAIR, pb.PairPeerRequest(statements=statements))
            monkeypatch.setattr(Federation, "connection", watched)
            assert "emix_peers{" in await trio.to_thread.run_sync(page)
            assert threads == {threading.get_ident()}

    run(work)
