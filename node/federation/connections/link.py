"""A transfer's stream to a peer, the same on the side that dialled and on the other."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from node.documents.messages import Message
from node.domain.capabilities import Capability
from node.domain.connections import Route
from node.domain.ids import FacilityId
from node.errors import PeerTimeout
from node.federation.connections import wire

HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 75.0
"""A line of one Mbit/s takes half a minute for what its buffers hold: that is not silence."""

_STUCK_SECONDS = 60.0


class GrpcLink:
    """See `node.exchange.transfer.links.Link`. Open it with `open_link`."""

    def __init__(
        self,
        peer: FacilityId,
        route: Route,
        read: Callable[[], Awaitable[bytes | None]],
        write: Callable[[bytes], Awaitable[None]],
        capabilities: Callable[[FacilityId], frozenset[Capability]],
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            peer: Who is at the other end.
            route: How they are reached.
            read: Returns the next message's bytes; None at the end.
            write: Sends a message's bytes.
            capabilities: Returns what a peer understands.
            heard: Called for each message that is more than a heartbeat.
        """
        self._heard = heard
        self._capabilities = capabilities
        self.peer = peer
        self.route = route
        self._read = read
        self._write = write
        self._writing = trio.Lock()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Link.capabilities`."""
        return self._capabilities(self.peer)

    async def send(self, message: Message) -> None:
        """See `Link.send`."""
        await self._send(wire.encode(message))

    async def _send(self, message: bytes) -> None:
        with _timeout(_STUCK_SECONDS, "the other side does not read any more"):
            async with self._writing:
                await self._write(message)

    async def receive(self) -> Message | None:
        """See `Link.receive`."""
        while True:
            with _timeout(SILENCE_SECONDS, "the other side has gone silent"):
                found = await self._read()
            if found is None:
                return None
            message = wire.decode(found)
            if message is not None:
                self._heard()
                return message

    async def beat(self) -> None:
        """Send heartbeats for ever."""
        while True:
            await trio.sleep(HEARTBEAT_SECONDS)
            await self._send(wire.heartbeat())


@asynccontextmanager
async def open_link(link: GrpcLink) -> AsyncGenerator[GrpcLink]:
    """Keep a link alive for the time of the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.beat)
        yield link
        nursery.cancel_scope.cancel()


@contextmanager
def _timeout(seconds: float, what: str) -> Iterator[None]:
    """Raise `PeerTimeout` if the block takes too long."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise PeerTimeout(what)
