"""Races connections to a peer's endpoints, staggered; also to the addresses of each name."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import trio

from node.errors import NodeError, PeerTimeout, PeerUnreachable
from node.rpc.calling import Channel

T = TypeVar("T")
CONNECT_SECONDS = 8.0
STAGGER_SECONDS = 0.25
MAX_ADDRESSES = 12


@dataclass(frozen=True)
class Won:
    """The connection that was made first. It is open; its holder closes it.

    Attributes:
        endpoint: The endpoint to which it leads.
        channel: The open channel.
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
    opened: Callable[[str], AbstractAsyncContextManager[Channel]],
    endpoints: Sequence[str],
    resolved: Callable[[str], Awaitable[Sequence[str]]],
) -> Won:
    """Return the first connection that is made; later ones begin a little later.

    A name is looked up when its turn has come, and each of its addresses has its own: neither a
    name that nobody answers for nor a dead address holds up the others.

    Args:
        opened: Opens a channel that trusts the peer alone.
        endpoints: Best first.
        resolved: Returns the addresses of an endpoint, best first.

    Raises:
        PeerUnreachable: none is made.

    Cancellation:
        Leaves no connection open.
    """
    found: list[Won] = []
    scope = trio.CancelScope()

    async def attempt(endpoint: str) -> None:
        with suppress(PeerUnreachable):
            addresses = await resolved(endpoint)
            await _staggered(addresses[:MAX_ADDRESSES], partial(attempt_at, endpoint))

    async def attempt_at(endpoint: str, address: str) -> None:
        with suppress(PeerUnreachable):
            async with AsyncExitStack() as stack:
                channel = await stack.enter_async_context(opened(address))
                await channel.connect(CONNECT_SECONDS)
                if not found:
                    found.append(Won(endpoint, channel, stack.pop_all()))
                scope.cancel()

    try:
        with scope:
            await _staggered(endpoints[:MAX_ADDRESSES], attempt)
    except BaseException:
        for won in found:
            await won.aclose()
        raise
    if not found:
        where = ", ".join(endpoints) or "no address"
        raise PeerUnreachable(f"no connection to {where}")
    return found[0]


async def first_of(places: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> T:
    """Return the first answer of several places; they are asked one a little after the other.

    Raises:
        NodeError: no place answers; of what they say, whatever is not just silence.
    """
    found: list[T] = []
    errors: list[NodeError] = []
    scope = trio.CancelScope()

    async def attempt(place: str) -> None:
        try:
            found.append(await ask(place))
            scope.cancel()
        except NodeError as exc:
            errors.append(exc)

    with scope:
        await _staggered(places, attempt)
    if found:
        return found[0]
    errors.sort(key=lambda error: isinstance(error, PeerUnreachable | PeerTimeout))
    raise errors[0] if errors else PeerUnreachable("no address")


async def _staggered(places: Sequence[str], attempt: Callable[[str], Awaitable[None]]) -> None:
    """Try all places; each begins when the one before has failed, or has had its head start."""
    ended = [trio.Event() for _ in places]

    async def run(n: int, place: str) -> None:
        if n:
            with trio.move_on_after(STAGGER_SECONDS * n):
                await ended[n - 1].wait()
        await attempt(place)
        ended[n].set()

    async with trio.open_nursery() as nursery:
        for n, place in enumerate(places):
            nursery.start_soon(run, n, place)
