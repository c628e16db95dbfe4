"""TLS over a connection: whole both ways at once, with trio's own at the other end, and broken."""

import random
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import time
from typing import Any

import pytest
import trio
import trio.testing

from node.crypto.certificates import make_passing_certificate, server_context
from node.system.tls_stream import TlsStream

SERVER = server_context(make_passing_certificate(time()))
SIZES = (1, 16_384, 16_385, 70_000, 3_000_001)


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def sockets() -> AsyncGenerator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Yield two ends of one connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        far = await listener.accept()
    with trio.fail_after(30):
        async with near, far:
            yield near, far


@asynccontextmanager
async def ends(*, theirs: bool = False) -> AsyncGenerator[tuple[Any, TlsStream]]:
    """Yield a client, which is ours or trio's, and our server."""
    async with sockets() as (near, far):
        kind: Any = trio.SSLStream if theirs else TlsStream
        yield (
            kind(near, client_context(), server_hostname="relay"),
            TlsStream(far, SERVER, server_side=True),
        )


async def receive(stream: Any, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = await stream.receive_some(100_000)
        assert 0 < len(piece) <= 100_000
        found += piece
    return bytes(found)


@pytest.mark.parametrize("theirs", [False, True])
async def test_bytes_come_whole_both_ways_at_once(*, theirs: bool) -> None:
    async with ends(theirs=theirs) as (client, server):
        for size in SIZES:
            there, back = random.Random(size).randbytes(size), random.Random(-size).randbytes(size)
            found: dict[str, bytes] = {}

            async def take(name: str, stream: Any, size: int, found: dict[str, bytes]) -> None:
                found[name] = await receive(stream, size)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, there)
                nursery.start_soon(server.send_all, back)
                nursery.start_soon(take, "server", server, size, found)
                nursery.start_soon(take, "client", client, size, found)
            assert found == {"server": there, "client": back}


async def test_certificate_is_shown_and_the_end_is_seen() -> None:
    async with ends() as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        assert client.peer_certificate
        assert server.peer_certificate is None
        await client.send_all(b"the last words")
        await client.aclose()
        assert await server.receive_some() == b"the last words"
        assert await server.receive_some() == b""


async def test_connection_that_ends_without_a_word_is_broken() -> None:
    async with ends() as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, b"hello")
            assert await server.receive_some() == b"hello"
        await client._connection.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_tls_breaks_the_connection(junk: bytes) -> None:
    async with sockets() as (near, far):
        server = TlsStream(far, SERVER, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, junk)
            with pytest.raises(trio.BrokenResourceError):
                await server.receive_some()
        await server.aclose()


async def test_altered_record_breaks_the_connection() -> None:
    async with ends() as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, b"hello")
            assert await server.receive_some() == b"hello"
        client._tls.write(b"more")
        record = bytearray(client._outgoing.read())
        record[-1] ^= 1
        await client._connection.send_all(record)
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_closing_does_not_wait_for_who_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _ = trio.testing.lockstep_stream_pair()  # where nothing is sent until it is received
    connection: Any = near
    stream = TlsStream(connection, client_context(), server_hostname="relay")
    stream._outgoing.write(b"an alert")
    started = trio.current_time()
    await stream.aclose()
    assert trio.current_time() - started == 1
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some(1)
