"""Connections through a relay.

The side that asked for a ticket listens on a Unix socket in its home. Its own gRPC channel connects
there, and that connection is joined with the relay. The other side joins the relay with its own
peer service. Both pipes are spliced in the kernel. Neither is trusted: the peers' mutual TLS runs
inside.

For firewalls that let only TLS through, an outer TLS session runs around that. It is a disguise and
no protection, so it verifies nobody: a relay is not trusted.
"""

import errno
import math
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import structlog
import trio

from node.documents.network import Network
from node.documents.tickets import (
    JOINED,
    LOOK_OUT,
    MOVE,
    TICKET_LENGTH,
    Ticket,
    open_ticket,
)
from node.documents.tickets import SKEW_SECONDS as TICKET_SKEW_SECONDS
from node.domain.display_text import printable
from node.domain.events import TicketShown
from node.domain.ids import FacilityId, NetworkId, NodeId
from node.domain.relays import RelayPolicy
from node.errors import (
    DocumentError,
    LinkAltered,
    NodeError,
    PeerLeft,
    PeerRefused,
    PeerTimeout,
    PeerUnreachable,
    first_error,
)
from node.federation.routes.dialing import Dialer, split, within_tls
from node.rpc.descriptors import spliced
from node.rpc.unix import unix_address
from node.system import clock
from node.system.splicing import Connection, splice_both

log = structlog.get_logger()
TLS_PORT = 443
JOIN_SECONDS = 10.0  # the other side is online, or we would have no ticket
MAX_ACCEPTED = 64
SHARE = 1 / 8
"""The share of the file descriptors for connections that peers make through relays."""
MAX_ACCEPTED_OF_FACILITY = 2
_AVOID_SECONDS = 60.0
_MAX_AVOIDED = 16
_NOTICE_SECONDS = 1.0
_SILENT_SECONDS = 30.0  # more than gRPC's pings take, which end a silent connection
_BREAKS, _BREAKS_SECONDS, _ONE_BREAK_SECONDS = 3, 3600.0, 0.5


@dataclass(frozen=True)
class Way:
    """A connection through a relay.

    Attributes:
        address: The local address to which gRPC can connect, once.
        relay: The relay's address.
        is_leaving: Set when the relay asks us to use another.
    """

    address: str
    relay: str
    is_leaving: trio.Event = field(default_factory=trio.Event)
    _pipe: "_Pipe" = field(default_factory=lambda: _Pipe())

    async def was_given_up(self) -> bool:
        """Whether our own end was closed first, while the relay's was open and not silent.

        gRPC closes it when the received bytes are not what the other side's TLS sent. Call this
        before closing the connection.
        """
        with trio.move_on_after(_NOTICE_SECONDS):
            await self._pipe.ended.wait()
        pipe = self._pipe
        return pipe.is_ended_here and trio.current_time() - pipe.heard_time < _SILENT_SECONDS


@dataclass
class _Pipe:
    """Joins the two ends of a way, and observes when they close and when bytes come.

    Attributes:
        ended: Set once one of the ends was closed.
        is_ended_here: Whether that was our end, not the relay's.
        heard_time: When bytes came last, by trio's clock.
    """

    ended: trio.Event = field(default_factory=trio.Event)
    is_ended_here: bool = False
    heard_time: float = -math.inf

    async def carry(self, listener: trio.socket.SocketType, relay: Connection) -> None:
        """Join the connection that is made here with the relay's, until both have ended."""
        connection, _ = await listener.accept()
        async with trio.SocketStream(connection) as ours:

            def on_end(which: Connection) -> None:
                if not self.ended.is_set():
                    self.is_ended_here = which is ours
                    self.ended.set()

            try:
                await splice_both(relay, ours, self._note, _at_once, on_end=on_end)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # an end went away

    async def _note(self, _: int) -> None:
        self.heard_time = trio.current_time()


class KnownNetworks(Protocol):
    """This facility's networks; `node.exchange.membership.memberships` implements it."""

    def get(self, network: NetworkId) -> Network | None:
        """Return a network; None for one that this facility is not in."""

    def all(self) -> list[Network]:
        """Return all networks."""


