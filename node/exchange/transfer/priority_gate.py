"""Priorities: a more urgent transfer to the same peer goes first, chunk by chunk."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from node.domain.transfers import Priority


class PriorityGate:
    """Delays a transfer's chunks while a more urgent transfer to the same peer is running."""

    def __init__(self) -> None:
        self._active: Counter[Priority] = Counter()
        self._changed = trio.Event()

    @contextmanager
    def active(self, priority: Priority) -> Iterator[None]:
        """Count a transfer as on its way for the time of the block."""
        self._active[priority] += 1
        try:
            yield
        finally:
            self._active[priority] -= 1
            self._changed.set()
            self._changed = trio.Event()

    async def wait_turn(self, priority: Priority) -> None:
        """Wait until nothing more urgent is on its way."""
        while self.is_yielding(priority):
            await self._changed.wait()

    def is_yielding(self, priority: Priority) -> bool:
        """Return whether something more urgent is on its way."""
        return any(count and other < priority for other, count in self._active.items())
