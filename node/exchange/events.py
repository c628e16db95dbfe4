"""Publish/subscribe within the node.

`Events` awaits every subscriber before `publish` returns: once a removal has returned, the removed
peer is refused. A `Feed` queues instead, the latest value for each key: a slow subscriber loses
older values, never the newest.
"""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

from node.domain.events import Event
from node.domain.transfers import Transfer

T = TypeVar("T")
E = TypeVar("E", bound=Event)


class Events:
    """Calls subscribers by the type of the event."""

    def __init__(self) -> None:
        self._handlers: defaultdict[type[Event], list[Callable[[Any], Awaitable[None]]]]
        self._handlers = defaultdict(list)

    def subscribe(self, kind: type[E], handler: Callable[[E], Awaitable[None]]) -> None:
        """Have a handler awaited for every event of a type, after those that subscribed before."""
        self._handlers[kind].append(handler)

    async def publish(self, event: Event) -> None:
        """Await all subscribers, one after the other; an error of one is the caller's.

        Cancellation:
            Subscribers that were not reached are not told.
        """
        for handler in self._handlers[type(event)]:
            await handler(event)


class Subscription(Generic[T]):
    """One subscriber's queue: the latest value for each key, in order of change."""

    def __init__(self) -> None:
        self._latest: OrderedDict[Hashable, T] = OrderedDict()
        self._some = trio.Event()

    def put(self, key: Hashable, value: T) -> None:
        """Queue a value; an older one of the same key is dropped."""
        self._latest.pop(key, None)
        self._latest[key] = value
        self._some.set()

    async def next(self) -> T:
        """Return the oldest value that was not returned yet; waits for one."""
        while not self._latest:
            self._some = trio.Event()
            await self._some.wait()
        return self._latest.popitem(last=False)[1]

    async def wait(self) -> None:
        """Wait until there is some value, and forget all there are."""
        await self.next()
        self._latest.clear()


class Feed(Generic[T]):
    """Queues values at all subscribers."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription[T]] = set()

    def publish(self, key: Hashable, value: T) -> None:
        """Queue a value at every subscriber; called in trio's thread."""
        for subscription in self._subscriptions:
            subscription.put(key, value)

    @contextmanager
    def subscribed(self) -> Iterator[Subscription[T]]:
        """Subscribe for the time of the block."""
        subscription: Subscription[T] = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)


class TransferFeed(Feed[Transfer]):
    """Every transfer, as last committed. Create it in trio's thread."""

    def __init__(self) -> None:
        super().__init__()
        self._token = trio.lowlevel.current_trio_token()

    def publish_soon(self, row: Transfer) -> None:
        """Queue a transfer; called on the thread that committed it."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.publish, row.id, row)


class Poke:
    """Wakes one waiter; several pokes before it waits wake it once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def poke(self) -> None:
        """Wake the waiter, or the next one if nobody waits."""
        self._event.set()

    async def wait(self, deadline: float = math.inf) -> None:
        """Wait to be poked, until a time of trio's clock at most."""
        with trio.move_on_at(deadline):
            await self._event.wait()
        self._event = trio.Event()
