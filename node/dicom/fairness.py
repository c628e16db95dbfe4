"""Fair scheduling of parsers and memory between sources, and their CPU budgets.

A *source* is where bytes come from: a peer, or this node's own imports (the empty one).
Nothing here knows of processes or files.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import trio

OWN = ""
"""The source of this node's own work."""


class FairPlaces:
    """Equal places, lent to one source after the other, however many of one wait.

    Some are kept for the node's own work, and no other source has more than its share at once.
    """

    def __init__(self, places: int, *, kept: int = 0, each: int | None = None) -> None:
        """Prepare.

        Args:
            places: How many there are.
            kept: How many of them only the node's own work may have.
            each: How many another source may have at once; all that are not kept, if None.
        """
        self._free = places
        self._for_others = places - kept
        self._each = self._for_others if each is None else each
        self._lent: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[trio.Event]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait or have a place."""
        return sum(map(len, self._waiting.values())) + self._lent.total()

    async def acquire(self, source: str) -> None:
        """Wait for a place.

        Cancellation:
            No place is held, and nobody else loses a turn.
        """
        granted = trio.Event()
        self._waiting.setdefault(source, deque()).append(granted)
        self._grant()
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self.release(source)
            else:
                self._forget(source, granted)
            raise

    def release(self, source: str) -> None:
        """Give a place back."""
        self._free += 1
        self._lent[source] -= 1
        if not self._lent[source]:
            del self._lent[source]
        self._grant()

    def _grant(self) -> None:
        while (source := self._next()) is not None:
            granted = self._waiting[source][0]
            self._forget(source, granted)
            if source in self._waiting:
                self._waiting.move_to_end(source)
            self._free -= 1
            self._lent[source] += 1
            granted.set()

    def _next(self) -> str | None:
        if not self._free:
            return None
        others = self._lent.total() - self._lent[OWN]
        for source in self._waiting:
            if source == OWN or (others < self._for_others and self._lent[source] < self._each):
                return source
        return None

    def _forget(self, source: str, granted: trio.Event) -> None:
        queue = self._waiting[source]
        queue.remove(granted)
        if not queue:
            del self._waiting[source]


class CpuBudget:
    """The CPU budget of each source: a burst, then a sustained rate.

    A source that exceeds its budget has to wait, even if no other source needs the time: a node
    does not provide computing to peers. The node's own work has no bound.
    """

    def __init__(self, burst_seconds: float, rate: float, clock: Callable[[], float]) -> None:
        """Prepare; `rate` is in seconds of a core per second of the clock."""
        self._burst = burst_seconds
        self._rate = rate
        self._clock = clock
        self._debts: dict[str, tuple[float, float]] = {}  # used, and when that was so

    def charge(self, source: str, seconds: float) -> None:
        """Note what was used."""
        if source == OWN:
            return
        now = self._clock()
        self._debts[source] = (self._used(source, now) + seconds, now)
        for other in [s for s in self._debts if not self._used(s, now)]:
            del self._debts[other]  # as good as never seen

    async def wait(self, source: str) -> None:
        """Wait until a source may have more computed."""
        while seconds := self.wait_seconds(source):  # noqa: ASYNC110  # time is what it waits for
            await trio.sleep(seconds)

    def wait_seconds(self, source: str) -> float:
        """Return for how long a source has to wait."""
        return max(0.0, (self._used(source, self._clock()) - self._burst) / self._rate)

    def _used(self, source: str, now: float) -> float:
        used, when = self._debts.get(source, (0.0, now))
        return max(0.0, used - (now - when) * self._rate)
