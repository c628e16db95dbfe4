"""How often strangers may call."""

import time
from collections import OrderedDict

from node.errors import PeerBusy

_MAX_ADDRESSES = 20_000


class RateLimit:
    """At most so many calls a minute from one address, and so many in all."""

    def __init__(self, calls_a_minute: int, *, in_all: int) -> None:
        self._limit = calls_a_minute
        self._in_all = in_all
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._minute = 0

    def count(self, address: str) -> None:
        """Count one call.

        Raises:
            PeerBusy: it is one too many.
        """
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._total = minute, 0
            self._counts.clear()
        host = address.rpartition(":")[0]
        # Only calls that are let in count, or one caller could shut out all others.
        so_far = self._counts.get(host, 0)
        if so_far >= self._limit or self._total >= self._in_all:
            raise PeerBusy("asked too often; try again in a minute", 60)
        self._counts[host] = so_far + 1
        self._total += 1
        if len(self._counts) > _MAX_ADDRESSES:
            self._counts.popitem(last=False)
