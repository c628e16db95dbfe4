"""Finds nodes on the LAN by multicast DNS: hints where to connect, never whom to trust.

Anyone on the LAN can announce anything. An announcement only adds an address on the LAN at which a
peer is tried; the peer's certificate is still pinned.
"""

import asyncio
import ipaddress
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ifaddr
import structlog
import trio
import trio_asyncio
from zeroconf import Error, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from node.domain.ids import FacilityId, NodeId
from node.federation.routes.dialing import own_ips, own_networks, split

log = structlog.get_logger()
_SERVICE = "_emix._tcp.local."
_FACILITY, _INTRODUCTION = "facility", "introduction"
_RESOLVE_MILLISECONDS = 2000
_MAX_HINTS = 1000
_MAX_OF_FACILITY = 4
_MAX_RESOLVING = 32
_MAX_ADDRESSES = 4
_CLOSE_SECONDS = 3.0
_AVOID_SECONDS = 120.0
_AGAIN_SECONDS = 60.0  # after which discovery is tried again where it could not be had
LOOK_SECONDS = 5.0
"""How often this machine's addresses are looked at."""


@dataclass(frozen=True)
class Hint:
    """An announcement on the LAN, not authenticated.

    Attributes:
        facility: The facility that it claims to be.
        endpoints: The claimed addresses of its peer service.
        introductions: The claimed addresses of its introduction service.
    """

    facility: FacilityId
    endpoints: tuple[str, ...]
    introductions: tuple[str, ...]