class Tickets(Protocol):
    """Asks directories for relay tickets; `node.federation.directory.directories` does."""

    async def ask_ticket(
        self, facility: FacilityId, relays: Sequence[str], avoid: Sequence[str]
    ) -> tuple[Network, bytes]:
        """Return our half of a ticket to a facility's node, and whose it is."""


@dataclass(frozen=True, slots=True)
class OwnTicket:
    """Our half of a ticket that was verified, for one way.

    Attributes:
        network: The network whose directory gave it.
        relay: The relay where the two sides meet.
        encoded: The half of the ticket to show to the relay.
    """

    network: NetworkId
    relay: str
    encoded: bytes


class Relaying:
    """This node's ways through relays. Run it for the life of the node."""

    def __init__(
        self,
        *,
        me: NodeId,
        home: Path,
        peer_service: Callable[[], str],
        networks: KnownNetworks,
        tickets: Tickets,
        admit: Callable[[FacilityId], Awaitable[bool]],
        report_forgery: Callable[[NetworkId, str], Awaitable[None]],
        policy: Callable[[], RelayPolicy],
        dialer: Dialer,
        tls: str,
        brought: Callable[[str, int, str], AbstractContextManager[None]],
    ) -> None:
        """Prepare.

        Args:
            me: This node.
            home: Where the sockets are made; only its owner can open it.
            peer_service: Returns where our own peer service is bound.
            networks: The networks of this facility.
            tickets: Asks directories for tickets.
            admit: Whether a facility is trusted, or is a member that can be met now.
            report_forgery: Raises an alarm about a network's directory or relay.
            policy: Returns which relays may be used, as it is set now.
            dialer: Makes the connections.
            tls: When to use TLS to a relay: `always`, `never`, or `auto`: if its port is that of
                HTTPS.
            brought: Counts a connection from an address of ours to the peer service for the
                facility that came by relay.
        """
        self._brought = brought
        self._dialer = dialer
        self._tls = tls
        self._me = me
        self._home = home
        self._peer_service = peer_service
        self._networks = networks
        self._tickets = tickets
        self._admit = admit
        self._report_forgery = report_forgery
        self._policy = policy
        self._nursery: trio.Nursery
        self._most = spliced(MAX_ACCEPTED, SHARE)
        self._running: dict[bytes, FacilityId] = {}  # by ticket
        self._spent: dict[bytes, int] = {}
        self._avoided: dict[str, float] = {}  # relays, until when
        self._broke: dict[str, list[float]] = {}  # relays, when a connection broke there
        self._accepted: set[str] = set()  # our own ends of connections that came by relay

    async def run(self) -> None:
        """Run the connections that peers make through relays, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    def is_relayed(self, address: str) -> bool:
        """Whether a call to our peer service, from an address as gRPC writes it, came by relay."""
        return unquote(address).partition(":")[2] in self._accepted

    # -- asked for by others --------------------------------------------------------------

    async def accept_ticket(self, shown: TicketShown) -> None:
        """Go to a relay where a trusted peer waits for us.

        Raises:
            DocumentError: the ticket is not the network's, or not for us, or was used before.
        """
        network, encoded = self._networks.get(shown.network), shown.encoded
        if network is None:
            return  # it was left just now
        ticket = _opened(network, encoded)
        if ticket.is_caller or ticket.target != self._me:
            raise DocumentError("it is for another node")
        caller = ticket.caller_facility
        if not self._policy().allows(ticket.relay) or not await self._admit(caller):
            log.info("relay ticket ignored", peer=ticket.caller_facility.short())
            return
        running = sum(f == ticket.caller_facility for f in self._running.values())
        if running < MAX_ACCEPTED_OF_FACILITY and len(self._running) < self._most:
            self._spend(ticket)
            self._running[ticket.id] = ticket.caller_facility
            self._nursery.start_soon(self._accept, ticket, encoded)

    async def _accept(self, ticket: Ticket, encoded: bytes) -> None:
        try:
            async with (
                _closed_after(await self._joined(ticket.relay, encoded)) as relay,
                await self._dialer.connect(self._peer_service()) as ours,
            ):
                host, port, *_ = ours.socket.getsockname()
                end = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                self._accepted.add(end)
                try:
                    with self._brought(host, port, f"relayed {ticket.caller_facility}"):
                        await splice_both(relay, ours, _at_once, _at_once)
                finally:
                    self._accepted.discard(end)
        except* NodeError as group:
            log.info("relay not used", reason=str(first_error(group)))
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # an end went away
        except* Exception:  # a supervisor
            log.exception("relaying failed")
        finally:
            del self._running[ticket.id]

    def _spend(self, ticket: Ticket) -> None:
        now = clock.now()
        self._spent = {k: v for k, v in self._spent.items() if v > now}
        if ticket.id in self._spent:
            raise DocumentError("it was used before")
        self._spent[ticket.id] = ticket.expires_seconds + TICKET_SKEW_SECONDS

    # -- asked for by us ------------------------------------------------------------------

    def avoided(self) -> list[str]:
        """Return the relays that did not work just now, or asked us to leave."""
        now = trio.current_time()
        self._avoided = {relay: t for relay, t in self._avoided.items() if t > now}
        return list(self._avoided)

    def _avoid(self, relay: str) -> None:
        if len(self.avoided()) < _MAX_AVOIDED:
            self._avoided[relay] = trio.current_time() + _AVOID_SECONDS

    def suspicion(self, relay: str, error: NodeError, *, was_connected: bool) -> str:
        """Return why a connection's error makes its relay suspect; empty if it does not.

        A relay that alters bytes towards us is detected at once. One that alters bytes towards the
        other side looks like a broken connection, which an honest relay may have now and then; only
        several within an hour are suspect.
        """
        if isinstance(error, PeerLeft):
            return ""
        self._avoid(relay)
        if not was_connected and not isinstance(error, PeerTimeout):
            return f"the relay {relay} connected another facility than the one asked for"
        if isinstance(error, LinkAltered):
            return f"the relay {relay} altered bytes"
        now = trio.current_time()
        recent = [t for t in self._broke.pop(relay, []) if now - t < _BREAKS_SECONDS]
        if recent and now - recent[-1] < _ONE_BREAK_SECONDS:
            recent.pop()  # our own line broke, and all that came by relay with it
        while len(self._broke) >= _MAX_AVOIDED:
            del self._broke[next(iter(self._broke))]
        self._broke[relay] = recent = [*recent, now]
        if len(recent) < _BREAKS:
            return ""
        del self._broke[relay]
        return f"{_BREAKS} connections by the relay {relay} broke within an hour, or were altered"

    @property
    def is_networked(self) -> bool:
        """Whether this facility is in a network, which may have relays."""
        return bool(self._networks.all())

    async def ticket_to(self, peer: FacilityId) -> OwnTicket:
        """Ask the directories for a ticket to a peer, and verify our half of it.

        Raises:
            DocumentError: it is not the network's, or not for us and that peer, or was used
                before. That is an alarm, too.
            PeerRefused: the policy forbids the relay.
            NodeError: the policy allows no relay, or no directory has a ticket.
        """
        policy = self._policy()
        if policy.is_never:
            raise PeerUnreachable("there is no direct route, and the policy allows no relay")
        network, encoded = await self._tickets.ask_ticket(peer, policy.only, self.avoided())
        try:
            ticket = self._checked(network, encoded, peer)
        except DocumentError as exc:
            problem = f"a relay ticket that does not verify: {exc}"
            await self._report_forgery(network.id, problem)
            raise
        if not policy.allows(ticket.relay):
            raise PeerRefused(f"this node's settings do not allow the relay {ticket.relay}")
        return OwnTicket(network.id, ticket.relay, encoded)

    def _checked(self, network: Network, encoded: bytes, peer: FacilityId) -> Ticket:
        ticket = _opened(network, encoded)
        if not ticket.is_caller or (ticket.caller, ticket.target_facility) != (self._me, peer):
            raise DocumentError("it is for another node")
        self._spend(ticket)
        return ticket

    async def report_broken(
        self, ticket: OwnTicket, error: NodeError, *, was_connected: bool
    ) -> None:
        """Raise an alarm if a connection that ended with an error makes its relay suspect."""
        problem = self.suspicion(ticket.relay, error, was_connected=was_connected)
        if problem:
            await self._report_forgery(ticket.network, problem)

    @asynccontextmanager
    async def way(self, ticket: OwnTicket) -> AsyncGenerator[Way]:
        """Open a way to a peer with our half of a ticket, for the time of the block.

        Raises:
            PeerRefused: the relay refuses.
            PeerUnreachable: the relay is not there, or the other side did not come.
        """
        encoded = ticket.encoded
        try:
            joined = await self._joined(ticket.relay, encoded)
        except PeerUnreachable:
            self._avoid(ticket.relay)
            raise
        async with _closed_after(joined) as relay:
            listener, path = await _bound(self._home)
            way = Way(unix_address(path.resolve()), ticket.relay)
            try:
                path.chmod(0o600)
                listener.listen(1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(way._pipe.carry, listener, relay)
                    nursery.start_soon(self._look_out, way, encoded)
                    yield way
                    nursery.cancel_scope.cancel()
            finally:
                listener.close()
                path.unlink(missing_ok=True)

    async def _look_out(self, way: Way, half: bytes) -> None:
        """Listen, on a second connection, for the relay's notice that it is about to stop."""
        # If this fails, the relay's stop breaks the connection, which is handled anyway.
        with suppress(PeerUnreachable, trio.BrokenResourceError, OSError):
            async with _closed_after(await self._connected(way.relay)) as stream:
                await stream.send_all(TICKET_LENGTH.pack(LOOK_OUT | len(half)) + half)
                while heard := bytes(await stream.receive_some(1)):  # signs of life, until
                    if heard == MOVE:
                        self._avoid(way.relay)
                        way.is_leaving.set()
                        return

    async def _joined(self, address: str, half: bytes) -> Connection:
        """Return a connection to a relay that has joined it with the other side's."""
        stream = await self._connected(address)
        said = b""
        try:
            with trio.move_on_after(JOIN_SECONDS):
                await stream.send_all(TICKET_LENGTH.pack(len(half)) + half)
                said = bytes(await stream.receive_some(1))
                if said == JOINED:
                    return stream
                said += bytes(await stream.receive_some(200))
        except (trio.BrokenResourceError, OSError):
            pass  # it says nothing more
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        await trio.aclose_forcefully(stream)
        reason = printable(said.decode("ascii", "replace")) or "nothing"
        raise PeerUnreachable(f"the relay {address} says: {reason}")

    async def _connected(self, address: str) -> Connection:
        stream = await self._dialer.connect(address)
        if self._tls == "always" or (self._tls == "auto" and split(address)[1] == TLS_PORT):
            return await within_tls(stream, address)
        return stream


def _opened(network: Network, encoded: bytes) -> Ticket:
    return open_ticket(encoded, network.network_key, clock.now(), skew_seconds=TICKET_SKEW_SECONDS)


@asynccontextmanager
async def _closed_after(stream: Connection) -> AsyncGenerator[Connection]:
    """Close a connection after the block, without a word: TLS would wait for the other side's."""
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def _bound(home: Path) -> tuple[trio.socket.SocketType, Path]:
    """Return a socket bound to a new path in the home, no longer than the admin socket's."""
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    while True:
        path = home / f"w{secrets.token_hex(2)}.sock"
        try:
            await listener.bind(str(path))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                continue
            listener.close()
            raise PeerUnreachable("no socket can be made in the home") from exc
        except BaseException:
            listener.close()
            raise
        return listener, path


def remove_ways(home: Path) -> None:
    """Remove the sockets that a killed node left."""
    for path in home.glob("w????.sock"):
        path.unlink(missing_ok=True)


async def _at_once(_: int) -> None:
    return
