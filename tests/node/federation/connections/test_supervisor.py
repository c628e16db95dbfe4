"""Supervisors: what goes wrong with one peer while the node stops does not end the node."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import time
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from node.crypto.certificates import make_tls_identity
from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.connections import ConnectionState, Route
from node.domain.ids import FacilityId, NodeId
from node.errors import NodeError, PeerBusy, PeerTimeout, PeerUnreachable
from node.federation.connections.connection import Connection
from node.federation.connections.peer_client import PeerClient
from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Trust
from node.federation.routes.dialing import Dialer
from node.federation.routes.lan import Lan
from node.federation.routes.race import Won
from tests.support.hostile import HostilePeer

NOBODY: Any = None


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


class Nameless(Dialer):
    """Takes every endpoint for an address."""

    async def addresses(self, endpoint: str) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return (endpoint,)


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
        identity=lambda: me,
        trust=trust,
        peer_statements=nobody,
        statements=lambda: b"",
        ask_dial_back=ask_nobody,
        memberships=list,
        dialer=Nameless(),
        lan=Lan(FacilityId(bytes(32)), NodeId(bytes(32)), lambda _: None),
        relaying=SimpleNamespace(is_networked=False),  # type: ignore[arg-type]
        list_exchange=nobody,
        witnessing=nobody,
        deletions=nobody,
        capabilities=nobody,
        admit=nobody,
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


class Neighbourhood:
    """Hints as a test gives them."""

    def __init__(self, *endpoints: str) -> None:
        self.found = list(endpoints)
        self.avoided: list[str] = []

    def endpoints(self, _: FacilityId) -> list[str]:
        return [e for e in self.found if e not in self.avoided]

    def avoid(self, endpoint: str) -> None:
        self.avoided.append(endpoint)


class Ways:
    """A federation whose peer has endpoints that do as they are told, and a relay.

    Attributes:
        tried: What was held, in order: endpoint and route.
        outcomes: What becomes of each endpoint that is held: an error, or None: left for better.
    """

    def __init__(self, folder: Any, monkeypatch: pytest.MonkeyPatch, near: tuple[str, ...]) -> None:
        self.federation, self.facility = make_federation(folder)
        self.lan = Neighbourhood(*near)
        self.federation._lan = self.lan
        peer = self.federation._trust.peers[self.facility]
        self.peer = replace(peer, endpoint="direct:1")
        self.connection = self.federation.connection(self.facility)
        self.outcomes: dict[str, list[NodeError | None]] = {}
        self.tried: list[tuple[str, str]] = []

        async def race(_: object, endpoints: list[str], __: object) -> Won:
            for endpoint in endpoints:
                if self.outcomes.get(endpoint):
                    return Won(endpoint, NOBODY, AsyncExitStack())
            raise PeerUnreachable("nobody")

        async def hold(
            _: Federation, __: Peer, ___: Any, connection: Connection, route: str, *____: object
        ) -> None:
            endpoint = connection.endpoint
            self.tried.append((endpoint, route))
            outcome = self.outcomes[endpoint].pop(0)
            if not isinstance(outcome, PeerTimeout):  # its hello was answered
                connection.connected_time = trio.current_time()
            await trio.sleep(1)
            if outcome is not None:
                raise outcome

        async def relay(_: Federation, __: Peer, ___: Connection) -> bool:
            self.tried.append(("relay", "relay"))
            raise PeerUnreachable("no relay")

        monkeypatch.setattr("node.federation.connections.supervisor.race", race)
        monkeypatch.setattr(Federation, "_keep_until_better", hold)
        monkeypatch.setattr(Federation, "_keep_by_relay", relay)

    async def connect(self) -> str:
        """Return why it ended."""
        with pytest.raises(NodeError) as caught:
            await self.federation._connect(self.peer, self.connection)
        return str(caught.value)


async def test_neighbour_that_only_passes_bytes_on_does_not_deny_the_direct_way(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    ways = Ways(tmp_path, monkeypatch, ("near:1",))
    ways.outcomes = {"near:1": [PeerTimeout("silent")], "direct:1": [PeerUnreachable("gone")]}
    assert await ways.connect() == "gone"
    assert ways.tried == [("near:1", "lan"), ("direct:1", "direct"), ("relay", "relay")]
    assert ways.lan.avoided == ["near:1"]


async def test_way_that_is_left_for_a_better_one_is_followed_by_that_and_not_by_a_relay(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    ways = Ways(tmp_path, monkeypatch, ())
    ways.outcomes = {"direct:1": [None]}

    async def come_near() -> None:
        await trio.sleep(0.5)
        ways.lan.found.append("near:1")
        ways.outcomes["near:1"] = [PeerUnreachable("gone")]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_near)
        assert await ways.connect() == "gone"
    assert ways.tried[:2] == [("direct:1", "direct"), ("near:1", "lan")]
    assert trio.current_time() - ways.connection.connected_time < 5  # with no pause between


async def test_peer_that_has_dialled_us_is_not_sought_at_a_relay(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    ways = Ways(tmp_path, monkeypatch, ())
    ways.connection.inbound[Route.DIRECT] = 1
    assert await ways.connect() == "nobody"
    assert ways.tried == []


async def test_hint_wakes_a_peer_and_does_not_stand_for_its_own_request(tmp_path: Any) -> None:
    federation, facility = make_federation(tmp_path)
    federation.connection(facility)
    federation._wanted[facility] = trio.Event()
    federation.dial(facility, by_peer=False)
    assert federation._wanted[facility].is_set()
    assert facility not in federation._asked


async def test_who_asks_during_an_attempt_is_dialled_right_after_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    began: list[float] = []

    async def connect(_: Federation, __: Peer, ___: Connection) -> None:
        began.append(trio.current_time())
        await trio.sleep(8)
        raise PeerUnreachable("nobody")

    async def nothing(*_: object) -> None:
        return

    monkeypatch.setattr(Federation, "_connect", connect)
    monkeypatch.setattr(Federation, "_introduce", nothing)
    federation, facility = make_federation(tmp_path)
    nobody: Any = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(federation.run, nobody)
        while len(began) < 8:  # by now it waits for half a minute between two
            await trio.sleep(1)
        federation.dial(facility)
        while len(began) < 9:
            await trio.sleep(0.1)
        assert began[8] - began[7] < 9
        nursery.cancel_scope.cancel()


async def test_way_of_a_peer_that_changes_is_not_taken_down_by_the_one_before(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    held: list[str] = []
    channel: Any = object()

    async def connect(_: Federation, peer: Peer, connection: Connection) -> None:
        held.append(f"{peer.endpoint} begins")
        connection.channel, connection.state = channel, ConnectionState.CONNECTED
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)  # as a thread that is waited for
            held.append(f"{peer.endpoint} ends")

    monkeypatch.setattr(Federation, "_connect", connect)
    federation, facility = make_federation(tmp_path)
    trust, nobody = federation._trust, None
    peer = trust.peers[facility]
    exchange: Any = nobody
    async with trio.open_nursery() as nursery:
        nursery.start_soon(federation.run, exchange)
        for endpoint in ("first:1", "second:1", "third:1"):
            trust.update([replace(peer, endpoint=endpoint)])
            federation.refresh()
            await trio.sleep(0.2)  # the next comes before the one before has ended
        await trio.sleep(60)
        assert federation.is_connected(facility)
        assert federation.connection(facility).state == "connected"
        assert held[-1] == "third:1 begins"
        nursery.cancel_scope.cancel()


async def test_neighbour_at_which_transfers_do_not_move_is_left_for_another_way(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    @asynccontextmanager
    async def carry(*_: object) -> AsyncGenerator[None]:
        yield

    federation, facility = make_federation(tmp_path)
    federation._lan = lan = Neighbourhood()
    monkeypatch.setattr(federation._client, "carry", carry)
    channel: Any = object()
    for route, avoided in ((Route.DIRECT, []), (Route.LAN, ["near:1"])):
        connection = federation.connection(facility)
        connection.channel, connection.route, connection.endpoint = channel, route, "near:1"
        with trio.CancelScope() as connection.holding:
            with pytest.raises(PeerTimeout):
                async with federation.carry(facility):
                    raise PeerTimeout("the other side takes nothing any more")
            await trio.lowlevel.checkpoint()
        assert connection.holding.cancelled_caught is bool(avoided)
        assert lan.avoided == avoided


async def test_connection_that_won_is_the_one_that_is_used(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A direct one, and then a better one that was found meanwhile: each is made once."""
    made, closed, greeted = list[str](), list[str](), list[str]()

    class Made:
        def __init__(self, endpoint: str) -> None:
            self.endpoint = endpoint

        async def connect(self, _: float) -> None:
            await trio.sleep(0.01)

    @asynccontextmanager
    async def opened(_: Federation, __: Peer, endpoint: str) -> AsyncGenerator[Made]:
        made.append(endpoint)
        yield Made(endpoint)
        closed.append(endpoint)

    async def hello(_: Peer, channel: Made, *__: object) -> None:
        greeted.append(channel.endpoint)
        lan.found.append("near:1")
        with trio.move_on_after(60):
            await trio.sleep_forever()
        raise PeerUnreachable("gone")

    monkeypatch.setattr(Federation, "_open", opened)
    federation, facility = make_federation(tmp_path)
    federation._lan = lan = Neighbourhood()
    monkeypatch.setattr(federation._client, "hello", hello)
    peer = replace(federation._trust.peers[facility], endpoint="direct:1")
    federation.connection(facility).inbound[Route.RELAY] = 1  # so that no relay is asked for
    with pytest.raises(PeerUnreachable):
        await federation._connect(peer, federation.connection(facility))
    assert made[:2] == greeted[:2] == ["direct:1", "near:1"]
    assert sorted(made) == sorted(closed)


