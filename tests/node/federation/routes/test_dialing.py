"""Ways out through an HTTP proxy: asked as RFC 9110 has it, and never around it."""

import base64
import ipaddress
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
import trio

from node.errors import ConfigError, PeerUnreachable
from node.federation.routes import dialing
from node.federation.routes.dialing import Dialer, is_on_own_network, within_tls
from node.proxy import Proxy, read_proxy

TARGET = "directory.example.org:443"
ASKED_FOR = f"CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n"


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    near = [ipaddress.ip_network("10.1.2.0/24"), ipaddress.ip_network("2001:db8::/64")]
    monkeypatch.setattr(dialing, "own_networks", lambda: near)


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncGenerator[tuple[str, list[bytes | bytearray]]]:
    """A proxy that answers one thing, and echoes after that."""
    asked: list[bytes | bytearray] = []

    async def serve(stream: trio.SocketStream) -> None:
        request = bytearray()
        while b"\r\n\r\n" not in request:
            piece = await stream.receive_some()
            if not piece:
                return
            request += piece
        asked.append(request)
        with suppress(trio.BrokenResourceError):  # who asked has gone
            await stream.send_all(answer)
            async for words in stream:
                await stream.send_all(words)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("credentials", ["", "us:er", "hospital:p ß@:%/40"])
async def test_proxy_is_asked_for_a_tunnel_and_carries_what_follows(credentials: str) -> None:
    async with proxy(b"HTTP/1.1 200 OK\r\nX-Any: thing\r\n\r\n") as (address, asked):
        stream = await Dialer(Proxy(address, credentials)).connect(TARGET)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()
    token = base64.b64encode(credentials.encode()).decode()
    authorization = f"Proxy-Authorization: Basic {token}\r\n" if credentials else ""
    assert asked == [f"{ASKED_FOR}{authorization}\r\n".encode()]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", r"credentials in emix\.toml"),
        (
            b"HTTP/1.0 401 No\r\nContent-Type: text/html\r\n\r\n<p>No</p>",
            r"credentials in emix\.toml",
        ),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", r"to directory\.example\.org:443 \(status 403\)"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\ninjected", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "does not speak HTTP"),
    ],
)
async def test_proxy_that_does_not_let_us_through_says_why(answer: bytes, problem: str) -> None:
    async with proxy(answer) as (address, _):
        dialer = Dialer(Proxy(address, "user:secret-password"))
        with pytest.raises(PeerUnreachable, match=problem) as caught:
            await dialer.connect(TARGET)
        assert "secret-password" not in str(caught.value) + repr(dialer._proxy)
        assert await dialer.objection(TARGET) == str(caught.value)


async def test_proxy_that_is_not_there_is_named() -> None:
    with pytest.raises(PeerUnreachable, match=r"the proxy 127\.0\.0\.1:1 does not answer"):
        await Dialer(Proxy("127.0.0.1:1")).connect(TARGET)


async def test_proxy_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(_: str) -> trio.SocketStream:
        left, _right = trio.socket.socketpair()
        silent.kept = _right  # type: ignore[attr-defined]
        return trio.SocketStream(left)

    monkeypatch.setattr(dialing, "_connected", silent)
    with pytest.raises(PeerUnreachable, match="does not speak HTTP"):
        await Dialer(Proxy("proxy.example.org:3128")).connect(TARGET)
    silent.kept.close()  # type: ignore[attr-defined]


@asynccontextmanager
async def speaker(words: bytes) -> AsyncGenerator[str]:
    """A server that speaks first."""

    async def speak(stream: trio.SocketStream) -> None:
        await stream.send_all(words)

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, speak, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_own_network_is_not_reached_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = [ipaddress.ip_network("127.0.0.0/8")]
    monkeypatch.setattr(dialing, "own_networks", lambda: here)
    async with speaker(b"here") as near:
        async with await Dialer(Proxy("192.0.2.1:1")).connect(near) as stream:
            assert await stream.receive_some() == b"here"


@pytest.mark.parametrize(
    ("endpoint", "is_near"),
    [
        ("10.1.2.9:7410", True),
        ("[2001:db8::9]:7410", True),
        ("10.1.3.9:7410", False),
        ("[2001:db9::9]:7410", False),
        ("node.example.org:7410", False),
        ("10.1.2.9", False),
        ("", False),
    ],
)
def test_own_network_is_known_by_its_addresses(endpoint: str, is_near: bool) -> None:
    assert is_on_own_network(endpoint) is is_near
    options = Dialer(Proxy("proxy.example.org:3128")).grpc_options(endpoint)
    assert bool(options) is not is_near
    assert Dialer().grpc_options(endpoint) == ()


async def test_grpc_asks_the_proxy_with_the_same_name_and_password() -> None:
    credentials = "hospital:p ß@:%/40"
    async with proxy(b"HTTP/1.1 403 No\r\n\r\n") as (address, asked):
        options = [*Dialer(Proxy(address, credentials)).grpc_options(TARGET)]

        def call() -> None:
            with grpc.insecure_channel(TARGET, options=options) as channel:
                with pytest.raises(grpc.RpcError, match="403"):
                    channel.unary_unary("/a/b")(b"", timeout=10)

        await trio.to_thread.run_sync(call)
    token = base64.b64encode(credentials.encode()).decode()
    assert f"proxy-authorization: basic {token}".casefold() in asked[0].decode().casefold()


def test_credentials_are_read_from_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "proxy"
    file.write_text("hospital:secret\n")
    file.chmod(0o600)
    assert read_proxy("p:3128", str(file)) == Proxy("p:3128", "hospital:secret")
    assert read_proxy("p:3128", "") == Proxy("p:3128")
    assert read_proxy("", str(file)) is None
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_proxy("p:3128", str(file))
    file.chmod(0o600)
    for wrong in ("secret", "", "hospital:secret\r\nX: y"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="user:password") as caught:
            read_proxy("p:3128", str(file))
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_proxy("p:3128", str(tmp_path / "none"))


async def test_what_speaks_no_tls_is_given_up() -> None:
    async with speaker(b"SSH-2.0-OpenSSH\r\n") as address:
        stream = await Dialer().connect(address)
        with pytest.raises(PeerUnreachable, match="does not speak TLS"):
            await within_tls(stream, address)


@pytest.mark.parametrize("host", [".example.org", "a" * 70 + ".example.org", "two words", "\x00"])
async def test_what_is_no_name_for_a_host_is_nobody(host: str) -> None:
    with pytest.raises(PeerUnreachable):
        await Dialer().connect(f"{host}:443")
    async with proxy(b"HTTP/1.1 200 OK\r\n\r\n") as (address, _):

        async def reach() -> None:
            stream = await Dialer(Proxy(address)).connect(f"{host}:443")
            await within_tls(stream, f"{host}:443")

        with pytest.raises(PeerUnreachable):
            await reach()
