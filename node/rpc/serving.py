"""Serving: every method of every service goes through one wrapper, which denies by default.

A handler is a trio function of one `Call`. The wrapper asks the guard who calls, then reads the
request's bytes, checks them against the method's bound, parses them, and runs the handler. It turns
our errors into status; any other exception is logged, and the caller gets no detail of it.

How memory is bounded. gRPC would read and parse a unary request before any code of ours runs. On
the wire a unary request is a stream of one message, so every method is registered as one that reads
a stream: nothing is read for a caller whom the guard refuses. gRPC itself refuses a message whose
length prefix exceeds the largest bound among the server's methods. docs/threat-model.md computes
how much memory one port can hold at most.
"""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
import structlog
import trio
import trio_asyncio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from node.errors import (
    ConfigError,
    NodeError,
    PeerBusy,
    PeerTimeout,
    PeerUnreachable,
    RemoteProtocolError,
    first_error,
    public_text,
)
from node.rpc.bounds import SMALL, Bound, parse
from node.rpc.limits import caller_origin
from node.rpc.methods import Method, encoded, methods
from node.rpc.options import PING_MILLISECONDS, merged
from node.rpc.refusing import Door, Refusals
from node.rpc.status import to_status

log = structlog.get_logger()
Caller = TypeVar("Caller")