async def test_introduction_address_that_a_peer_states_anew_is_the_one_that_is_asked(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Its peer service is where it was, so the supervisor goes on, and knows what is new."""
    asked = list[str]()

    async def connect(_: Federation, __: Peer, ___: Connection) -> None:
        raise PeerUnreachable("nobody")

    async def renewed(address: str, _: FacilityId) -> None:
        asked.append(address)
        raise PeerUnreachable("nobody")

    monkeypatch.setattr(Federation, "_connect", connect)
    federation, facility = make_federation(tmp_path)
    monkeypatch.setattr(federation._introducer, "renewed", renewed)
    peer = federation._trust.peers[facility]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(federation.run, NOBODY)
        for address in ("old:7411", "new:7411"):
            profile = replace(peer.identity.profile, introduction_endpoints=(address,))
            identity = replace(peer.identity, profile=profile)
            federation._trust.update([replace(peer, identity=identity)])
            federation.refresh()
            await trio.sleep(100)
            assert asked[-1] == address
        nursery.cancel_scope.cancel()


class Far:
    """A peer far away, to which several connections can be made."""

    def __init__(self, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.federation, self.facility = make_federation(folder)
        self.connection = self.federation.connection(self.facility)
        self.connection.endpoint = "far:1"
        self.round_trip = 0.001
        self.opened, self.closed, self.fails = 0, 0, 0
        monkeypatch.setattr(Federation, "_open", self._open)
        monkeypatch.setattr(PeerClient, "hello", self._hello)

    @asynccontextmanager
    async def _open(self, *_: object) -> AsyncGenerator[object]:
        self.opened += 1
        try:
            yield object()
        finally:
            self.closed += 1

    async def _hello(self, *arguments: Any) -> None:
        found: Connection = arguments[-1]
        await trio.lowlevel.checkpoint()
        if self.opened and self.fails:
            self.fails -= 1
            raise PeerBusy("later")
        found.round_trip_seconds = self.round_trip

    async def keep(self) -> None:
        peer, nobody = self.federation._trust.peers[self.facility], NOBODY
        await self.federation._keep_beside(peer, nobody, self.connection)

    @property
    def count(self) -> int:
        return self.federation.further_connections(self.facility)


async def test_distant_peer_has_several_connections_and_a_near_one_has_not(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    far = Far(tmp_path, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.keep)
        await trio.sleep(60)
        assert far.opened == 0
        far.connection.round_trip_seconds = 0.5  # a Hello that has waited behind chunks
        far.connection.links[NOBODY] = 1
        await trio.sleep(60)
        assert far.opened == 0
        far.connection.links.clear()
        far.round_trip = 0.02
        await trio.sleep(60)
        assert far.count == far.opened == 3
        assert far.connection.round_trip_seconds == 0.5, "what is shown is the first one's"
        nursery.cancel_scope.cancel()
    assert far.count == 0
    assert far.closed == 3


async def test_further_connection_that_breaks_is_made_anew(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    far = Far(tmp_path, monkeypatch)
    far.round_trip, far.fails = 0.6, 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.keep)
        await trio.sleep(1)
        assert far.count == 2, "one was not answered"
        assert far.closed == 1
        with (
            pytest.raises(PeerUnreachable),
            far.connection.linked(next(iter(far.connection.beside))),
        ):
            raise PeerUnreachable("it broke")
        assert far.count == 1
        await trio.sleep(60)
        assert far.count == 3
        nursery.cancel_scope.cancel()
