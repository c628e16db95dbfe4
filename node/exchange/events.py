"""Who wants to know of changes gets them; a slow listener loses old ones, never new ones."""

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Subscription(Generic[T]):
    """One listener's queue: the latest value for each key, in order of change."""

    def __init__(self) -> None:
        self._latest: OrderedDict[Hashable, T] = OrderedDict()
        self._some = trio.Event()

    def put(self, key: Hashable, value: T) -> None:
        """Queue a change; an older one of the same key is dropped."""
        self._latest.pop(key, None)
        self._latest[key] = value
        self._some.set()

    async def next(self) -> T:
        """Return the oldest change that was not returned yet; waits for one."""
        while not self._latest:
            self._some = trio.Event()
            await self._some.wait()
        return self._latest.popitem(last=False)[1]

    async def wait(self) -> None:
        """Wait until there is some change, and forget all there are."""
        await self.next()
        self._latest.clear()


class Hub(Generic[T]):
    """Tells all subscribers of changes."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription[T]] = set()

    def tell(self, key: Hashable, value: T) -> None:
        """Queue a change at every subscriber; called in trio's thread."""
        for subscription in self._subscriptions:
            subscription.put(key, value)

    @contextmanager
    def subscribed(self) -> Iterator[Subscription[T]]:
        """Listen for the time of the block."""
        subscription: Subscription[T] = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)


class Poke:
    """Wakes one waiter; however often it is poked meanwhile, once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def poke(self) -> None:
        """Wake who waits, or who waits next."""
        self._event.set()

    async def wait(self, deadline: float = math.inf) -> None:
        """Wait to be poked, until a time of trio's clock at most."""
        with trio.move_on_at(deadline):
            await self._event.wait()
        self._event = trio.Event()
