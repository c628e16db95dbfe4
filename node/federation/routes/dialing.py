"""Outbound TCP connections, made directly or through an HTTP proxy's CONNECT.

If a proxy is set, all connections use it, except those to this machine's own networks. The proxy
sees addresses and TLS records; it is not trusted.
"""

import base64
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import h11
import ifaddr
import trio

from node.errors import PeerUnreachable
from node.proxy import Proxy
from node.system.tls_stream import TlsStream

CONNECT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 16 * 1024
# Threads that wait for somebody else's DNS names must not be those that the store needs.
_DNS_THREADS = 8
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104  # recognised, not bound
_MAX_OWN = 4  # addresses of this machine that peers are told


class Dialer:
    """Makes this node's outbound connections."""

    def __init__(self, proxy: Proxy | None = None) -> None:
        self._proxy = proxy

    def grpc_options(self, endpoint: str) -> Sequence[tuple[str, int | str]]:
        """Return the gRPC channel options for an endpoint: those of the proxy, if it is used."""
        if self._proxy is None or is_on_own_network(endpoint):
            return ()
        return (("grpc.enable_http_proxy", 1), ("grpc.http_proxy", self._proxy.url))

    def where(self, stream: trio.SocketStream, endpoint: str) -> str:
        """Return the address to which a connection leads; through a proxy, the endpoint itself."""
        if self.grpc_options(endpoint):
            return endpoint
        host, port = stream.socket.getpeername()[:2]
        return _endpoint(str(host), int(port))

    async def addresses(self, endpoint: str) -> Sequence[str]:
        """Return the addresses of an endpoint, best first; an IP address is returned as it is.

        A name is not looked up if the connection goes through the proxy, which does that.

        Raises:
            PeerUnreachable: the name cannot be resolved, or not in time.
        """
        host, port = split(endpoint)
        if _is_address(host) or self.grpc_options(endpoint):
            return (endpoint,)
        try:
            with trio.fail_after(CONNECT_SECONDS):
                found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, trio.TooSlowError) as exc:
            raise PeerUnreachable(f"the host name in {endpoint} cannot be resolved") from exc
        return tuple(dict.fromkeys(_endpoint(str(at[4][0]), port) for at in found))

    async def objection(self, endpoint: str) -> str:
        """Return why a connection to an endpoint fails through the proxy; empty if it does not.

        Empty also if no proxy is used for the endpoint.
        """
        try:
            if self.grpc_options(endpoint):
                await trio.aclose_forcefully(await self.connect(endpoint))
        except PeerUnreachable as exc:
            return str(exc)
        return ""

    async def connect(self, endpoint: str) -> trio.SocketStream:
        """Return a connection to an endpoint.

        Raises:
            PeerUnreachable: nobody answers there, or the proxy does not let us through.
        """
        if self._proxy is None or is_on_own_network(endpoint):
            return await _connected(endpoint)
        try:
            stream = await _connected(self._proxy.address)
        except PeerUnreachable as exc:
            raise PeerUnreachable(f"the proxy {self._proxy.address} does not answer") from exc
        try:
            with trio.fail_after(CONNECT_SECONDS):
                status = await _ask_for(stream, endpoint, self._proxy.credentials)
        except (trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError) as exc:
            await trio.aclose_forcefully(stream)
            raise PeerUnreachable(
                f"the proxy {self._proxy.address} does not speak HTTP; check [proxy] address"
            ) from exc
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if status != 200:
            await trio.aclose_forcefully(stream)
            raise PeerUnreachable(_refusal(self._proxy, endpoint, status))
        return stream


def _refusal(proxy: Proxy, endpoint: str, status: int) -> str:
    if status in (401, 407):
        return (
            f"the proxy {proxy.address} requires a user and password, or refused those given; see"
            " [proxy] credentials in emix.toml"
        )
    return f"the proxy {proxy.address} refuses connections to {endpoint} (status {status})"


