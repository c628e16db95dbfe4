"""The relay: joins two connections that show the two halves of a ticket, and sees ciphertext only.

The bytes are spliced in the kernel, through one pipe per direction, and never enter this process.
Before that a connection sends one length-prefixed message of at most 2 KiB, within ten seconds.
Everything is bounded: connections in all and from one address, waiting halves, streams and bytes of
a facility, idle time.

A connection may be wrapped in TLS, for firewalls that pass nothing else. That TLS only disguises
the connection and protects nothing; its bytes are copied instead of spliced.
"""

import math
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from directory_service.alarms import Alarms
from directory_service.fair_share import FairShare
from node.crypto.certificates import make_passing_certificate, server_context
from node.documents.tickets import (
    ALIVE,
    JOINED,
    LOOK_OUT,
    MAX_TICKET_BYTES,
    MOVE,
    TICKET_LENGTH,
    TICKET_SECONDS,
    Ticket,
    open_ticket,
)
from node.domain.ids import FacilityId
from node.errors import (
    ConfigError,
    Conflict,
    NodeError,
    PeerBusy,
    PeerTimeout,
    PeerUntrusted,
    first_error,
    public_text,
)
from node.rpc.limits import RateLimit, origin
from node.system.splicing import Connection, splice_both
from node.system.tls_stream import TlsStream

log = structlog.get_logger()
HELLO_SECONDS = 10.0
WAIT_SECONDS = 30.0
IDLE_SECONDS = 120.0
LEAVE_SECONDS = 10.0
"""For how long pairs may go on once they have been asked to leave."""

LOOK_OUT_SECONDS = 30.0
_DAY_SECONDS = 86400.0
_CONNECTIONS_A_MINUTE = 60_000
A_MINUTE_OF_STRANGER = 40
"""How often one connection place of an address can be reused within a minute."""

_TLS_HANDSHAKE = b"\x16"
"""The first byte of every TLS connection (RFC 8446, section 5.1); no ticket begins so."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the relay.

    Attributes:
        connections: Connections in all.
        unknown_of_address: Connections from one address before they have shown a ticket.
        a_minute_of_address: New connections from one address per minute; a proxy in front of the
            relay counts as one address.
        streams_of_facility: Concurrent pairs of one facility.
        streams_of_pair: Concurrent pairs of the same two facilities, so that one partner cannot use
            all of a facility's.
        waiting_of_facility: Halves that wait for the other side.
        bytes_of_facility: Bytes that a facility sends in a day; 0 for no bound.
        bytes_a_second: The rate of all pairs together, shared evenly; 0 for no bound.
    """

    connections: int = 2000
    unknown_of_address: int = 16
    a_minute_of_address: int = 16 * A_MINUTE_OF_STRANGER
    streams_of_facility: int = 16
    streams_of_pair: int = 4
    waiting_of_facility: int = 8
    bytes_of_facility: int = 0
    bytes_a_second: int = 0


