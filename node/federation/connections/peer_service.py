"""The peer service, which only trusted peers may call."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import structlog
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.crypto.signing import facility_id
from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.connections import Route
from node.domain.ids import FacilityId, TransferId
from node.errors import (
    ForeignNode,
    NodeError,
    PeerBusy,
    PeerTimeout,
    PeerUntrusted,
    RemoteProtocolError,
    UsageError,
    ungrouped,
)
from node.federation.connections.capabilities import Capabilities
from node.federation.connections.deletions import DeletionReports
from node.federation.connections.link import GrpcLink, open_link
from node.federation.connections.list_exchange import ListExchange
from node.federation.connections.trust import Trust
from node.federation.connections.wire import CARRY
from node.federation.connections.witnessing import Witnessing
from node.pace import Pace
from node.rpc.limits import Places, RateLimit
from node.rpc.serving import Call, Handler, Service
from node.system import clock
from node.version import SOFTWARE

log = structlog.get_logger()
PROTOCOL_VERSION = 1
MAX_CLOCK_SKEW_SECONDS = 600
WATCH_HEARTBEAT_SECONDS = 10.0
HELLOS_A_MINUTE = 120
"""Limit for one peer; its node says one every 15 seconds on each connection."""

MAX_CARRIES = 32
"""Of one peer at once."""

BEGIN_SECONDS = 60.0
"""Within which a transfer's first message comes."""

MAX_CALLS = 48
"""Calls of one peer at once: its transfers, its watch, and all others."""

WATCHES_A_SECOND, WATCHES_AT_ONCE = 0.5, 10.0
"""How fast one peer may open watches; each looks through what waits for it."""

CALLS_A_SECOND, CALLS_AT_ONCE = 25.0, 100.0
"""Of one peer, of whatever kind. One call may carry a hundred transfers."""

LINES_A_MINUTE = 60
"""In the log, of one peer's transfers that ended early."""


class Waiting(Protocol):
    """Transfers that wait for one peer."""

    async def run(self, notify: Any) -> None:
        """Call `notify` for each, now and later, for ever."""


class Exchange(Protocol):
    """The use cases behind a peer's calls; `node.exchange` implements it."""

    async def serve_link(self, link: GrpcLink, *, is_first: bool) -> bool:
        """Run the next transfer that a peer comes with; return whether another may follow."""

    def watch_waiting(self, peer: FacilityId) -> Waiting:
        """Return the transfers that wait for a peer."""

    async def watch_decided(self, peer: FacilityId, notify: Any) -> None:
        """Call `notify` for each offer of a peer that a person decides about, for ever."""

    def decided(self, peer: FacilityId, transfer_id: TransferId) -> None:
        """Hear that a person at a peer has decided about an offer of ours."""

    async def collect(self, link: GrpcLink, transfer_id: TransferId) -> None:
        """Collect a transfer that waits at a peer which we dialled."""

    async def run_peer(self, peer: FacilityId) -> None:
        """Send what waits for a peer that can be dialled, for ever."""


class PeerStatements(Protocol):
    """Accepts new statements of peers."""

    async def accept_statements(self, identity: Identity) -> None:
        """Keep newer statements of a pinned facility; ignore others."""

    async def report_forged(self, facility: FacilityId, problem: str) -> None:
        """Report an invalid document that a facility signed."""

    async def note_seen(self, facility: FacilityId) -> None:
        """Record that a peer was seen just now."""