class Call(Generic[Caller]):
    """One call as its handler sees it.

    Attributes:
        method: Which RPC.
        caller: The caller, as the guard returned it.
        account: The account against which the call is limited: by default the origin of its
            address; the guard may set another.
        metadata: The caller's metadata.
    """

    def __init__(
        self,
        method: Method[Any, Any],
        context: Any,
        metadata: Mapping[str, str],
        bound: Bound,
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.caller: Caller
        self._context = context
        self.account = caller_origin(self.address)
        self._bound = bound
        self._request: Any = None

    @property
    def certificate(self) -> bytes | None:
        """The caller's TLS certificate, PEM, if it showed one."""
        found = self._context.auth_context().get("x509_pem_cert")
        return found[0] if found else None

    @property
    def has_deadline(self) -> bool:
        """Whether the caller will not wait for ever."""
        return self._context.time_remaining() is not None

    @property
    def address(self) -> str:
        """Where the call comes from, as gRPC writes it."""
        return str(self._context.peer())

    async def read(self) -> Any:
        """Return the next message of a request stream; None at its end.

        Raises:
            PeerUnreachable: the caller's connection is gone.
            RemoteProtocolError: the message is over the method's bound, or none of its kind.
        """
        data = await self.read_bytes()
        return None if data is None else parse(self.method.request, data, self._bound)

    async def read_bytes(self) -> bytes | None:
        """Return the next message of a request stream as it came; raises as `read` does.

        The server bounds its size. Nothing else is checked.
        """
        data = await self._ask(self._context.read)
        if data is grpc.aio.EOF:
            return None
        found: bytes = data
        return found

    async def write(self, message: Message | bytes) -> None:
        """Send the next message of a response stream, encoded or not; raises as `read` does."""
        await self._ask(self._context.write, message)

    async def _ask(self, what: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await trio_asyncio.aio_as_trio(what)(*arguments)
        except grpc.aio.InternalError as exc:
            raise PeerUnreachable("the caller's connection is gone") from exc

    def on_end(self, work: Callable[[], None]) -> None:
        """Have something done once the call is over: all of its answer is sent, or nobody waits."""
        self._context.add_done_callback(lambda _: work())

    @property
    def request(self) -> Any:
        """The request of a method that takes one."""
        return self._request


Handler = Callable[[Call[Any]], Awaitable[Message | None]]
Guard = Callable[[Call[Any]], Awaitable[Any]]


@dataclass(frozen=True)
class Service:
    """A service's descriptor, the handlers of all its methods, and who may call them.

    Attributes:
        bounds: What a message of a request is at most, for those methods that need more than
            `SMALL`.
    """

    descriptor: ServiceDescriptor
    handlers: Mapping[str, Handler]
    guard: Guard
    bounds: Mapping[str, Bound] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {m.name for m in methods(self.descriptor)}
        missing = names ^ set(self.handlers) | set(self.bounds) - names
        if missing:
            raise TypeError(f"{self.descriptor.full_name}: handlers do not fit: {missing}")

    def bound(self, name: str) -> Bound:
        """Return what a message of a method's request is at most."""
        return self.bounds.get(name, SMALL)

    @property
    def largest_bytes(self) -> int:
        """The largest message that any of the methods reads."""
        return max(self.bound(name).size for name in self.handlers)


class _Reading:
    """Reads single requests; bounds how many of each caller are incomplete at once."""

    def __init__(self, most_of_caller: int, seconds: float) -> None:
        self._most = most_of_caller
        self._seconds = seconds
        self._of_caller: Counter[str] = Counter()

    async def request(self, call: Call[Any]) -> Any:
        """Return the one request of a call.

        Raises:
            NodeError: none comes, not in time, or the caller has too many on their way.
        """
        with self._place(call.account), trio.move_on_after(self._seconds) as waiting:
            found = await call.read()
        if waiting.cancelled_caught:
            raise PeerTimeout(f"no request arrived within {self._seconds:.0f} s")
        if found is None:
            raise RemoteProtocolError("the call ended without a request")
        return found

    @contextmanager
    def _place(self, account: str) -> Iterator[None]:
        if self._of_caller[account] >= self._most:
            raise PeerBusy("too many requests at once; try again", 1)
        self._of_caller[account] += 1
        try:
            yield
        finally:
            self._of_caller[account] -= 1
            if not self._of_caller[account]:
                del self._of_caller[account]


class _Behavior:
    """Runs one method's handler in trio, for gRPC's asyncio server."""

    def __init__(
        self,
        method: Method[Any, Any],
        service: Service,
        reading: _Reading,
        refusals: Refusals | None,
    ) -> None:
        self._method = method
        self._service = service
        self._reading = reading
        self._refusals = refusals

    async def run(self, _: Any, context: Any) -> Any:
        outcome = await trio_asyncio.trio_as_aio(self._run)(context)
        if isinstance(outcome, tuple):
            status, details, metadata = outcome
            await context.abort(status, details, metadata)
        return outcome

    async def _run(self, context: Any) -> Any:
        metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
        bound = self._service.bound(self._method.name)
        call: Call[Any] = Call(self._method, context, metadata, bound)
        outcome: Any
        try:
            call.caller = await self._service.guard(call)
            if not self._method.is_request_stream:
                call._request = await self._reading.request(call)
            outcome = await self._service.handlers[self._method.name](call)
        except* NodeError as group:
            error = first_error(group)
            if isinstance(error, PeerBusy) and self._refusals is not None:
                await self._refusals.hold(call.address, call.account)
            is_local = self._refusals is None
            outcome = to_status(error, is_local=is_local)
            if not is_local and public_text(error) != str(error):
                log.warning("call failed", method=self._method.path, reason=str(error))
        except* Exception:  # a supervisor: one failed call does not end the node
            log.exception("call failed", method=self._method.path)
            outcome = grpc.StatusCode.INTERNAL, "internal error; see the node's log", ()
        return outcome


_COMMON_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", 4 * 2**20),  # what stock clients take
    ("grpc.max_metadata_size", 8192),
    ("grpc.absolute_max_metadata_size", 16384),
)
PEER_OPTIONS = (
    ("grpc.max_concurrent_streams", 16),
    # For all callers together; the warden bounds each caller.
    ("grpc.max_allowed_incoming_connections", 4096),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", PING_MILLISECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without the next one idle streams stop pinging after two, and a frozen peer goes unnoticed.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", PING_MILLISECONDS),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
"""Options of a server that strangers can reach."""

_SMALL_WINDOWS = (
    # gRPC would widen a stream's window up to megabytes where a line is fast.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
)

EXCHANGE_OPTIONS = (
    *PEER_OPTIONS,
    # As many as one peer's calls: gRPC refuses a stream that is more, instead of having it wait.
    ("grpc.max_concurrent_streams", 48),
    # Not more often: each time running transfers break off, and the receiver rechecks its chunks.
    ("grpc.max_connection_age_ms", 86_400_000),
    ("grpc.max_connection_age_grace_ms", 120_000),
)
"""Options of the peer service; its connections are made anew every day."""

INTRODUCTION_OPTIONS = (
    *PEER_OPTIONS,
    *_SMALL_WINDOWS,
    ("grpc.max_concurrent_streams", 2),
    # A call whose request never comes holds one of the server's places; not for long.
    ("grpc.max_connection_age_ms", 15_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
)
"""Options of a server that anybody may call before being paired, for a moment."""

DIRECTORY_OPTIONS = (
    *PEER_OPTIONS,
    *_SMALL_WINDOWS,
    ("grpc.max_allowed_incoming_connections", 40_000),
    # When all nodes come at once, the calls that wait for a moment are more than gRPC's 1,000;
    # what is over is ended as cancelled, which looks like a defect and costs each a new connection.
    ("grpc.server.max_pending_requests", 40_000),
    ("grpc.server.max_pending_requests_hard_limit", 80_000),
)
"""Options of a directory's server: every node of a network keeps a connection to it."""

_GRACE_SECONDS = 2.0
_STOP_SECONDS = 10.0
_REQUEST_SECONDS = 75.0  # on a slow line it waits behind megabytes of chunks


@asynccontextmanager
async def serve(
    services: Sequence[Service],
    address: str,
    *,
    credentials: grpc.ServerCredentials | None = None,
    options: Sequence[tuple[str, int]] = (),
    door: Door | None = None,
    max_calls: int = 64,
    requests_of_caller: int = 1000,
    request_seconds: float = _REQUEST_SECONDS,
    grace_seconds: float = _GRACE_SECONDS,
) -> AsyncGenerator[int]:
    """Serve for the time of the block; needs a trio-asyncio loop around it.

    Args:
        services: What to serve; reflection and health only if they are among them.
        address: `host:port` (port 0 takes a free one) or `unix:/absolute/path`.
        credentials: None only for Unix sockets.
        options: gRPC's channel arguments, beside our own.
        door: Bounds the port's connections; None where whoever calls is as trusted as we are.
        max_calls: More calls at once are refused with RESOURCE_EXHAUSTED.
        requests_of_caller: So many single requests of one caller may be on their way at once.
        request_seconds: Within which a single request is here, once the guard has let it in.
        grace_seconds: How long running calls may go on at the end, when nobody new is let in.

    Yields:
        The port that was bound (1 for a Unix socket).

    Raises:
        ConfigError: the address cannot be bound.
    """
    largest = max(service.largest_bytes for service in services)
    reading = _Reading(requests_of_caller, request_seconds)
    refusals = None if door is None else Refusals(door, max_calls=max_calls)
    server = grpc.aio.server(
        options=merged(_COMMON_OPTIONS, options, [("grpc.max_receive_message_length", largest)]),
        maximum_concurrent_rpcs=max_calls,
        compression=grpc.Compression.NoCompression,
    )
    for service in services:
        server.add_generic_rpc_handlers((_generic_handler(service, reading, refusals),))
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as exc:
        raise ConfigError(f"{address} cannot be bound; another program may use it") from exc
    await trio_asyncio.aio_as_trio(server.start)()
    try:
        yield port
    finally:
        try:
            if trio.current_effective_deadline() != -math.inf:  # else no leave is taken
                await trio_asyncio.aio_as_trio(server.stop)(grace_seconds)
        finally:  # who is cancelled meanwhile waits no longer
            with trio.move_on_after(_STOP_SECONDS, shield=True):
                await trio_asyncio.aio_as_trio(server.stop)(0.0)


def _generic_handler(
    service: Service, reading: _Reading, refusals: Refusals | None
) -> grpc.GenericRpcHandler:
    makers = {
        False: grpc.stream_unary_rpc_method_handler,
        True: grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        m.name: makers[m.is_response_stream](
            _Behavior(m, service, reading, refusals).run,
            request_deserializer=None,  # the bytes as they are: they are not checked yet
            response_serializer=encoded,
        )
        for m in methods(service.descriptor)
    }
    return grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers)


async def allow_all(_: Call[Any]) -> None:
    """Admit every caller: for a Unix socket that is protected by its file permissions."""
