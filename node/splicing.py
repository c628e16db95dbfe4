"""Joining two sockets: the kernel moves the bytes, through a pipe a direction."""

import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import trio

_PIECE_BYTES = 1 << 20


async def splice_both(
    a: trio.SocketStream, b: trio.SocketStream, note: Callable[[int], None]
) -> None:
    """Move bytes both ways until both ends have ended.

    Args:
        a: One socket.
        b: The other.
        note: Called with each number of bytes that got through; what it raises ends it.

    Raises:
        ExceptionGroup: a connection broke (`OSError`), or what `note` raised.
    """

    async def one_way(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        await _splice(source.socket, sink.socket, note)
        # Half-closed: the other direction may go on until it ends too.
        with suppress(OSError):
            sink.socket.shutdown(socket.SHUT_WR)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_way, a, b)
        nursery.start_soon(one_way, b, a)


async def _splice(
    source: trio.socket.SocketType, sink: trio.socket.SocketType, note: Callable[[int], None]
) -> None:
    """Move bytes from one socket to another in the kernel until the first ends.

    Args:
        source: Read from.
        sink: Written to.
        note: Called with each number of bytes that got through.

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
                count = os.splice(source.fileno(), writing, _PIECE_BYTES, flags=flags)
            except BlockingIOError:
                continue
            if count == 0:
                return
            left = count
            while left:
                await trio.lowlevel.wait_writable(sink)
                with suppress(BlockingIOError):
                    left -= os.splice(reading, sink.fileno(), left, flags=flags)
            note(count)
    finally:
        os.close(reading)
        os.close(writing)