class ExchangeServer:
    """Handlers of the peer service."""

    def __init__(
        self,
        trust: Trust,
        exchange: Exchange,
        peer_statements: PeerStatements,
        statements: "Statements",
        ways: "Ways",
        list_exchange: ListExchange,
        witnessing: Witnessing,
        deletions: DeletionReports,
        capabilities: Capabilities,
        door: "Door",
    ) -> None:
        self._capabilities = capabilities
        self._witnessing = witnessing
        self._deletions = deletions
        self._door = door
        self._places = Places(MAX_CALLS)
        self._calls = Pace(CALLS_A_SECOND, burst=CALLS_AT_ONCE)
        self._ways = ways
        self._list_exchange = list_exchange
        self._watches: dict[FacilityId, trio.CancelScope] = {}
        self._carries: Counter[FacilityId] = Counter()
        self._hellos = RateLimit(HELLOS_A_MINUTE, in_all=10**6)
        self._watching = Pace(WATCHES_A_SECOND, burst=WATCHES_AT_ONCE)
        self._lines = RateLimit(LINES_A_MINUTE, in_all=10**6)
        self._trust = trust
        self._exchange = exchange
        self._peer_statements = peer_statements
        self._statements = statements

    def service(self) -> Service:
        """Return the service to serve, every method of it behind the guard."""
        handlers: dict[str, Handler] = {
            "Hello": self._hello,
            "GetList": self._list_exchange.get_list,
            "GiveList": self._list_exchange.give_list,
            "GetAuditHeads": self._witnessing.get_heads,
            "Watch": self._watch,
            "Carry": self._carry,
        }
        descriptor = pb.DESCRIPTOR.services_by_name["ExchangeService"]
        return Service(descriptor, handlers, self._guard, {"Carry": CARRY})

    async def _guard(self, call: Call[Peer]) -> Peer:
        try:
            peer = self._trust.identify(call.certificate)
        except PeerUntrusted as exc:
            log.warning("call refused", method=call.method.name, reason=str(exc))
            self._door.lost(call.address)
            raise
        call.account = str(peer.facility_id)
        self._door.met(call.address, call.account)
        self._places.take(call.account, call.on_end)
        if wait := self._calls.wait_seconds(call.account):
            raise PeerBusy("too many calls a second; try again later", wait)
        if not call.method.is_response_stream and not call.has_deadline:
            raise UsageError("unary calls need a deadline")
        return peer

    async def _hello(self, call: Call[Peer]) -> pb.HelloResponse:
        request: pb.HelloRequest = call.request
        self._hellos.count(str(call.caller.facility_id))
        if not request.min_version <= PROTOCOL_VERSION <= request.max_version:
            raise RemoteProtocolError(
                f"no protocol version in common: this node speaks {PROTOCOL_VERSION}"
            )
        check_clock(call.caller.facility_id, request.time_milliseconds)
        self._capabilities.note(call.caller.facility_id, request.capabilities)
        await take_statements(self._peer_statements, call.caller.facility_id, request.statements)
        await self._peer_statements.note_seen(call.caller.facility_id)
        await self._witnessing.accept(call.caller, request.audit_head, request.kept_heads)
        confirmed = await self._deletions.accept(
            call.caller.facility_id, request.deletions, request.confirmed_deletions
        )
        return pb.HelloResponse(
            version=PROTOCOL_VERSION,
            time_milliseconds=time.time_ns() // 1_000_000,
            software=SOFTWARE,
            statements=self._statements(),
            lists=self._list_exchange.known(call.caller.facility_id),
            audit_head=await self._witnessing.give(call.caller.facility_id),
            kept_heads=await self._witnessing.report(call.caller),
            deletions=await self._deletions.give(call.caller.facility_id),
            confirmed_deletions=confirmed,
            capabilities=self._capabilities.ours,
        )

    async def _watch(self, call: Call[Peer]) -> None:
        writing = trio.Lock()

        async def write(message: pb.WatchResponse) -> None:
            async with writing:
                await call.write(message)

        async def beat() -> None:
            while True:
                await write(pb.WatchResponse())
                await trio.sleep(WATCH_HEARTBEAT_SECONDS)

        async def notify(transfer_id: TransferId) -> None:
            await write(pb.WatchResponse(transfer_id=transfer_id.value))

        async def notify_decided(transfer_id: TransferId) -> None:
            await write(pb.WatchResponse(decided_transfer_id=transfer_id.value))

        peer = call.caller.facility_id
        await self._watching.turn(peer)
        route = self._ways.route_of(call.address)
        with (
            self._only_watch(peer),
            self._trust.lease(peer),
            self._ways.opened_by(peer, route),
            ungrouped(),
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beat)
                nursery.start_soon(self._exchange.watch_decided, peer, notify_decided)
                await self._exchange.watch_waiting(peer).run(notify)

    @contextmanager
    def _only_watch(self, peer: FacilityId) -> Iterator[None]:
        """End an earlier watch of the same peer: it has lost it, or it takes others' places."""
        with trio.CancelScope() as scope:
            earlier, self._watches[peer] = self._watches.get(peer), scope
            if earlier is not None:
                earlier.cancel()
            try:
                yield
            finally:
                if self._watches.get(peer) is scope:
                    del self._watches[peer]

    @contextmanager
    def _place(self, peer: FacilityId) -> Iterator[None]:
        """Take one of a peer's places; see that there is one first."""
        if self._carries[peer] >= MAX_CARRIES:
            raise PeerBusy("too many transfers at once; try again later", 30)
        self._carries[peer] += 1
        try:
            yield
        finally:
            self._carries[peer] -= 1
            self._carries = +self._carries

    async def _carry(self, call: Call[Peer]) -> None:
        peer = call.caller.facility_id
        with self._place(peer), self._trust.lease(peer), ungrouped():
            await self._serve_link(call)

    async def _serve_link(self, call: Call[Peer]) -> None:
        # Signs of life alone would hold a place for ever.
        waiting = trio.CancelScope(deadline=trio.current_time() + BEGIN_SECONDS)

        def heard() -> None:
            waiting.deadline = math.inf

        peer = call.caller.facility_id
        link = GrpcLink(
            peer,
            self._ways.route_of(call.address),
            call.read_bytes,
            call.write,
            self._capabilities.of,
            heard,
        )
        with waiting:
            async with open_link(link):
                try:
                    is_first = True
                    while await self._exchange.serve_link(link, is_first=is_first):
                        is_first = False
                        waiting.deadline = trio.current_time() + BEGIN_SECONDS
                except NodeError as exc:
                    if self._may_log(peer):
                        log.info("transfer ended early", peer=peer.short(), code=exc.code.value)
                    raise
        if waiting.cancelled_caught:
            raise PeerTimeout(f"nothing was offered or asked for within {BEGIN_SECONDS:.0f} s")

    def _may_log(self, peer: FacilityId) -> bool:
        """Return whether one more line about a peer's transfers may be written this minute."""
        try:
            self._lines.count(str(peer))
        except PeerBusy:
            return False
        return True


