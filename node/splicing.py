"""Joining two connections: the kernel moves the bytes, through a pipe a direction.

Where one of them is within TLS, the bytes are copied here instead.
"""

import fcntl
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

Connection = trio.SocketStream | trio.SSLStream[trio.SocketStream]
_PIECE_BYTES = 1 << 20
_COPIED_BYTES = 1 << 18


Admit = Callable[[int], Awaitable[None]]
"""Awaited with a number of bytes that have come from one side, before they are passed on."""


async def splice_both(
    a: Connection,
    b: Connection,
    admit_a: Admit,
    admit_b: Admit,
    *,
    piece_bytes: int = _PIECE_BYTES,
) -> None:
    """Move bytes both ways until both ends have ended.

    Args:
        a: One connection.
        b: The other.
        admit_a: Holds up what comes from `a` for as long as it takes; what it raises ends it all.
        admit_b: The same for what comes from `b`.
        piece_bytes: How many are passed on at once, at most.

    Raises:
        ExceptionGroup: a connection broke (`OSError`, `trio.BrokenResourceError`), or what
            `admit` raised.
    """

    async def one_way(source: Connection, sink: Connection, admit: Admit) -> None:
        if isinstance(source, trio.SocketStream) and isinstance(sink, trio.SocketStream):
            await _splice(source.socket, sink.socket, admit, piece_bytes)
            # Half-closed: the other direction may go on until it ends too.
            with suppress(OSError):
                sink.socket.shutdown(socket.SHUT_WR)
        else:
            await _copy(source, sink, admit, min(piece_bytes, _COPIED_BYTES))
            nursery.cancel_scope.cancel()  # TLS has no half-closed connections

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_way, a, b, admit_a)
        nursery.start_soon(one_way, b, a, admit_b)


async def _splice(
    source: trio.socket.SocketType,
    sink: trio.socket.SocketType,
    admit: Admit,
    piece_bytes: int,
) -> None:
    """Move bytes from one socket to another in the kernel until the first ends.

    Args:
        source: Read from.
        sink: Written to.
        admit: See `splice_both`.
        piece_bytes: The most to be moved at once.

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
                count = os.splice(source.fileno(), writing, piece_bytes, flags=flags)
            except BlockingIOError:
                continue
            if count == 0:
                return
            await admit(count)
            left = count
            while left:
                await trio.lowlevel.wait_writable(sink)
                with suppress(BlockingIOError):
                    left -= os.splice(reading, sink.fileno(), left, flags=flags)
    finally:
        os.close(reading)
        os.close(writing)


async def _copy(source: Connection, sink: Connection, admit: Admit, piece_bytes: int) -> None:
    """Move bytes from one connection to another until the first ends.

    Raises:
        trio.BrokenResourceError: a connection broke.
    """
    while data := await source.receive_some(piece_bytes):
        await admit(len(data))
        await sink.send_all(data)
