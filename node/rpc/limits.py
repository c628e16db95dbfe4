"""How often strangers may call, and how many calls one caller may have open."""

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
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


@lru_cache(4096)  # each call asks
def caller_origin(address: str) -> str:
    """Return whom a call counts for, from its address as gRPC writes it."""
    host = unquote(address).partition(":")[2].rpartition(":")[0]
    return origin(host.strip("[]")) or address


@lru_cache(4096)  # each call asks
def caller_socket(address: str) -> str:
    """Return the name of a caller's end of a connection, from its address as gRPC writes it."""
    host, _, port = unquote(address).partition(":")[2].rpartition(":")
    return socket_name(host.strip("[]"), int(port)) if port.isdigit() else address


def socket_name(host: str, port: int) -> str:
    """Return one name for one end of a connection, however its IP address is written."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return f"{host} {port}"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"{mapped or address} {port}"


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
        # Only admitted calls count; otherwise one caller could block all others.
        so_far = self._counts.get(caller, 0)
        if so_far >= self._limit or self._total >= self._in_all:
            raise PeerBusy("too many calls; try again in a minute", 60)
        self._counts[caller] = so_far + 1
        self._total += 1
        if len(self._counts) > _MAX_CALLERS:
            self._counts.popitem(last=False)


class Places:
    """At most so many calls of one caller at once; a place is held until its call is over."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def take(self, account: str, on_end: Callable[[Callable[[], None]], None]) -> None:
        """Take a place of a caller's; `on_end` has it given back.

        Raises:
            PeerBusy: it has no more.
        """
        if self._taken[account] >= self._most:
            raise PeerBusy("too many calls at once; try again later", 5)
        self._taken[account] += 1
        on_end(lambda: self._give_back(account))

    def _give_back(self, account: str) -> None:
        self._taken[account] -= 1
        if not self._taken[account]:
            del self._taken[account]