class Lan:
    """Announces this node on the LAN, and keeps the announcements of others."""

    def __init__(
        self, facility: FacilityId, node: NodeId, on_hint: Callable[[FacilityId], None]
    ) -> None:
        """Prepare.

        Args:
            facility: This one.
            node: This one.
            on_hint: Called when a facility is seen, or is seen elsewhere.
        """
        self._facility = facility
        self._name = f"{node.short()}-{secrets.token_hex(4)}.{_SERVICE}"
        self._on_hint = on_hint
        self._hints: dict[str, Hint] = {}
        self._avoided: dict[str, float] = {}  # endpoints, until when
        self._unresolved: dict[str, None] = {}  # names, the oldest first
        self._resolving: set[asyncio.Task[Any]] = set()

    def endpoints(self, facility: FacilityId) -> list[str]:
        """Return where a facility's peer service seems to be on the own network."""
        # Only a few: false announcements must not displace the endpoints that the peer has stated.
        now = time.monotonic()
        self._avoided = {e: until for e, until in self._avoided.items() if until > now}
        found = [e for hint in self._of(facility) for e in hint.endpoints]
        return [e for e in found if e not in self._avoided][:_MAX_ADDRESSES]

    def avoid(self, endpoint: str) -> None:
        """Do not return an endpoint for a while: its connection was lost or stalled.

        A man in the middle can forward the peer's handshake, win the race, and then drop or delay
        the bytes.
        """
        if len(self._avoided) < _MAX_HINTS:
            self._avoided[endpoint] = time.monotonic() + _AVOID_SECONDS

    def introductions(self, facility: FacilityId) -> list[str]:
        """Return where a facility's introduction service seems to be on the own network."""
        return [e for hint in self._of(facility) for e in hint.introductions][:_MAX_ADDRESSES]

    def _of(self, facility: FacilityId) -> list[Hint]:
        return [hint for hint in self._hints.values() if hint.facility == facility]

    async def run(self, peer: str, introduction: str) -> None:
        """Announce our services and listen to announcements, for ever.

        Starts again when this machine's addresses change, for example when an interface comes up.
        Without a usable address it only waits.
        """
        ports = split(peer)[1], split(introduction)[1]
        while True:
            addresses = own_addresses(peer)
            async with trio.open_nursery() as nursery:
                if addresses:
                    nursery.start_soon(self.announce, addresses, *ports)
                await _other_addresses(peer, addresses)
                nursery.cancel_scope.cancel()
            log.info("the addresses of this machine have changed")

    async def announce(self, addresses: Sequence[str], peer: int, introduction: int) -> None:
        """Announce our ports at these addresses of ours, and listen there, until cancelled."""
        # A loop of its own: what a packet does to a task of zeroconf's must not end the node, as
        # trio-asyncio would have it; what happens in any other loop still must.
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_failure)
            while True:
                await self._run(addresses, peer, introduction)
                await trio.sleep(_AGAIN_SECONDS)

    async def _run(self, addresses: Sequence[str], peer: int, introduction: int) -> None:
        try:
            zeroconf = await trio_asyncio.aio_as_trio(self._open)(addresses)
        except (OSError, Error) as exc:
            log.warning("no discovery on the own network", error=type(exc).__name__)
            return
        try:
            await trio_asyncio.aio_as_trio(self._begin)(zeroconf, addresses, peer, introduction)
            await trio.sleep_forever()
        except (OSError, Error) as exc:
            log.warning("no discovery on the own network", error=type(exc).__name__)
        finally:
            with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                await trio_asyncio.aio_as_trio(zeroconf.async_close)()

    async def _open(self, addresses: Sequence[str]) -> AsyncZeroconf:
        # Not zeroconf's own thread: trio-asyncio would make the event loop there, too.
        return AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)

    async def _begin(
        self, zeroconf: AsyncZeroconf, addresses: Sequence[str], peer: int, introduction: int
    ) -> None:
        info = AsyncServiceInfo(
            _SERVICE,
            self._name,
            addresses=[ipaddress.ip_address(a).packed for a in addresses],
            port=peer,
            properties={_FACILITY: str(self._facility), _INTRODUCTION: str(introduction)},
        )
        # The name is random: no need to ask whether another has it, which anybody could affirm.
        await zeroconf.async_register_service(info, cooperating_responders=True)
        AsyncServiceBrowser(zeroconf.zeroconf, _SERVICE, handlers=[self._changed])

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            self._hints.pop(name, None)
            self._unresolved.pop(name, None)
        elif name.endswith(f".{_SERVICE}") and len(self._unresolved) < _MAX_HINTS:
            self._unresolved[name] = None
            self._resolve_more(zeroconf)

    def _resolve_more(self, zeroconf: Zeroconf) -> None:
        while self._unresolved and len(self._resolving) < _MAX_RESOLVING:
            name = next(iter(self._unresolved))
            del self._unresolved[name]
            task = asyncio.ensure_future(self._resolve(zeroconf, name))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)
            task.add_done_callback(lambda _: self._resolve_more(zeroconf))

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            info = AsyncServiceInfo(_SERVICE, name)
            if await info.async_request(zeroconf, _RESOLVE_MILLISECONDS):
                addresses = info.parsed_addresses(IPVersion.V4Only)
                self.seen(name, addresses, info.port or 0, info.properties)
        except Exception as exc:  # whatever is announced: it is a hint, and nothing depends on it
            log.debug("announcement ignored", error=type(exc).__name__)

    def seen(
        self,
        name: str,
        addresses: Sequence[str],
        port: int,
        properties: dict[bytes, bytes | None],
    ) -> None:
        """Process an announcement; invalid ones, and those beyond the bounds, are ignored."""
        try:
            facility = FacilityId.parse((properties.get(b"facility") or b"").decode("ascii"))
            introduction = int(properties.get(b"introduction") or 0)
        except ValueError:
            return
        near = neighbours(addresses[:_MAX_ADDRESSES])
        hint = Hint(facility, _at(near, port), _at(near, introduction))
        others = sum(other.facility == facility for n, other in self._hints.items() if n != name)
        if (
            facility == self._facility
            or not hint.endpoints
            or others >= _MAX_OF_FACILITY
            or (name not in self._hints and len(self._hints) >= _MAX_HINTS)
        ):
            return
        is_new = self._hints.get(name) != hint
        self._hints[name] = hint
        if is_new:
            self._on_hint(facility)


def neighbours(addresses: Sequence[str]) -> list[str]:
    """Return the addresses that can belong to another machine on this machine's networks."""
    networks, mine = own_networks(), own_ips()
    found = []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        is_other = not (address.is_loopback or address.is_unspecified or address.is_multicast)
        if is_other and address not in mine and any(address in n for n in networks):
            found.append(text)
    return found


def _log_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("an asyncio task failed", error=type(context.get("exception")).__name__)


def _at(addresses: Sequence[str], port: int) -> tuple[str, ...]:
    return tuple(f"{address}:{port}" for address in addresses) if 0 < port < 65536 else ()


async def _other_addresses(listen: str, than: Sequence[str]) -> None:
    """Wait until this machine has other addresses; the kernel is asked again and again."""
    while own_addresses(listen) == than:  # noqa: ASYNC110
        await trio.sleep(LOOK_SECONDS)


def own_addresses(listen: str) -> list[str]:
    """Return the IPv4 addresses at which others on the own network reach a bound address."""
    host, _ = split(listen)
    try:
        bound = ipaddress.ip_address(host)
    except ValueError:
        return []
    found = [bound]
    if bound.is_unspecified:
        ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
        found = [ipaddress.ip_address(str(ip.ip)) for ip in ips]
    return [str(a) for a in found if a.version == 4 and not a.is_loopback][:_MAX_ADDRESSES]