async def _ask_for(stream: trio.SocketStream, endpoint: str, credentials: str) -> int:
    """Ask a proxy for a tunnel (RFC 9110, section 9.3.6); return the status that it answers."""
    headers = [("Host", endpoint)]
    if credentials:
        token = base64.b64encode(credentials.encode()).decode("ascii")
        headers.append(("Proxy-Authorization", f"Basic {token}"))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_ANSWER_BYTES)
    request = h11.Request(method="CONNECT", target=endpoint, headers=headers)
    await stream.send_all(http.send(request) or b"")
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(_MAX_ANSWER_BYTES))
        elif isinstance(event, h11.Response):
            # A refusal has a text for people. In all that we tunnel, we speak first.
            if event.status_code == 200 and http.trailing_data[0]:
                raise h11.RemoteProtocolError("bytes after the proxy's answer")
            return int(event.status_code)
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("no answer")


async def _connected(endpoint: str) -> trio.SocketStream:
    host, port = split(endpoint)
    try:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, ValueError, trio.TooSlowError) as exc:  # ValueError: no name for a host
        raise PeerUnreachable(f"nobody answers at {endpoint}") from exc
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    return stream


class _Resolver(trio.abc.HostnameResolver):
    """Asks the system, on threads of its own."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_DNS_THREADS)

    async def getaddrinfo(self, *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(
            socket.getaddrinfo, *arguments, abandon_on_cancel=True, limiter=self._limiter
        )

    async def getnameinfo(self, *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(
            socket.getnameinfo, *arguments, abandon_on_cancel=True, limiter=self._limiter
        )


def resolve_names_apart() -> None:
    """Have all names of this run looked up on threads that nothing else needs."""
    trio.socket.set_custom_hostname_resolver(_Resolver())


async def within_tls(stream: trio.SocketStream, endpoint: str) -> TlsStream:
    """Return a connection in unverified TLS; the other side is authenticated by other means.

    Raises:
        PeerUnreachable: the TLS handshake fails; the connection is closed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        wrapped = TlsStream(stream, context, server_hostname=split(endpoint)[0])
        with trio.fail_after(CONNECT_SECONDS):
            await wrapped.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError, OSError, ValueError) as exc:
        await trio.aclose_forcefully(stream)
        raise PeerUnreachable(f"the service at {endpoint} does not speak TLS") from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return wrapped


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split(endpoint: str) -> tuple[str, int]:
    """Return host and port of `host:port`; `PeerUnreachable` if it is none."""
    host, _, port = endpoint.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise PeerUnreachable(f"{endpoint} is not an address of the form HOST:PORT")
    return host.strip("[]"), int(port)


def is_on_own_network(endpoint: str) -> bool:
    """Whether an endpoint is an IP address in a network to which this machine is attached."""
    try:
        address = ipaddress.ip_address(split(endpoint)[0])
    except (ValueError, PeerUnreachable):
        return False
    return any(address in network for network in own_networks())


def own_networks() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks to which this machine is attached."""
    return [interface.network for interface in _interfaces()]


def own_ips() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return this machine's own addresses."""
    return {interface.ip for interface in _interfaces()}


def reachable(listen: str) -> tuple[str, ...]:
    """Return the addresses at which others reach a bound address.

    For a wildcard these are the machine's own addresses. The machine's host name is not used, since
    others often cannot resolve it. For localhost nothing is returned: others cannot reach it.
    """
    host, port = split(listen)
    if host == "localhost":
        return ()
    if host not in _WILDCARDS:
        return (listen,)
    mine = [ip for ip in (_preferred(), *(i.ip for i in _interfaces())) if ip is not None]
    found = [
        _endpoint(str(ip), port)
        for ip in dict.fromkeys(mine)
        if (ip.version == 4 or host == "::")
        and not (ip.is_loopback or ip.is_link_local or ip.is_multicast)
    ]
    return tuple(found[:_MAX_OWN])


def _preferred() -> ipaddress.IPv4Address | None:
    """Return the address from which this machine reaches others; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # for documentation: nobody has it (RFC 5737)
            return ipaddress.IPv4Address(probe.getsockname()[0])
        except OSError:
            return None


def _interfaces() -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    found = []
    for adapter in ifaddr.get_adapters():
        for own in adapter.ips:
            address = own.ip if isinstance(own.ip, str) else own.ip[0]
            found.append(ipaddress.ip_interface(f"{address}/{own.network_prefix}"))
    return found
