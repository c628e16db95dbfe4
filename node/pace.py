"""How fast somebody may go, in trio's time."""

import math
from collections import OrderedDict
from collections.abc import Hashable

import trio

MOST_DEBT_SECONDS = 60.0
"""Longer nobody waits, whatever it has cost: an honest peer costs much at times, too."""

_MOST = 20_000
"""Callers whose time is kept, those that came last: strangers may be any number."""


class Pace:
    """How fast one peer may go: so much a second, and a burst of so much before that counts.

    Who may have something has all that it asks for, and waits for that afterwards: a large thing
    needs no burst of its size, which would be so many small ones at once.
    """

    def __init__(self, a_second: float, *, burst: float) -> None:
        self._a_second = a_second
        self._burst_seconds = burst / a_second
        self._used_until: OrderedDict[Hashable, float] = OrderedDict()

    def wait_seconds(self, peer: Hashable, amount: float = 1.0) -> float:
        """Take an amount if the peer may have some now, and return 0; else how long to wait."""
        now = trio.current_time()
        if (begun := self._begun(peer, now)) > now:
            return begun - now
        self._keep(peer, self._after(peer, now, amount))
        return 0.0

    async def turn(self, peer: Hashable, amount: float = 1.0) -> None:
        """Wait until the peer may have an amount; who waits already goes first.

        Cancellation: nothing is taken then.
        """
        now = trio.current_time()
        begun = self._begun(peer, now)
        until = self._after(peer, now, amount)
        self._keep(peer, until)
        try:
            await trio.sleep(max(0.0, begun - now))
        except trio.Cancelled:
            self._keep(peer, self._used_until.get(peer, until) - (until - begun))
            raise

    def charge(self, peer: Hashable, amount: float) -> None:
        """Take an amount for what has been, however long the peer waits for it from now on."""
        now = trio.current_time()
        self._keep(peer, self._after(peer, now, amount))

    def _keep(self, peer: Hashable, until: float) -> None:
        self._used_until[peer] = until
        self._used_until.move_to_end(peer)
        if len(self._used_until) > _MOST:
            self._used_until.popitem(last=False)

    def _after(self, peer: Hashable, now: float, amount: float) -> float:
        return min(self._begun(peer, now) + amount / self._a_second, now + MOST_DEBT_SECONDS)

    def _begun(self, peer: Hashable, now: float) -> float:
        return max(self._used_until.get(peer, -math.inf), now - self._burst_seconds)
