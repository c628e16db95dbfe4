"""Supervisors: what goes wrong with one peer while the node stops does not end the node."""

from time import time
from typing import Any

import pytest
import trio
import trio.testing

from node.crypto.certificates import make_tls_identity
from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.ids import FacilityId, NodeId
from node.errors import PeerUnreachable
from node.federation.supervisor import Connection, Federation
from node.federation.trust import Trust
from tests.integration.hostile import HostilePeer


async def fail_when_cancelled(error: Exception) -> None:
    """Run two tasks, of which one fails at the moment when both are cancelled."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise error from None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail)


@pytest.mark.parametrize("error", [PeerUnreachable("the link broke"), ValueError("a defect")])
async def test_connection_that_fails_while_the_node_stops_does_not_end_it(
    error: Exception, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_: Federation, __: Peer, ___: Connection) -> None:
        await fail_when_cancelled(error)

    monkeypatch.setattr(Federation, "_connect", connect)
    me = make_tls_identity(NodeId(bytes(32)), time())
    trust = Trust(me)
    identity = Identity.decode(HostilePeer(tmp_path).statements())
    trust.update([Peer(identity, "", "file", "somebody", time(), None, 0.0)])
    nobody: Any = None

    async def ask_nobody(_: FacilityId) -> bool:
        return False

    federation = Federation(
        identity=me,
        trust=trust,
        news=nobody,
        statements=lambda: b"",
        ask_dial_back=ask_nobody,
        memberships=list,
        relaying=nobody,
        ask_ticket=nobody,
        alarm=nobody,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(federation.run, nobody)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
