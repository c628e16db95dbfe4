"""Bounds on the connections to a port of ours, which gRPC for Python can neither see nor count.

gRPC has one bound for all connections of a server. A client that fills it locks out all others: a
stranger before its handshake, or one peer with 256 connections. So a warden inspects, five times a
second, this process's sockets that were accepted at the port, and ends the surplus. A connection is
*known* once the guard has admitted a call on it; it then counts for the account that the guard
named. Before that it counts for its address, and has a short time to become known.

The oldest connections of a surplus are ended first. They include those that a peer has lost without
noticing, and an honest handshake takes less time than an attacker needs to fill the places again.
"""

import os
import socket
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import structlog
import trio

from node.rpc.limits import caller_socket, origin, socket_name

log = structlog.get_logger()
LOOK_SECONDS = 0.2
_SHARE = 50  # of the time, a 50th at most is for looking
_NEW_SECONDS = 5.0  # a call may be seen before its connection is
_LOG_SECONDS = 60.0


@dataclass(frozen=True)
class ConnectionBounds:
    """How many connections there may be.

    Attributes:
        unknown_of_origin: From one address, on which no call was let in yet.
        unknown_seconds: For how long one may be so.
        of_account: Of one caller that the guard knows.
    """

    unknown_of_origin: int
    unknown_seconds: float
    of_account: int = 8


@dataclass
class _State:
    origin: str
    since: float
    account: str = ""
    called: float = 0.0


@dataclass
class Connections:
    """Decides which connections end. No I/O; they are named by the caller's address and port."""

    bounds: ConnectionBounds
    _states: dict[str, _State] = field(default_factory=dict)
    _brought: dict[str, str] = field(default_factory=dict)  # names, and whom they count for
    _dropped: set[str] = field(default_factory=set)

    def met(self, name: str, account: str, now: float) -> None:
        """Note that a call on a connection was admitted, for an account."""
        state = self._state(name, now)
        state.account, state.called = account, now

    def lost(self, name: str, now: float) -> None:
        """Note that a call on a connection was refused: it is unknown from now on."""
        state = self._state(name, now)
        if state.account:
            state.account, state.since = "", now

    @contextmanager
    def brought(self, name: str, whose: str) -> Iterator[None]:
        """During the block, count a connection that this node makes to itself for an account.

        By its address it would count for this machine, together with those of all local users.
        """
        self._brought[name] = whose
        if name in self._states:
            self._states[name].origin = whose
        try:
            yield
        finally:
            del self._brought[name]

    def drop(self, name: str) -> None:
        """Note that a connection is to end."""
        self._dropped.add(name)

    def surplus(self, present: Iterable[str], now: float) -> Counter[str]:
        """Update the known connections; return those to end, counted once for each reason."""
        here = dict.fromkeys(present)
        self._states = {
            name: state
            for name, state in self._states.items()
            if name in here or now - max(state.since, state.called) < _NEW_SECONDS
        }
        unknown: defaultdict[str, list[str]] = defaultdict(list)
        known: defaultdict[str, list[str]] = defaultdict(list)
        for name in here:
            state = self._state(name, now)
            if state.account:
                known[state.account].append(name)
            else:
                unknown[state.origin].append(name)
        late = [
            name
            for name in chain.from_iterable(unknown.values())
            if now - self._states[name].since > self.bounds.unknown_seconds
        ]
        dropped, self._dropped = self._dropped, set()
        return Counter(
            chain(
                late,
                dropped & here.keys(),
                self._oldest(unknown.values(), self.bounds.unknown_of_origin),
                self._oldest(known.values(), self.bounds.of_account),
            )
        )

    def _state(self, name: str, now: float) -> _State:
        found = self._states.get(name)
        if found is None:
            whose = self._brought.get(name) or origin(name.rpartition(" ")[0])
            found = self._states[name] = _State(whose, now)
        return found

    def _oldest(self, groups: Iterable[list[str]], bound: int) -> Iterable[str]:
        for group in groups:
            if len(group) > bound:
                age = sorted(group, key=lambda name: self._age(self._states[name]))
                yield from age[: len(group) - bound]

    @staticmethod
    def _age(state: _State) -> float:
        return state.called or state.since


class Warden:
    """Keeps the bounds of one port. Run it for as long as the port is served."""

    def __init__(self, bounds: ConnectionBounds) -> None:
        self._connections = Connections(bounds)
        self._sockets: dict[tuple[int, int], tuple[int, str]] = {}  # by descriptor and inode
        self._logged: dict[str, float] = {}
        self.ended = 0

    def met(self, address: str, account: str) -> None:
        """Note that a call was admitted; `address` as gRPC writes it."""
        self._connections.met(caller_socket(address), account, time.monotonic())

    def lost(self, address: str) -> None:
        """Note that a call was refused because its caller is not trusted (any more)."""
        self._connections.lost(caller_socket(address), time.monotonic())

    def brought(self, host: str, port: int, whose: str) -> AbstractContextManager[None]:
        """Have a connection from an address of ours count for somebody, while the block runs."""
        return self._connections.brought(socket_name(host, port), whose)

    def drop(self, address: str) -> None:
        """End the connection that an address names."""
        self._connections.drop(caller_socket(address))

    async def run(self, port: int) -> None:
        """Look, and end what is too much, for ever."""
        while True:
            started = time.perf_counter()
            self.look(port)
            taken = time.perf_counter() - started
            await trio.sleep(max(LOOK_SECONDS, taken * _SHARE))

    def look(self, port: int) -> None:
        """Look once; where no descriptor is left to look with, the next look may find one."""
        try:
            self._sockets = _accepted(self._sockets)
        except OSError as exc:
            self._log("the connections cannot be listed", reason=exc.strerror)
            return
        names = {name: key for key, (at, name) in self._sockets.items() if at == port}
        surplus = self._connections.surplus(names, time.monotonic())
        for name in surplus:
            self.ended += _end(*names[name])
        if surplus:
            self._log("connections ended: too many, or unidentified too long", ended=len(surplus))

    def _log(self, event: str, **facts: Any) -> None:
        """Log an event, once a minute at most."""
        now = time.monotonic()
        if now - self._logged.get(event, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[event] = now
            log.warning(event, **facts)


def _accepted(
    before: Mapping[tuple[int, int], tuple[int, str]],
) -> dict[tuple[int, int], tuple[int, str]]:
    """Return this process's connected sockets, with their local port and the other end's name."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208  # ten thousand paths are slow
        try:
            fd = int(entry)
            status = os.fstat(fd)
            if stat.S_ISSOCK(status.st_mode):
                key = fd, status.st_ino
                found[key] = before.get(key) or _ends(fd)
        except OSError:
            continue  # it was closed meanwhile
    return found


def _ends(fd: int) -> tuple[int, str]:
    """Return the local port of a socket and the name of its other end; 0 for one of no concern."""
    with _shared(fd) as copy:
        if copy.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # it listens, or is not connected any more
                host, port = copy.getpeername()[:2]
                return copy.getsockname()[1], socket_name(host, port)
    return 0, ""


def _end(fd: int, inode: int) -> bool:
    """End a connection of gRPC's, which then hears of it and closes its own descriptor."""
    with suppress(OSError), _shared(fd) as copy:
        # What is looked at is our own copy: the number may be another socket's by now.
        if os.fstat(copy.fileno()).st_ino == inode:
            copy.shutdown(socket.SHUT_RDWR)
            return True
    return False


def _shared(fd: int) -> socket.socket:
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # the number is no socket's any more
        os.close(copy)
        raise
