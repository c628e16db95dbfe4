"""Calling: a channel for trio, whose calls end when their cancel scope does."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
import trio
import trio_asyncio
from google.protobuf.message import Message

from node.errors import PeerUnreachable
from node.rpc.bounds import SMALL
from node.rpc.methods import Method, encoded
from node.rpc.options import CLIENT_OPTIONS, PING_MILLISECONDS, Option, merged
from node.rpc.status import error_of, strings, to_error

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_CLOSE_SECONDS = 10.0
_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", PING_MILLISECONDS),
    ("grpc.http2.ping_timeout_ms", PING_MILLISECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Options of a channel over a network."""


class Stream(Generic[Request, Response]):
    """The caller's side of a streaming call."""

    def __init__(self, call: Any, method: Method[Request, Response]) -> None:
        self._call = call
        self._method = method

    async def write(self, message: Request | bytes) -> None:
        """Send the next request, encoded or not; a broken stream raises as `read` does."""
        try:
            await trio_asyncio.aio_as_trio(self._call.write)(message)
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc) from exc
        except (Exception, asyncio.CancelledError) as exc:
            # grpcio raises InvalidStateError and others once the call is over.
            await self._raise_status(exc)
            raise PeerUnreachable("the other side has ended the stream") from exc

    async def read(self) -> Response | None:
        """Return the next response, None at the end.

        Raises:
            NodeError: the error of the other side, or of the connection.
            RemoteProtocolError: the response exceeds the method's bound, or does not parse.
        """
        data = await self.read_bytes()
        return None if data is None else self._method.parse_answer(data)

    async def read_bytes(self) -> bytes | None:
        """Return the next response as it came, None at the end; raises as `read` does.

        The channel bounds its size. Nothing else is checked.
        """
        try:
            data = await trio_asyncio.aio_as_trio(self._call.read)()
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc) from exc
        except asyncio.CancelledError as exc:
            # The call was cancelled, not this task: that would be trio's.
            raise PeerUnreachable("the stream was cancelled") from exc
        if data is grpc.aio.EOF:
            await self._raise_status(None)
            return None
        found: bytes = data
        return found

    async def done_writing(self) -> None:
        """Tell the other side that no request follows."""
        try:
            await trio_asyncio.aio_as_trio(self._call.done_writing)()
        except (Exception, asyncio.CancelledError) as exc:
            raise PeerUnreachable("the other side has ended the stream") from exc

    async def _raise_status(self, cause: BaseException | None) -> None:
        code = await trio_asyncio.aio_as_trio(self._call.code)()
        if code is not grpc.StatusCode.OK:
            details = await trio_asyncio.aio_as_trio(self._call.details)()
            trailing = await trio_asyncio.aio_as_trio(self._call.trailing_metadata)()
            raise to_error(code, details or "", strings(trailing)) from cause


class Channel:
    """A connection to one server, made when first used. Open it with `open_channel`."""

    def __init__(self, channel: Any, address: str, largest_answer: int) -> None:
        self._channel = channel
        self._largest_answer = largest_answer
        self.address = address

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """Call a method that takes and returns one message.

        Raises:
            NodeError: the error of the other side, or of the connection.
        """
        call = self._multicallable(self._channel.unary_unary, method)
        return await self._run(call, method, request, timeout, metadata)

    async def bring(
        self,
        method: Method[Request, Response],
        requests: Iterable[Request],
        *,
        timeout: float | None = None,
    ) -> Response:
        """Call a method that takes several messages and returns one; raises as `unary` does."""
        call = self._multicallable(self._channel.stream_unary, method)
        return await self._run(call, method, requests, timeout, ())

    async def _run(
        self,
        call: Any,
        method: Method[Any, Response],
        request: Any,
        timeout: float | None,
        metadata: Sequence[tuple[str, str]],
    ) -> Response:
        async def run() -> bytes:
            answer: bytes = await call(request, timeout=timeout, metadata=tuple(metadata))
            return answer

        try:
            return method.parse_answer(await trio_asyncio.aio_as_trio(run)())
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc) from exc
        except (asyncio.CancelledError, grpc.aio.UsageError) as exc:
            # The channel was closed, not this task cancelled: that would be trio's.
            raise PeerUnreachable("the connection was closed") from exc

    @asynccontextmanager
    async def stream(
        self,
        method: Method[Request, Response],
        request: Request | None = None,
        *,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> AsyncGenerator[Stream[Request, Response]]:
        """Run a streaming call for the time of the block; leaving it early cancels the call."""
        make = {
            (True, True): self._channel.stream_stream,
            (False, True): self._channel.unary_stream,
        }[method.is_request_stream, method.is_response_stream]
        multicallable = self._multicallable(make, method)

        async def begin() -> Any:
            # Begun on the loop, and not awaited: the stream is used message by message.
            if request is None:
                return multicallable(metadata=tuple(metadata))
            return multicallable(request, metadata=tuple(metadata))

        try:
            call = await trio_asyncio.aio_as_trio(begin)()
        except grpc.aio.UsageError as exc:
            raise PeerUnreachable("the connection was closed") from exc
        try:
            yield Stream(call, method)
        finally:
            call.cancel()

    def _multicallable(self, make: Any, method: Method[Any, Any]) -> Any:
        if method.answer.size > self._largest_answer:
            raise TypeError(f"{method.path} may answer more than this channel takes")
        # The answer comes as the bytes that it is: they are checked before they are parsed.
        return make(
            method.path,
            request_serializer=encoded,
            response_deserializer=None,
        )

    async def connect(self, seconds: float) -> None:
        """Make the connection.

        Raises:
            PeerUnreachable: no address of the server took it, or not within the time.
        """

        async def run() -> bool:
            state = self._channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in _FAILED:
                    return False
                await self._channel.wait_for_state_change(state)
                state = self._channel.get_state(try_to_connect=True)
            return True

        is_connected = False
        with (
            suppress(asyncio.CancelledError, grpc.aio.UsageError),  # it was closed meanwhile
            trio.move_on_after(seconds),
        ):
            is_connected = await trio_asyncio.aio_as_trio(run)()
        if not is_connected:
            raise PeerUnreachable(f"no connection to {self.address}")

    async def aclose(self) -> None:
        """Close the connection; calls on it are cancelled."""
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            await trio_asyncio.aio_as_trio(self._channel.close)(None)


@asynccontextmanager
async def open_channel(
    address: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    server_name: str | None = None,
    options: Sequence[Option] = (),
    largest_answer: int = SMALL.size,
) -> AsyncGenerator[Channel]:
    """Open a channel for the time of the block; needs a trio-asyncio loop around it.

    Args:
        address: `host:port`, or `unix:/absolute/path`.
        credentials: None only for Unix sockets.
        server_name: The name that the server's certificate must carry.
        options: gRPC's channel arguments, beside our own.
        largest_answer: The largest message that is accepted, in bytes; at least the largest bound
            of the answers of the methods called here.
    """
    bound: Option = ("grpc.max_receive_message_length", largest_answer)
    made_with = merged(CLIENT_OPTIONS, options, [bound])
    if server_name is not None:
        made_with.append(("grpc.ssl_target_name_override", server_name))

    async def make() -> Any:
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=made_with)
        return grpc.aio.secure_channel(address, credentials, options=made_with)

    channel = Channel(await trio_asyncio.aio_as_trio(make)(), address, largest_answer)
    try:
        yield channel
    finally:
        await channel.aclose()
