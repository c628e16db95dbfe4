"""Finding the way to a peer: its addresses raced, staggered."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress

import trio

from node.errors import PeerUnreachable
from node.rpc.calling import Channel

CONNECT_SECONDS = 8.0
STAGGER_SECONDS = 0.25
MAX_ADDRESSES = 12


async def race(
    opened: Callable[[str], AbstractAsyncContextManager[Channel]], endpoints: Sequence[str]
) -> str:
    """Return the first endpoint that takes a connection; later ones begin a little later.

    Args:
        opened: Opens a channel that trusts the peer alone.
        endpoints: Best first.

    Raises:
        PeerUnreachable: none does.
    """
    found: list[str] = []
    ended = [trio.Event() for _ in endpoints]

    async def attempt(n: int, endpoint: str) -> None:
        # The next one begins when this one has failed, or has had its head start.
        if n:
            with trio.move_on_after(STAGGER_SECONDS * n):
                await ended[n - 1].wait()
        with suppress(PeerUnreachable):
            async with opened(endpoint) as channel:
                await channel.connect(CONNECT_SECONDS)
            if not found:
                found.append(endpoint)
            nursery.cancel_scope.cancel()
        ended[n].set()

    async with trio.open_nursery() as nursery:
        for n, endpoint in enumerate(endpoints[:MAX_ADDRESSES]):
            nursery.start_soon(attempt, n, endpoint)
    if not found:
        where = ", ".join(endpoints) or "no address"
        raise PeerUnreachable(f"no connection to {where}")
    return found[0]
