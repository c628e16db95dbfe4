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
from node.federation.dialing import Dialer
from node.federation.lan import Lan
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


def make_federation(folder: Any) -> tuple[Federation, FacilityId]:
    """Return a federation with one peer."""
    me = make_tls_identity(NodeId(bytes(32)), time())
    trust = Trust(me)
    identity = Identity.decode(HostilePeer(folder).statements())
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
        dialer=Dialer(),
        lan=Lan(FacilityId(bytes(32)), NodeId(bytes(32)), lambda _: None),
        relaying=nobody,
        ask_ticket=nobody,
        alarm=nobody,
    )
    return federation, identity.facility_id


@pytest.mark.parametrize("error", [PeerUnreachable("the link broke"), ValueError("a defect")])
async def test_connection_that_fails_while_the_node_stops_does_not_end_it(
    error: Exception, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_: Federation, __: Peer, ___: Connection) -> None:
        await fail_when_cancelled(error)

    monkeypatch.setattr(Federation, "_connect", connect)
    federation, _ = make_federation(tmp_path)
    nobody: Any = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(federation.run, nobody)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("part", ["_connect", "_introduce", "_ask"])
async def test_whatever_fails_with_a_peer_it_is_tried_again(
    part: str,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    tried = trio.Event()
    times = 0

    async def fail(*_: object) -> None:
        nonlocal times
        times += 1
        if times == 3:
            tried.set()
        raise ValueError("a defect")

    async def pass_by(*_: object) -> None:
        raise PeerUnreachable("nobody")

    for name in ("_connect", "_introduce", "_ask"):
        monkeypatch.setattr(Federation, name, fail if name == part else pass_by)
    federation, _ = make_federation(tmp_path)
    nobody: Any = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(federation.run, nobody)
        with trio.fail_after(300):
            await tried.wait()
        nursery.cancel_scope.cancel()


async def test_dial_asked_for_again_and_again_is_done_now_and_then(tmp_path: Any) -> None:
    federation, facility = make_federation(tmp_path)
    for n in range(1000):
        federation.dial(FacilityId(n.to_bytes(32, "big")))
    assert not federation._connections  # strangers leave no trace
    connection = federation.connection(facility)
    federation._wanted[facility] = trio.Event()
    federation.dial(facility)
    assert federation._wanted[facility].is_set()
    federation._wanted[facility] = trio.Event()
    federation.dial(facility)
    assert not federation._wanted[facility].is_set()
    assert connection.dialled <= trio.current_time()
