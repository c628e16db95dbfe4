"""Connections to peers: one supervisor each, which keeps a channel up while it can.

A peer's failure stays in its supervisor. When a connection cannot be made, the two sides exchange
their present statements at the introduction service and try again. So a peer that was offline for
longer than a certificate is valid reconnects by itself.
"""

import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog
import trio

from node.crypto.certificates import TlsIdentity, server_name
from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.connections import ConnectionState, PeerWay, Route
from node.domain.events import DialBackAsked
from node.domain.ids import FacilityId, TransferId
from node.errors import (
    LinkAltered,
    NodeError,
    PeerLeft,
    PeerTimeout,
    PeerUnreachable,
    PeerUntrusted,
    first_error,
    ungrouped,
)
from node.federation.connections.capabilities import Capabilities
from node.federation.connections.connection import Connection
from node.federation.connections.deletions import DeletionReports
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.connections.link import GrpcLink
from node.federation.connections.list_exchange import ListExchange
from node.federation.connections.peer_client import HELLO_SECONDS, LARGEST_ANSWER, PeerClient
from node.federation.connections.peer_service import (
    Exchange,
    PeerStatements,
    Statements,
)
from node.federation.connections.trust import EXPIRED, Trust
from node.federation.connections.witnessing import Witnessing
from node.federation.routes.dialing import Dialer
from node.federation.routes.race import CONNECT_SECONDS, Won, first_of, race
from node.federation.routes.relaying import Relaying, Way
from node.rpc.calling import KEEPALIVE_OPTIONS, Channel, open_channel
from node.rpc.credentials import client_credentials
from node.system import clock

log = structlog.get_logger()
_END_SECONDS = 60.0  # for an earlier supervisor, which is cancelled, to end
BETTER_SECONDS = 15.0
DIAL_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_UP_SECONDS = 3.0  # a connection that stood so long is tried again at once
_SOON_SECONDS = 30.0
_ASKED_AT_ONCE = 32
LONG_SECONDS = 0.02
"""A line with such a round trip has several connections: one does not fill it, least of all with
loss."""
CONNECTIONS = 4
_APART = ("grpc.use_local_subchannel_pool", 1)  # else channels to one address share a connection


class Hints(Protocol):
    """Announced addresses of peers on the LAN; `node.federation.routes.lan` implements it."""

    def endpoints(self, facility: FacilityId) -> Sequence[str]:
        """Return the announced addresses of a facility's peer service."""

    def avoid(self, endpoint: str) -> None:
        """Leave an endpoint alone for a while."""


@dataclass
class _Supervised:
    """A peer's supervisor.

    Attributes:
        peer: The peer, with its newest statements.
    """

    peer: Peer
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    def is_for(self, peer: Peer) -> bool:
        """Whether it is still running, with the peer's present endpoints and certificates."""
        return not self.scope.cancel_called and _same_way(self.peer, peer)


