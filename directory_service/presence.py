"""Presence: which nodes are online at which process, replicated between the processes.

Arrivals and departures are sent as they happen, at most a hundred nodes in a message. Every
heartbeat carries a digest of the nodes at the process; a process whose own copy differs asks for
the complete set. So lost messages are corrected soon, and a connecting node never waits for the
bus.
"""

import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from directory_service.bus import BusMessage
from directory_service.registry import Registry
from node.crypto.digests import sha256
from node.domain.ids import NodeId

log = structlog.get_logger()
ALIVE_SECONDS, DEAD_SECONDS = 5.0, 20.0
_MOST_PROCESSES = 64
_NODES_OF_MESSAGE = 100  # PostgreSQL accepts 8,000 bytes in a notification
_UNLIKE = 2  # differing heartbeats in a row; after one, messages may still be on their way
_PART = struct.Struct(">QHH")
"""Number of the complete set, number of this part, number of parts."""


@dataclass
class _Other:
    """Another process."""

    heard_time: float
    unlike: int = 0  # signs of life in a row that say that we know otherwise
    publication: int = 0
    parts: dict[int, tuple[NodeId, ...]] = field(default_factory=dict)


class Presence:
    """Who is online. `run` must run beside all use."""

    def __init__(
        self,
        process: str,
        registry: Registry,
        publish: Callable[[BusMessage], Awaitable[bool]],
        changed: Callable[[NodeId], None],
    ) -> None:
        """Prepare.

        Args:
            process: The name of this process.
            registry: Keeps which nodes are online.
            publish: Sends a message to the other processes; returns whether it could.
            changed: Called for a node that came online or went offline.
        """
        self._process = process
        self._registry = registry
        self._publish = publish
        self._changed = changed
        self._others: dict[str, _Other] = {}
        self._pending: dict[NodeId, bool] = {}  # what the others do not know yet
        self._is_asked = False
        self._publications = 0
        self._wake = trio.Event()

    def has_come(self, node: NodeId) -> None:
        """Note that a node is here."""
        self._here(node, is_online=True)

    def has_gone(self, node: NodeId) -> None:
        """Note that a node is here no longer."""
        self._here(node, is_online=False)

    def _here(self, node: NodeId, *, is_online: bool) -> None:
        self._set(node, self._process, is_online=is_online)
        self._pending[node] = is_online
        self._wake.set()

    def publish_all(self) -> None:
        """Request that the complete set of nodes here is sent to the others."""
        self._is_asked = True
        self._wake.set()

    async def ask_all(self) -> None:
        """Ask the other processes who is there."""
        await self._publish(BusMessage(self._process, "hello"))

    async def run(self) -> None:
        """Tell the others, and notice those that have gone silent, for ever."""
        next_alive = trio.current_time()
        while True:
            with trio.move_on_at(next_alive):
                await self._wake.wait()
            self._wake = trio.Event()
            await self._publish_pending()
            if self._is_asked:
                self._is_asked = False
                await self._publish_everybody()
            if trio.current_time() >= next_alive:
                next_alive = trio.current_time() + ALIVE_SECONDS
                digest = _digest(self._registry.nodes_at(self._process))
                await self._publish(BusMessage(self._process, "alive", data=digest))
                self._drop_silent()

    async def _publish_pending(self) -> None:
        """Send pending changes; those that cannot be sent now are sent later."""
        while self._pending:
            some = dict(list(self._pending.items())[:_NODES_OF_MESSAGE])
            for is_online, kind in ((True, "online"), (False, "offline")):
                nodes = [node.digest for node, here in some.items() if here is is_online]
                if nodes and not await self._publish(BusMessage(self._process, kind, tuple(nodes))):
                    return
            for node, is_online in some.items():
                if self._pending.get(node) is is_online:
                    del self._pending[node]

    async def _publish_everybody(self) -> None:
        self._publications += 1
        nodes = [node.digest for node in self._registry.nodes_at(self._process)]
        parts = [nodes[n : n + _NODES_OF_MESSAGE] for n in range(0, len(nodes), _NODES_OF_MESSAGE)]
        for number, part in enumerate(parts or [[]]):
            data = _PART.pack(self._publications, number, len(parts) or 1)
            if not await self._publish(BusMessage(self._process, "presence", tuple(part), data)):
                return

    def _drop_silent(self) -> None:
        now = trio.current_time()
        for process, other in list(self._others.items()):
            if now - other.heard_time > DEAD_SECONDS:
                del self._others[process]
                log.warning("a process has gone silent", process=process)
                self._replace(process, ())

    # -- what the others say ------------------------------------------------------------------

    async def take(self, message: BusMessage) -> bool:
        """Handle a message of another process; return whether its kind belongs to presence.

        Raises:
            ValueError: it is malformed.
        """
        other = self._others.get(message.process)
        if other is None:
            if len(self._others) >= _MOST_PROCESSES:
                return False
            other = self._others[message.process] = _Other(trio.current_time())
            await self._ask(message.process)
        other.heard_time = trio.current_time()
        match message.kind:
            case "online" | "offline":
                for node in map(NodeId, message.ids):
                    self._set(node, message.process, is_online=message.kind == "online")
            case "alive":
                await self._compare(message.process, other, message.data)
            case "hello" if message.data in (b"", self._process.encode()):
                self.publish_all()
            case "presence":
                self._take_part(message, other)
        return True

    async def _ask(self, process: str) -> None:
        await self._publish(BusMessage(self._process, "hello", data=process.encode()))

    async def _compare(self, process: str, other: _Other, digest: bytes) -> None:
        is_alike = digest == _digest(self._registry.nodes_at(process))
        other.unlike = 0 if is_alike else other.unlike + 1
        if other.unlike >= _UNLIKE:
            other.unlike = 0
            await self._ask(process)

    def _take_part(self, message: BusMessage, other: _Other) -> None:
        try:
            publication, number, count = _PART.unpack(message.data)
        except struct.error as exc:
            raise ValueError("a part of another form") from exc
        if publication != other.publication or number == 0:
            other.publication, other.parts = publication, {}
        other.parts[number] = tuple(map(NodeId, message.ids))
        if len(other.parts) == count:
            self._replace(message.process, [n for part in other.parts.values() for n in part])
            other.parts = {}

    def _replace(self, process: str, nodes: Iterable[NodeId]) -> None:
        now_there = set(nodes)
        for node in set(self._registry.nodes_at(process)) - now_there:
            self._set(node, process, is_online=False)
        for node in now_there:
            self._set(node, process, is_online=True)

    def _set(self, node: NodeId, process: str, *, is_online: bool) -> None:
        if self._registry.set_online(node, process, is_online=is_online):
            self._changed(node)


def _digest(nodes: Sequence[NodeId]) -> bytes:
    return sha256(*sorted(node.digest for node in nodes))
