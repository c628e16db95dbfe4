"""Publish/subscribe for watching nodes: the latest value for each key, never a queue.

A slow node costs a bounded amount of memory: a later value for a key replaces an earlier one.
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager

import trio

from node.domain.ids import FacilityId, NodeId

LIST = object()
"""The key for a newer list; a node needs it whole or as a change, depending on its own list."""


class Subscription:
    """One node's stream."""

    def __init__(self, node: NodeId, facility: FacilityId) -> None:
        self.node = node
        self.facility = facility
        self._changes: dict[Hashable, object] = {}
        self._arrived = trio.Event()
        self._scope = trio.CancelScope()

    def publish(self, thing: Hashable, change: object) -> None:
        """Set the value to send for a key, in place of an older one."""
        self._changes.pop(thing, None)
        self._changes[thing] = change
        self._arrived.set()

    async def next(self) -> object:
        """Return the next value to send."""
        while not self._changes:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._changes.pop(next(iter(self._changes)))

    def end(self) -> None:
        """End the stream."""
        self._scope.cancel()


class Subscriptions:
    """All streams of this process."""

    def __init__(self) -> None:
        self._by_node: dict[NodeId, Subscription] = {}
        self._nodes: dict[FacilityId, set[NodeId]] = defaultdict(set)
        self._interested: dict[FacilityId, set[Subscription]] = defaultdict(set)

    @contextmanager
    def watching(
        self, node: NodeId, facility: FacilityId, interests: Collection[FacilityId]
    ) -> Iterator[Subscription]:
        """Watch for the time of the block; an earlier stream of the same node ends."""
        watcher = Subscription(node, facility)
        earlier = self._by_node.get(node)
        if earlier is not None:
            earlier.end()
        self._by_node[node] = watcher
        self._nodes[facility].add(node)
        for interest in interests:
            self._interested[interest].add(watcher)
        try:
            with watcher._scope:
                yield watcher
        finally:
            if self._by_node.get(node) is watcher:
                del self._by_node[node]
                self._nodes[facility].discard(node)
                if not self._nodes[facility]:
                    del self._nodes[facility]
            for interest in interests:
                self._interested[interest].discard(watcher)
                if not self._interested[interest]:
                    del self._interested[interest]

    def count(self, facility: FacilityId, *, besides: NodeId) -> int:
        """Return how many other nodes of a facility watch here."""
        return len(self._nodes.get(facility, set()) - {besides})

    def total(self) -> int:
        """Return how many nodes watch here."""
        return len(self._by_node)

    def is_watching(self, node: NodeId) -> bool:
        """Whether a stream of that node is open here."""
        return node in self._by_node

    def publish_to_interested(self, facility: FacilityId, thing: Hashable, change: object) -> None:
        """Send a value to all watchers that are interested in a facility."""
        for watcher in self._interested.get(facility, ()):
            watcher.publish(thing, change)

    def publish_to_all(self, thing: Hashable, change: object) -> None:
        """Send a value to all watchers."""
        for watcher in self._by_node.values():
            watcher.publish(thing, change)

    def publish(self, node: NodeId, thing: Hashable, change: object) -> None:
        """Send a value to one node, if it watches here."""
        watcher = self._by_node.get(node)
        if watcher is not None:
            watcher.publish(thing, change)

    def end_all_of(self, facilities: Collection[FacilityId]) -> None:
        """End the streams of facilities that may not watch any more."""
        for watcher in list(self._by_node.values()):
            if watcher.facility in facilities:
                watcher.end()
