"""Joining two connections: the kernel moves the bytes, through one pipe per direction.

Where one of them is within TLS, the bytes are copied here instead.
"""

import fcntl
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import trio

from node.system.tls_stream import TlsStream

Connection = trio.SocketStream | TlsStream
_PIECE_BYTES = 1 << 20
_COPIED_BYTES = 1 << 17


Gone = Literal["source", "sink"]
Admit = Callable[[int], Awaitable[None]]
"""Awaited with a number of bytes that have come from one side, before they are passed on."""


async def splice_both(
    a: Connection,
    b: Connection,
    admit_a: Admit,
    admit_b: Admit,
    *,
    piece_bytes: int = _PIECE_BYTES,
    on_end: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Move bytes both ways until both ends have ended.

    Args:
        a: One connection.
        b: The other.
        admit_a: Delays bytes from `a` as long as necessary; an exception ends both directions.
        admit_b: The same for what comes from `b`.
        piece_bytes: How many are passed on at once, at most.
        on_end: Called with the connection that ends or breaks first, and then with others.

    Raises:
        ExceptionGroup: a connection broke (`OSError`, `trio.BrokenResourceError`), or what
            `admit` raised.
    """

    async def one_way(source: Connection, sink: Connection, admit: Admit) -> None:
        def gone(end: Gone) -> None:
            on_end(source if end == "source" else sink)

        if isinstance(source, trio.SocketStream) and isinstance(sink, trio.SocketStream):
            await _splice(source.socket, sink.socket, admit, piece_bytes, gone)
            # Half-closed: the other direction may go on until it ends too.
            with suppress(OSError):
                sink.socket.shutdown(socket.SHUT_WR)
        else:
            await _copy(source, sink, admit, min(piece_bytes, _COPIED_BYTES), gone)
            nursery.cancel_scope.cancel()  # TLS has no half-closed connections

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_way, a, b, admit_a)
        nursery.start_soon(one_way, b, a, admit_b)


async def _splice(
    source: trio.socket.SocketType,
    sink: trio.socket.SocketType,
    admit: Admit,
    piece_bytes: int,
    gone: Callable[[Gone], None],
) -> None:
    """Move bytes from one socket to another in the kernel until the first ends.

    Args:
        source: Read from.
        sink: Written to.
        admit: See `splice_both`.
        piece_bytes: The most to be moved at once.
        gone: Called with the one that has ended or broken.

    Raises:
        OSError: a connection broke.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with suppress(OSError):  # more than an unprivileged process may have: then less goes at once
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIECE_BYTES)
    try:
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        while True:
            await trio.lowlevel.wait_readable(source)
            try:
                with _noting(gone, "source"):
                    count = os.splice(source.fileno(), writing, piece_bytes, flags=flags)
            except BlockingIOError:
                continue
            if count == 0:
                gone("source")
                return
            await admit(count)
            left = count
            while left:
                await trio.lowlevel.wait_writable(sink)
                with suppress(BlockingIOError), _noting(gone, "sink"):
                    left -= os.splice(reading, sink.fileno(), left, flags=flags)
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _noting(gone: Callable[[Gone], None], end: Gone) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except (OSError, trio.BrokenResourceError):
        gone(end)
        raise


async def _copy(
    source: Connection,
    sink: Connection,
    admit: Admit,
    piece_bytes: int,
    gone: Callable[[Gone], None],
) -> None:
    """Move bytes from one connection to another until the first ends.

    Raises:
        trio.BrokenResourceError: a connection broke.
    """
    while True:
        with _noting(gone, "source"):
            data = await source.receive_some(piece_bytes)
        if not data:
            gone("source")
            return
        await admit(len(data))
        with _noting(gone, "sink"):
            await sink.send_all(data)