@dataclass
class Figures:
    """What the relay has done since it started."""

    pairs: int = 0
    open_pairs: int = 0
    bytes: int = 0
    refused: int = 0
    bytes_of: Counter[FacilityId] = field(default_factory=Counter)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for operators."""
        return {
            "pairs": self.pairs,
            "open_pairs": self.open_pairs,
            "bytes": self.bytes,
            "refused": self.refused,
        }


@dataclass(eq=False)
class _Half:
    """A connection that waits for the other one."""

    ticket: Ticket
    stream: Connection
    joined: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)


class Relay:
    """A relay for one network."""

    def __init__(
        self,
        address: str,
        network_key: bytes,
        limits: Limits = Limits(),  # frozen
        clock: Callable[[], float] = time.time,
        alarms: Alarms | None = None,
    ) -> None:
        """Prepare; `address` is what tickets for this relay name."""
        self._alarms = alarms or Alarms(clock)
        self.figures = Figures()
        self.address = address
        self._network_key = network_key
        self._limits = limits
        self._clock = clock
        self._turns = FairShare(limits.bytes_a_second)
        self._waiting: dict[tuple[bytes, bool], _Half] = {}
        self._spent: dict[tuple[bytes, bool], int] = {}
        self._unknown_of: Counter[str] = Counter()
        self._rate = RateLimit(limits.a_minute_of_address, in_all=_CONNECTIONS_A_MINUTE)
        self._connections = 0
        self._streams: Counter[FacilityId] = Counter()
        self._pairs: Counter[frozenset[FacilityId]] = Counter()
        self._day = 0
        self._started = clock()  # tickets used before the start are not known any more
        self._leaving = trio.Event()
        self._open: dict[tuple[bytes, bool], trio.Event] = {}  # halves that are joined: their end
        self._looking_out: set[tuple[bytes, bool]] = set()
        self._tls = server_context(make_passing_certificate(clock()))

    async def serve(self, connection: trio.SocketStream) -> None:
        """Serve one connection to its end; it is closed then."""
        stream: Connection = connection
        ticket: Ticket | None = None
        async with connection:
            try:
                with self._counted():
                    with self._unknown(connection), _in_time():
                        if await connection.socket.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                            stream = TlsStream(connection, self._tls, server_side=True)
                        ticket, is_look_out = await self._read_ticket(stream)
                    await (self._look_out if is_look_out else self._serve)(stream, ticket)
            except* NodeError as group:
                await self._refuse(stream, first_error(group), is_stranger=ticket is None)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass  # it went away
            except* Exception:  # a supervisor: one connection does not end the others
                log.exception("relaying failed")

    def bound_buffers(self, connection: trio.socket.SocketType) -> None:
        """Limit the socket buffers if a rate is configured, so that little data queues here.

        Megabytes in kernel buffers would delay the peers' heartbeats beyond their timeouts.
        """
        if self._turns.buffer_bytes:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                connection.setsockopt(socket.SOL_SOCKET, option, self._turns.buffer_bytes)

    async def leave(self) -> None:
        """Ask all pairs to go to another relay, and wait a moment until they have."""
        self._leaving.set()
        with trio.move_on_after(LEAVE_SECONDS):
            while self._open:
                await next(iter(self._open.values())).wait()

    async def _look_out(self, stream: Connection, ticket: Ticket) -> None:
        """Serve a second connection, on which a node is told when to leave."""
        key = (ticket.id, ticket.is_caller)
        end = self._open.get(key)
        if end is None or key in self._looking_out:
            raise Conflict("the ticket's connection is not joined here, or looked out for already")
        self._looking_out.add(key)
        try:
            async with trio.open_nursery() as nursery:

                async def say_move() -> None:
                    # Heartbeats: a firewall in between would end a silent connection.
                    while not self._leaving.is_set():
                        with trio.move_on_after(LOOK_OUT_SECONDS):
                            await self._leaving.wait()
                        await stream.send_all(MOVE if self._leaving.is_set() else ALIVE)

                async def notice_end() -> None:
                    while await stream.receive_some(64):
                        pass
                    nursery.cancel_scope.cancel()

                nursery.start_soon(say_move)
                nursery.start_soon(notice_end)
                await end.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._looking_out.discard(key)

    async def _refuse(
        self, stream: Connection, error: NodeError, *, is_stranger: bool = False
    ) -> None:
        self.figures.refused += 1
        # A client without a ticket must not be able to fill the log.
        (log.debug if is_stranger else log.info)(
            "relay refused", code=error.code.value, reason=str(error)
        )
        gone = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)
        with suppress(*gone), trio.move_on_after(1):
            await stream.send_all(public_text(error).encode()[:200])

    async def _serve(self, stream: Connection, ticket: Ticket) -> None:
        if self._leaving.is_set():
            raise PeerBusy("the relay is about to stop")
        self._spend(ticket)
        other = self._waiting.pop((ticket.id, not ticket.is_caller), None)
        if other is not None:
            other.joined.set()  # from here on only we speak to it
            if other.ticket.other_half() != ticket:
                other.done.set()
                self._alarms.note("two connections presented halves of different relay tickets")
                raise PeerUntrusted("the two halves are of different tickets")
            try:
                await self._join(other, stream)
            except* NodeError as group:  # both sides learn why
                await self._refuse(other.stream, first_error(group))
                raise
            finally:
                other.done.set()
            return
        waiting = sum(h.ticket.facility == ticket.facility for h in self._waiting.values())
        if waiting >= self._limits.waiting_of_facility:
            raise PeerBusy("too many connections of this facility wait for their other side")
        half = self._waiting[ticket.id, ticket.is_caller] = _Half(ticket, stream)
        try:
            with trio.move_on_after(WAIT_SECONDS):
                await half.joined.wait()
        finally:
            self._waiting.pop((ticket.id, ticket.is_caller), None)
        if not half.joined.is_set():
            raise PeerTimeout(f"the other side did not connect within {WAIT_SECONDS:.0f} s")
        await half.done.wait()

    async def _read_ticket(self, stream: Connection) -> tuple[Ticket, bool]:
        (size,) = TICKET_LENGTH.unpack(await _read_exactly(stream, TICKET_LENGTH.size))
        is_look_out = bool(size & LOOK_OUT)
        size &= ~LOOK_OUT
        if not 0 < size <= MAX_TICKET_BYTES:
            raise PeerUntrusted("the connection does not begin with a relay ticket")
        data = await _read_exactly(stream, size)
        ticket = open_ticket(data, self._network_key, self._clock())
        if ticket.relay != self.address:
            raise PeerUntrusted("the ticket is for another relay")
        return ticket, is_look_out

    def _spend(self, ticket: Ticket) -> None:
        now = self._clock()
        if ticket.expires_seconds - TICKET_SECONDS < int(self._started):
            raise Conflict("the ticket was made before the relay started; ask for a new one")
        self._spent = {k: v for k, v in self._spent.items() if v > now}
        key = (ticket.id, ticket.is_caller)
        if key in self._spent:
            self._alarms.note(
                f"a relay ticket of facility {ticket.facility.short()} was used twice"
            )
            raise Conflict("the ticket was used before")
        self._spent[key] = ticket.expires_seconds

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a connection while it is there."""
        if self._connections >= self._limits.connections:
            raise PeerBusy("the relay is full; try another")
        self._connections += 1
        try:
            yield
        finally:
            self._connections -= 1

    @contextmanager
    def _unknown(self, stream: trio.SocketStream) -> Iterator[None]:
        """Count a connection by its address while it has shown nothing."""
        host = origin(str(stream.socket.getpeername()[0]))
        self._rate.count(host)
        # Half of the places are kept for those who have shown a ticket.
        if self._unknown_of.total() >= max(self._limits.connections // 2, 1):
            raise PeerBusy("the relay is full; try another")
        if self._unknown_of[host] >= self._limits.unknown_of_address:
            raise PeerBusy("too many connections from one address")
        self._unknown_of[host] += 1
        try:
            yield
        finally:
            self._unknown_of[host] -= 1
            if not self._unknown_of[host]:
                del self._unknown_of[host]

    # -- joined -------------------------------------------------------------------------------

    async def _join(self, half: _Half, stream: Connection) -> None:
        ticket = half.ticket
        with self._streams_of(ticket), self._opened(ticket):
            await half.stream.send_all(JOINED)
            await stream.send_all(JOINED)
            try:
                await self._splice_both(ticket, half.stream, stream)
            except* PeerBusy:
                pass  # the day's bytes are used up; nothing of ours may be mixed into the stream

    @contextmanager
    def _opened(self, ticket: Ticket) -> Iterator[None]:
        halves, end = [(ticket.id, True), (ticket.id, False)], trio.Event()
        self._open.update(dict.fromkeys(halves, end))
        self.figures.pairs += 1
        self.figures.open_pairs += 1
        try:
            yield
        finally:
            self.figures.open_pairs -= 1
            for key in halves:
                del self._open[key]
            end.set()

    @contextmanager
    def _streams_of(self, ticket: Ticket) -> Iterator[None]:
        both = {ticket.caller_facility, ticket.target_facility}
        pair = frozenset(both)
        if self._pairs[pair] >= self._limits.streams_of_pair:
            raise PeerBusy("these two facilities have too many streams through this relay")
        for facility in both:
            if self._streams[facility] >= self._limits.streams_of_facility:
                raise PeerBusy("a facility has too many streams through this relay")
            self._check_bytes(facility)
        self._streams.update(both)
        self._pairs[pair] += 1
        try:
            yield
        finally:
            self._streams.subtract(both)
            self._pairs[pair] -= 1
            self._streams, self._pairs = +self._streams, +self._pairs

    def _check_bytes(self, facility: FacilityId) -> None:
        day = int(self._clock() // _DAY_SECONDS)
        if day != self._day:
            self._day = day
            self.figures.bytes_of.clear()
        bound = self._limits.bytes_of_facility
        if bound and self.figures.bytes_of[facility] >= bound:
            raise PeerBusy("a facility has used up its daily quota at this relay")

    async def _splice_both(self, ticket: Ticket, a: Connection, b: Connection) -> None:
        """Splice both ways until both have ended, or nothing has come for too long.

        `a` shows `ticket`, `b` its other half.
        """
        pair = frozenset({ticket.caller_facility, ticket.target_facility})
        waiting = 0  # directions that wait for their turn: they are not idle

        async def admit(sender: FacilityId, count: int) -> None:
            nonlocal waiting
            self._check_bytes(sender)
            waiting += 1
            idle.deadline = math.inf
            await self._turns.wait(pair, count)
            waiting -= 1
            if not waiting:
                idle.deadline = trio.current_time() + IDLE_SECONDS
            self.figures.bytes += count
            self.figures.bytes_of[sender] += count  # or a partner could use up the other's

        from_a, from_b = ticket.facility, ticket.other_half().facility
        with trio.move_on_after(IDLE_SECONDS) as idle:
            await splice_both(
                a,
                b,
                partial(admit, from_a),
                partial(admit, from_b),
                piece_bytes=self._turns.piece_bytes,
            )


@contextmanager
def _in_time() -> Iterator[None]:
    with trio.move_on_after(HELLO_SECONDS) as waiting:
        yield
    if waiting.cancelled_caught:
        raise PeerTimeout(f"no ticket was presented within {HELLO_SECONDS:.0f} s")


async def _read_exactly(stream: Connection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise PeerUntrusted("the connection ended before its ticket")
        data += piece
    return data


@asynccontextmanager
async def serve_relay(relay: Relay, listen: str) -> AsyncGenerator[int]:
    """Serve a relay for the time of the block.

    Yields:
        The port that was bound.

    Raises:
        ConfigError: the address cannot be bound.
    """
    host, _, port = listen.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{listen} is not an address of the form HOST:PORT")
    try:
        listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    except OSError as exc:
        raise ConfigError(f"{listen} cannot be bound; another program may use it") from exc
    bound: int = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        # Trio's own loop waits a moment where the system lacks file descriptors or memory.
        nursery.start_soon(trio.serve_listeners, partial(_take, relay), listeners)
        yield bound
        nursery.cancel_scope.cancel()


async def _take(relay: Relay, stream: trio.SocketStream) -> None:
    _notice_silence(stream.socket)
    relay.bound_buffers(stream.socket)
    await relay.serve(stream)


def _notice_silence(connection: trio.socket.SocketType) -> None:
    """Have the kernel end a connection whose other end has disappeared (TCP keepalive)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
