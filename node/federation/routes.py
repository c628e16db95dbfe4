"""Finding the way to a peer: its addresses raced, staggered."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from node.errors import PeerUnreachable
from node.rpc.calling import Channel

CONNECT_SECONDS = 8.0
STAGGER_SECONDS = 0.25
MAX_ADDRESSES = 12


@dataclass(frozen=True)
class Won:
    """A connection that was made first. It is open, and whoever has it closes it.

    Attributes:
        endpoint: Where it leads.
        channel: It.
    """

    endpoint: str
    channel: Channel
    _stack: AsyncExitStack

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stack.aclose()


async def race(
    opened: Callable[[str], AbstractAsyncContextManager[Channel]], endpoints: Sequence[str]
) -> Won:
    """Return the first connection that is made; later ones begin a little later.

    Args:
        opened: Opens a channel that trusts the peer alone.
        endpoints: Best first.

    Raises:
        PeerUnreachable: none is made.

    Cancellation:
        Leaves no connection open.
    """
    found: list[Won] = []
    ended = [trio.Event() for _ in endpoints]

    async def attempt(n: int, endpoint: str) -> None:
        # The next one begins when this one has failed, or has had its head start.
        if n:
            with trio.move_on_after(STAGGER_SECONDS * n):
                await ended[n - 1].wait()
        with suppress(PeerUnreachable):
            async with AsyncExitStack() as stack:
                channel = await stack.enter_async_context(opened(endpoint))
                await channel.connect(CONNECT_SECONDS)
                if not found:
                    found.append(Won(endpoint, channel, stack.pop_all()))
                nursery.cancel_scope.cancel()
        ended[n].set()

    try:
        async with trio.open_nursery() as nursery:
            for n, endpoint in enumerate(endpoints[:MAX_ADDRESSES]):
                nursery.start_soon(attempt, n, endpoint)
    except BaseException:
        for won in found:
            await won.aclose()
        raise
    if not found:
        where = ", ".join(endpoints) or "no address"
        raise PeerUnreachable(f"no connection to {where}")
    return found[0]
