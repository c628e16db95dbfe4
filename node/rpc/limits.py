"""How often strangers may call."""

import ipaddress
import time
from collections import OrderedDict
from urllib.parse import unquote

from node.errors import PeerBusy

_MAX_CALLERS = 20_000


def origin(host: str) -> str:
    """Return whom calls from an IP address count for: in IPv6 anyone has a whole /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def caller_origin(address: str) -> str:
    """Return whom a call counts for, from its address as gRPC writes it."""
    host = unquote(address).partition(":")[2].rpartition(":")[0]
    return origin(host.strip("[]")) or address


class RateLimit:
    """At most so many calls a minute of one caller, and so many in all."""

    def __init__(self, calls_a_minute: int, *, in_all: int) -> None:
        self._limit = calls_a_minute
        self._in_all = in_all
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._minute = 0

    def count(self, caller: str) -> None:
        """Count one call of somebody, under whatever name tells callers apart.

        Raises:
            PeerBusy: it is one too many.
        """
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._total = minute, 0
            self._counts.clear()
        # Only calls that are let in count, or one caller could shut out all others.
        so_far = self._counts.get(caller, 0)
        if so_far >= self._limit or self._total >= self._in_all:
            raise PeerBusy("asked too often; try again in a minute", 60)
        self._counts[caller] = so_far + 1
        self._total += 1
        if len(self._counts) > _MAX_CALLERS:
            self._counts.popitem(last=False)