class Door(Protocol):
    """Bounds the connections of the peer service; `node.rpc.warden` does."""

    def met(self, address: str, account: str) -> None:
        """Note that a call of a peer was let in."""

    def lost(self, address: str) -> None:
        """Note that a call was refused."""


class Ways(Protocol):
    """The routes of incoming calls; `node.federation.connections.supervisor` implements it."""

    def route_of(self, address: str) -> Route:
        """Return the route by which a call from an address came."""

    def opened_by(self, facility: FacilityId, route: Route) -> AbstractContextManager[None]:
        """Note that a peer watches here, for the time of the block."""


class Statements(Protocol):
    """Returns this node's encoded statements as they now are."""

    def __call__(self) -> bytes:
        """Return them."""


def check_clock(facility: FacilityId, time_milliseconds: int) -> None:
    """Check that a peer's clock is not far from ours; `UsageError` says by how much.

    The comparison uses the wall clock, even if it is suspect: an agreeing peer confirms it. The
    error may be shown on either side, so it names the facility whose clock differs.
    """
    shown = time_milliseconds / 1000
    clock.CLOCK.heard(facility, shown)
    skew = shown - time.time()
    if abs(skew) > MAX_CLOCK_SKEW_SECONDS:
        where = "ahead of" if skew > 0 else "behind"
        raise UsageError(
            f"the clock of facility {facility.short()} is {clock.shown_seconds(abs(skew))} {where}"
            " the other's; correct the wrong one (NTP)"
        )


async def take_statements(
    peer_statements: PeerStatements, facility: FacilityId, encoded: bytes
) -> None:
    """Take a peer's statements, if they are its own."""
    if not encoded:
        return
    identity = await decode_statements(peer_statements, encoded)
    if identity.facility_id != facility:
        raise RemoteProtocolError("the statements are another facility's")
    await peer_statements.accept_statements(identity)


async def decode_statements(peer_statements: PeerStatements, encoded: bytes) -> Identity:
    """Return the verified identity in statements.

    A facility that certified another facility's node is reported.

    Raises:
        DocumentError: as `Identity.decode`.
    """
    try:
        return Identity.decode(encoded)
    except ForeignNode as exc:
        await peer_statements.report_forged(facility_id(exc.facility_key), str(exc))
        raise