class Federation:
    """All supervisors. Run it for the life of the node; call `refresh` when pins change."""

    def __init__(
        self,
        *,
        identity: Callable[[], TlsIdentity],
        trust: Trust,
        peer_statements: PeerStatements,
        statements: Statements,
        ask_dial_back: Callable[[FacilityId], Awaitable[bool]],
        memberships: Callable[[], Sequence[bytes]],
        dialer: Dialer,
        lan: Hints,
        relaying: Relaying,
        list_exchange: ListExchange,
        witnessing: Witnessing,
        deletions: DeletionReports,
        capabilities: Capabilities,
        admit: Callable[[FacilityId], Awaitable[bool]],
    ) -> None:
        """Prepare.

        Args:
            identity: Returns our own TLS identity as it now is.
            trust: Which peers to connect to.
            peer_statements: Accepts new statements of peers.
            statements: Returns our own present statements.
            ask_dial_back: Asks the directories to have a facility dial us.
            memberships: Returns our memberships, which prove us to other members of networks.
            dialer: Makes the connections.
            lan: Announced addresses of peers on the LAN.
            relaying: Connections through relays.
            list_exchange: Passes networks' lists on.
            witnessing: Exchanges heads of audit logs.
            deletions: Exchanges reports of deletions.
            capabilities: Keeps the capabilities of peers.
            admit: Whether a facility is trusted; a member may be looked up and pinned for that.
        """
        self._admit = admit
        self._dialer = dialer
        self._introducer = IntroductionClient(dialer)
        self._lan = lan
        self._relaying = relaying
        self._client = PeerClient(
            peer_statements, statements, list_exchange, witnessing, deletions, capabilities
        )
        self._witnessing = witnessing
        self._ask_dial_back = ask_dial_back
        self._memberships = memberships
        self._identity = identity
        self._trust = trust
        self._exchange: Exchange
        self._peer_statements = peer_statements
        self._statements = statements
        self._connections: dict[FacilityId, Connection] = {}
        self._supervised: dict[FacilityId, _Supervised] = {}
        self._changed = trio.Event()
        self._wanted: defaultdict[FacilityId, trio.Event] = defaultdict(trio.Event)
        self._asked: set[FacilityId] = set()  # who wants to be dialled, and need not be asked to

    def connection(self, facility: FacilityId) -> Connection:
        """Return the state of the connection to a peer."""
        return self._connections.setdefault(facility, Connection())

    def way(self, facility: FacilityId) -> PeerWay:
        """Return the state of the connection to a peer, to be shown."""
        return self.connection(facility).way

    def is_connected(self, peer: FacilityId) -> bool:
        """See `Links.is_connected`."""
        return self.connection(peer).channel is not None

    def refresh(self) -> None:
        """Look at the pins again: some peer was added, renewed or removed."""
        self._changed.set()

    def route_of(self, address: str) -> Route:
        """Return the route by which a call came, from its address as gRPC writes it."""
        return Route.RELAY if self._relaying.is_relayed(address) else Route.DIRECT

    @contextmanager
    def opened_by(self, facility: FacilityId, route: Route) -> Iterator[None]:
        """Note that a peer watches here, over a connection of its own."""
        inbound = self.connection(facility).inbound
        inbound[route] += 1
        self.dial(facility)
        try:
            yield
        finally:
            inbound[route] -= 1
            inbound += Counter()  # removes routes with a count of 0

    async def dial_back(self, asked: DialBackAsked) -> None:
        """Dial a facility that asks for it, if it is trusted, or is a member."""
        if await self._admit(asked.facility):
            self.dial(asked.facility)

    def dial(self, facility: FacilityId, *, by_peer: bool = True) -> None:
        """Try a peer again now: it says that it cannot dial us, or it was seen just now."""
        connection, now = self._connections.get(facility), trio.current_time()
        if connection is None or now - connection.dialled < DIAL_SECONDS:
            return
        if by_peer:
            self._asked.add(facility)
        connection.dialled = now
        self._wanted[facility].set()
        if connection.waiting_at_relay is not None:
            connection.waiting_at_relay.cancel()

    async def ask_witnesses(self) -> dict[FacilityId, str]:
        """Ask all peers that are connected which heads of our audit log they keep, at once.

        Returns:
            For each peer that was asked, why it did not answer; empty if it did. Peers that can
            only dial us are not asked: they report with their next Hello.
        """
        answers: dict[FacilityId, str] = {}
        limit = trio.CapacityLimiter(_ASKED_AT_ONCE)

        async def ask(facility: FacilityId, channel: Channel) -> None:
            async with limit:
                try:
                    await self._witnessing.ask(facility, channel)
                    answers[facility] = ""
                except* NodeError as group:
                    answers[facility] = str(first_error(group))

        async with trio.open_nursery() as nursery:
            for facility, connection in list(self._connections.items()):
                if connection.channel is not None:
                    nursery.start_soon(ask, facility, connection.channel)
        return answers

    async def run(self, exchange: Exchange) -> None:
        """Supervise every trusted peer, for ever; `exchange` does what connections are for."""
        self._exchange = exchange
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for facility, peer in self._trust.peers.items():
                    earlier = self._supervised.get(facility)
                    is_trusted = self._trust.is_trusted(peer)
                    if earlier is not None:
                        if is_trusted and earlier.is_for(peer):
                            earlier.peer = peer  # what else it states may be new
                            continue
                        earlier.scope.cancel()
                    if is_trusted:
                        this = self._supervised[facility] = _Supervised(peer)
                        nursery.start_soon(self._supervise_after, earlier, this)
                await self._changed.wait()

    async def _supervise_after(self, earlier: "_Supervised | None", this: "_Supervised") -> None:
        """Supervise a peer once its earlier supervisor has ended: both have one connection."""
        try:
            if earlier is not None:
                with trio.move_on_after(_END_SECONDS, shield=True):
                    await earlier.ended.wait()
            await self._supervise(this)
        finally:
            this.ended.set()

    async def _supervise(self, this: "_Supervised") -> None:
        facility = this.peer.facility_id
        connection = self.connection(facility)
        pause, is_asked = _FIRST_PAUSE, False
        with this.scope:
            if this.peer.network is not None:  # it need not know us yet
                await self._guarded(self._introduce, this.peer, connection)
            while True:
                started = trio.current_time()
                error = await self._guarded(self._connect, this.peer, connection)
                was_up = connection.connected_time >= started
                if was_up and trio.current_time() - started > _UP_SECONDS:
                    pause = _FIRST_PAUSE
                self._note_lost(connection, error)
                if not this.peer.endpoints and not self._lan.endpoints(facility):
                    connection.state = ConnectionState.WAITING
                await self._guarded(self._introduce, this.peer, connection)
                if not is_asked:  # or two that cannot dial each other would ask without end
                    await self._guarded(self._ask, this.peer, connection)
                # A request to dial that came during the attempt ends the pause, too.
                with trio.move_on_after(pause * random.uniform(0.8, 1.2)):  # noqa: S311  # jitter
                    await self._wanted[facility].wait()
                self._wanted.pop(facility, None)
                is_asked = facility in self._asked
                self._asked.discard(facility)
                pause = min(pause * 2, _LONGEST_PAUSE)
        connection.channel = None
        connection.state, connection.route = ConnectionState.WAITING, None

    async def _guarded(
        self,
        work: Callable[[Peer, Connection], Awaitable[None]],
        peer: Peer,
        connection: Connection,
    ) -> NodeError:
        """Do something with a peer; return why it ended. Nothing of one peer ends the node."""
        error = NodeError("the connection ended")
        try:
            await work(peer, connection)
        except* NodeError as group:
            error = first_error(group)
        except* Exception:  # a supervisor
            log.exception("peer failed", peer=peer.facility_id.short(), what=work.__name__)
            error = NodeError("internal error; see the node's log")
        return error

    async def _ask(self, peer: Peer, _: Connection) -> None:
        await self._ask_dial_back(peer.facility_id)

    def _note_lost(self, connection: Connection, error: NodeError) -> None:
        connection.channel = None
        connection.state, connection.route = ConnectionState.UNREACHABLE, None
        connection.endpoint = ""
        connection.problem = str(error)

    async def _connect(self, peer: Peer, connection: Connection) -> None:
        """Keep a connection to a peer; replace it as long as a better one is found."""
        try:
            while await self._keep_a_way(peer, connection):
                log.info("changing the route", peer=peer.facility_id.short())
        finally:
            better = connection.take_better()
            if better is not None:
                await better.aclose()

    async def _keep_a_way(self, peer: Peer, connection: Connection) -> bool:
        """Try a peer's endpoints, then a relay; hold the first that answers until it is lost.

        Returns:
            True: it was left for another way, which is to be looked for at once.
        """
        if not peer.identity.cert.is_valid(clock.now()):
            raise PeerUnreachable(EXPIRED)
        error: NodeError = PeerUnreachable("no endpoint is known; waiting for it to connect")
        near = self._lan.endpoints(peer.facility_id)
        endpoints = [*near, *(e for e in peer.endpoints if e not in near)]
        while endpoints:
            started, endpoint = trio.current_time(), ""
            try:
                async with await self._reached(peer, connection, endpoints) as won:
                    endpoint = connection.endpoint = won.endpoint
                    route = Route.LAN if endpoint in near else Route.DIRECT
                    await self._keep_until_better(peer, won.channel, connection, route)
            except (PeerUnreachable, PeerTimeout) as exc:
                error = exc
                if endpoint in near and not isinstance(exc, PeerLeft):
                    self._lan.avoid(endpoint)  # it may have been announced by a man in the middle
                if not endpoint or connection.connected_time >= started:
                    break
                endpoints.remove(endpoint)  # its TLS stands, and nothing else: try the others
            else:
                return True
        if not connection.inbound:  # else the peer's own connection serves both directions
            try:
                return await self._keep_by_relay(peer, connection)
            except NodeError as exc:
                log.debug("no relay", peer=peer.facility_id.short(), reason=str(exc))
                if self._relaying.is_networked:
                    raise PeerUnreachable(f"{error}; by relay: {exc}") from exc
            finally:
                connection.waiting_at_relay = None
        raise error

    async def _reached(self, peer: Peer, connection: Connection, endpoints: Sequence[str]) -> Won:
        """Return a connection to one of a peer's endpoints: one that is there, or a new one.

        Raises:
            PeerUnreachable: none can be made.
        """
        better = connection.take_better()
        if better is not None:
            if better.endpoint in endpoints:
                return better
            await better.aclose()
        return await race(lambda e: self._open(peer, e), endpoints, self._dialer.addresses)

    async def _keep_by_relay(self, peer: Peer, connection: Connection) -> bool:
        """Keep a way through a relay until it is lost, or a better one is there.

        Returns:
            Whether another way is to be looked for at once: not if the peer has dialled us
            meanwhile, nor after a relay that asked us to leave soon after we had come.
        """
        started = trio.current_time()
        ticket = await self._relaying.ticket_to(peer.facility_id)
        with ungrouped(), trio.CancelScope() as connection.waiting_at_relay:
            async with self._relaying.way(ticket) as way:
                connection.waiting_at_relay = None  # it has come there
                connection.endpoint = way.relay
                try:
                    await self._keep_relayed(peer, way, connection)
                except (PeerUnreachable, PeerTimeout) as exc:
                    was_connected = connection.connected_time >= started
                    await self._relaying.report_broken(ticket, exc, was_connected=was_connected)
                    raise
                is_soon = trio.current_time() - started < _SOON_SECONDS
                is_unsteady = is_soon and way.is_leaving.is_set()
                return not is_unsteady and Route.DIRECT not in connection.inbound
        return False

    async def _keep_relayed(self, peer: Peer, way: Way, connection: Connection) -> None:
        async with self._open(peer, way.address) as channel:
            try:
                await channel.connect(CONNECT_SECONDS)
                await self._keep_until_better(
                    peer, channel, connection, Route.RELAY, way.is_leaving
                )
            except NodeError as exc:
                if not isinstance(exc, PeerLeft) and await way.was_given_up():
                    raise LinkAltered("received bytes were altered; connection closed") from exc
                raise

    async def _keep_until_better(
        self,
        peer: Peer,
        channel: Channel,
        connection: Connection,
        route: Route,
        is_leaving: trio.Event | None = None,
    ) -> None:
        """Keep a way until it is lost, is left, or a better one is there.

        Transfers go on over the next one.
        """
        with trio.CancelScope() as scope, ungrouped():
            connection.holding = scope
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._seek_better, peer, connection, route, scope)
                if is_leaving is not None:
                    nursery.start_soon(_end_once, is_leaving, scope)
                await self._keep(peer, channel, connection, route)

    async def _seek_better(
        self, peer: Peer, connection: Connection, route: Route, scope: trio.CancelScope
    ) -> None:
        if route is Route.LAN:
            return
        while True:
            await trio.sleep(BETTER_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  # jitter
            is_relayed = route is Route.RELAY
            if is_relayed and Route.DIRECT in connection.inbound:
                break
            near = self._lan.endpoints(peer.facility_id)
            with suppress(PeerUnreachable):
                better = [*near, *peer.endpoints] if is_relayed else near
                connection.better = await race(
                    lambda e: self._open(peer, e), better, self._dialer.addresses
                )
                log.info("a better way", peer=peer.facility_id.short())
                break
        scope.cancel()

    def _open(self, peer: Peer, endpoint: str) -> AbstractAsyncContextManager[Channel]:
        return open_channel(
            endpoint,
            credentials=client_credentials(self._identity(), peer.identity.certificates),
            server_name=server_name(peer.identity.node_id),
            options=(*KEEPALIVE_OPTIONS, _APART, *self._dialer.grpc_options(endpoint)),
            largest_answer=LARGEST_ANSWER,
        )

    async def _keep(
        self, peer: Peer, channel: Channel, connection: Connection, route: Route
    ) -> None:
        with self._trust.lease(peer.facility_id), ungrouped():
            lists = await self._client.hello(peer, channel, connection)
            connection.channel, connection.problem = channel, ""
            connection.state, connection.route = ConnectionState.CONNECTED, route
            connection.connected_time = trio.current_time()
            log.info("peer connected", peer=peer.facility_id.short(), route=route)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        self._client.keep_saying_hello, peer, channel, connection, lists
                    )
                    if route is Route.DIRECT:
                        nursery.start_soon(self._keep_beside, peer, channel, connection)
                    collect = partial(self._collect, peer)
                    decided = partial(self._exchange.decided, peer.facility_id)
                    nursery.start_soon(self._client.watch, channel, collect, decided)
                    nursery.start_soon(
                        self._exchange.watch_decided,
                        peer.facility_id,
                        partial(self._collect_decided, peer, collect),
                    )
                    nursery.start_soon(self._exchange.run_peer, peer.facility_id)
            finally:
                connection.channel = None
                connection.state, connection.route = ConnectionState.WAITING, None

    async def _keep_beside(self, peer: Peer, channel: Channel, connection: Connection) -> None:
        """Have more connections beside one with a long round trip, for ever."""
        # The first Hello made the connection, too; a later one may wait behind chunks.
        round_trip = await self._round_trip(peer, channel)
        while round_trip < LONG_SECONDS:
            await trio.sleep(HELLO_SECONDS)
            if not connection.links:
                round_trip = connection.round_trip_seconds
        async with trio.open_nursery() as nursery:
            for _ in range(1, CONNECTIONS):
                nursery.start_soon(self._keep_one_beside, peer, connection)

    async def _keep_one_beside(self, peer: Peer, connection: Connection) -> None:
        while True:
            async with self._open(peer, connection.endpoint) as channel:
                # One that has not shown whose it is, the other side ends soon.
                if await self._round_trip(peer, channel):
                    with connection.used_beside(channel) as broken:
                        await broken.wait()
            await trio.sleep(HELLO_SECONDS)

    async def _round_trip(self, peer: Peer, channel: Channel) -> float:
        """Say Hello; return how long that took, or 0 if it was not answered."""
        found = Connection()
        try:
            with ungrouped():
                await self._client.hello(peer, channel, found)
        except NodeError:
            return 0.0
        return found.round_trip_seconds

    def further_connections(self, peer: FacilityId) -> int:
        """See `Links.further_connections`."""
        return len(self.connection(peer).beside)

    async def _collect(self, peer: Peer, transfer_id: TransferId) -> None:
        # However it ends, the sender tells us again when it has something for us.
        try:
            async with self.carry(peer.facility_id) as link:
                await self._exchange.collect(link, transfer_id)
        except* NodeError as group:
            code = first_error(group).code.value
            log.info("collecting ended early", peer=peer.facility_id.short(), code=code)
        except* Exception:  # a supervisor
            log.exception("collecting failed", peer=peer.facility_id.short())

    async def _collect_decided(
        self, peer: Peer, collect: Callable[[TransferId], Awaitable[None]], transfer_id: TransferId
    ) -> None:
        # A peer that watches here is told, and offers it again by itself.
        if not self.connection(peer.facility_id).inbound:
            await collect(transfer_id)

    @asynccontextmanager
    async def carry(self, peer: FacilityId) -> AsyncGenerator[GrpcLink]:
        """See `Links.carry`."""
        connection = self.connection(peer)
        self._trust.trusted(peer)
        channel, endpoint, route = connection.emptiest, connection.endpoint, connection.route
        if channel is None or route is None:
            raise PeerUnreachable(connection.problem or "not connected")
        try:
            with self._trust.lease(peer), connection.linked(channel):
                async with self._client.carry(peer, channel, route) as link:
                    yield link
        except PeerTimeout:
            # On the own network nothing is so slow, unless somebody stands between.
            if route is Route.LAN and endpoint == connection.endpoint:
                self._lan.avoid(endpoint)
                connection.leave()
            raise

    async def _introduce(self, peer: Peer, connection: Connection) -> None:
        """Exchange present statements with a peer that cannot be connected to."""

        async def ask(address: str) -> tuple[str, Identity]:
            return address, await self._introducer.renewed(address, peer.facility_id)

        try:
            places = peer.identity.profile.introduction_endpoints
            address, identity = await first_of(places, ask)
            await self._peer_statements.accept_statements(identity)
            await self._introducer.present_statements(
                address, self._statements(), self._memberships()
            )
        except PeerUntrusted as exc:
            connection.problem = str(exc)
        except NodeError as exc:
            log.debug("not introduced", peer=peer.facility_id.short(), reason=str(exc))


async def _end_once(is_leaving: trio.Event, scope: trio.CancelScope) -> None:
    await is_leaving.wait()
    log.info("the relay asks us to leave")
    scope.cancel()


def _same_way(a: Peer, b: Peer) -> bool:
    """Whether two states of a peer are reached in the same way."""
    return (a.endpoints, a.identity.certificates) == (b.endpoints, b.identity.certificates)
