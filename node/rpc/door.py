"""A Unix socket in front of a gRPC server that identifies the connecting user.

gRPC for Python gives a handler no information about the connecting process. So clients connect to a
socket of our own. For each connection the kernel reports the user (SO_PEERCRED); then its bytes are
spliced to gRPC's socket, which is in a folder that only this user can enter. Our end of that second
connection has a name that the kernel chose, and gRPC passes this name to the handler.

*Measured*: a streamed import of 205 MB takes 1.57 core-seconds instead of 1.51, an export 1.12
instead of 1.09 (medians of 8; runs differ by more). Files that the node reads itself do not pass.
"""

import os
import pwd
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio

from node.domain.actors import Visitor
from node.errors import ConfigError, PeerUntrusted
from node.rpc.descriptors import spliced
from node.rpc.limits import Places
from node.rpc.serving import Call
from node.rpc.unix import unix_address
from node.system.splicing import splice_both

log = structlog.get_logger()
MAX_CONNECTIONS = 128
"""Connections of all users. One user may have half of them, so that none locks out the others."""

MAX_CALLS, MAX_CALLS_OF_USER = 512, 64
"""Calls of all users, and of one: one user leaves enough for several others."""

SHARE = 1 / 8
"""Of the descriptors, for those connections."""

_NAME_SECONDS, _NAME_KEPT_SECONDS, _NAME_THREADS = 2.0, 60.0, 2
_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 128
_SOCKET = "s"  # short: the path of a Unix socket has 107 bytes at most


class Door:
    """Connects processes of this machine to a gRPC server, and identifies their users.

    Use `opened_door`; bind the server to `inside`, then accept connections with `accepting`.
    """

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self._inside = folder.resolve() / _SOCKET
        self._nursery = nursery
        self._visitors: dict[str, Visitor] = {}
        self._places: Counter[int] = Counter()
        self._calls = Places(MAX_CALLS_OF_USER)
        self._names = _Names()
        self._most = spliced(MAX_CONNECTIONS, SHARE)

    @property
    def inside(self) -> str:
        """The address for the gRPC server."""
        return unix_address(self._inside)

    async def guard(self, call: Call[Any]) -> Visitor:
        """Return who calls.

        Raises:
            PeerUntrusted: the call has not come through this door.
            PeerBusy: its user has too many calls open.
        """
        visitor = self._visitors.get(call.address)
        if visitor is None:
            raise PeerUntrusted("the admin services accept calls from the admin socket only")
        call.account = f"uid {visitor.uid}"
        self._calls.take(call.account, call.on_end)
        return visitor

    @asynccontextmanager
    async def accepting(self, path: Path, group: int | None = None) -> AsyncGenerator[None]:
        """Accept connections at a path during the block.

        Accepted connections outlive the block, until the server has ended.

        Args:
            path: Where the socket is made.
            group: The group whose members may connect, beside the owner; None for nobody else.

        Raises:
            ConfigError: the socket cannot be made.
        """
        with _listening(path, group) as listener:
            async with trio.open_nursery() as nursery:
                serve = partial(trio.serve_listeners, handler_nursery=self._nursery)
                await nursery.start(serve, self._admit, [listener])
                yield
                nursery.cancel_scope.cancel()

    async def _admit(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                credentials = stream.socket.getsockopt(
                    socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
                )
                pid, uid, _ = _CREDENTIALS.unpack(credentials)
                with self._place(uid) as is_free:
                    if is_free:
                        await self._join(stream, pid, uid)
        except* (OSError, trio.BrokenResourceError):
            pass  # either side has gone, which ends the calls that it was for
        except* Exception:  # a supervisor: one connection does not end the node
            log.exception("a connection to the admin socket failed")

    @contextmanager
    def _place(self, uid: int) -> Iterator[bool]:
        """Take a place for a user, for the time of the block; False if there is none."""
        if self._places.total() >= self._most or self._places[uid] >= self._most // 2:
            log.warning("too many connections to the admin socket", uid=uid)
            yield False
            return
        self._places[uid] += 1
        try:
            yield True
        finally:
            self._places[uid] -= 1
            self._places = +self._places

    async def _join(self, stream: trio.SocketStream, pid: int, uid: int) -> None:
        """Join a connection with the server's, under a name that the kernel chooses."""
        name = await self._names.find(uid)
        with _named_socket() as inner:
            await inner.connect(str(self._inside))
            address = f"unix-abstract:{inner.getsockname()[1:].decode()}"
            self._visitors[address] = Visitor(uid, name, pid)
            try:
                await splice_both(stream, trio.SocketStream(inner), _admit, _admit)
            finally:
                del self._visitors[address]


class _Names:
    """User names, as the machine knows them.

    A lookup may ask a directory server that never answers. So it runs on threads of its own, and a
    name that is not found in time stays empty. Only the user's number decides about rights.
    """

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(_NAME_THREADS)
        self._kept: dict[int, tuple[str, float]] = {}  # by user, until when

    async def find(self, uid: int) -> str:
        """Return a user's name; empty where there is none, or none in time."""
        now = trio.current_time()
        self._kept = {u: kept for u, kept in self._kept.items() if kept[1] > now}
        if uid in self._kept:
            return self._kept[uid][0]
        name = ""
        with trio.move_on_after(_NAME_SECONDS):
            name = await trio.to_thread.run_sync(
                _user_name, uid, abandon_on_cancel=True, limiter=self._threads
            )
        self._kept[uid] = name, trio.current_time() + _NAME_KEPT_SECONDS
        return name


@asynccontextmanager
async def opened_door(folder: Path) -> AsyncGenerator[Door]:
    """Make a door for the time of the block; enter it before the server.

    Args:
        folder: Where gRPC's own socket is to be: made here, for us only.

    Raises:
        ConfigError: the folder cannot be made.
    """
    _make_folder(folder)
    async with trio.open_nursery() as nursery:
        yield Door(folder, nursery)
        nursery.cancel_scope.cancel()


def _named_socket() -> trio.socket.SocketType:
    """Return a socket with an abstract name that nobody else has."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind("")
        return trio.socket.from_stdlib_socket(made)
    except OSError:
        made.close()
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        (folder / _SOCKET).unlink(missing_ok=True)  # of one that was killed
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be made ({exc.strerror})") from exc


@contextmanager
def _listening(path: Path, group: int | None) -> Iterator[trio.SocketListener]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        try:
            path.unlink(missing_ok=True)
            made.bind(str(path.resolve()))  # with the umask, which lets in nobody else
            if group is not None:
                os.chown(path, -1, group)
            path.chmod(0o600 if group is None else 0o660)
            made.listen(_BACKLOG)
        except OSError as exc:
            raise ConfigError(f"{path} cannot be made ({exc.strerror})") from exc
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(made))
        finally:
            path.unlink(missing_ok=True)


def _user_name(uid: int) -> str:
    with suppress(KeyError, OSError):
        return pwd.getpwuid(uid).pw_name
    return ""


async def _admit(_: int) -> None:
    """Let every byte pass: both ends hold each other up."""
