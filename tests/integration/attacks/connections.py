"""Connections by the hundred, from processes of their own: honest peers, and strangers.

`python -m tests.integration.attacks.connections` reads what crowd it is, runs it, and prints what
became of it; `started` and `Crowd.ended` do that for a test.
"""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from emix.admin.v1 import admin_pb2 as admin
from emix.exchange.v1 import exchange_pb2 as pb

from node.crypto.certificates import der_to_pem, server_name
from node.documents.identity import Identity
from node.rpc.blocking import open_blocking_channel
from node.rpc.methods import methods
from tests.support.hostile import HostilePeer
from tests.support.nodes import Node

_HELLO = "/emix.exchange.v1.ExchangeService/Hello"
_CARRY = "/emix.exchange.v1.ExchangeService/Carry"
_PEERS = {m.name: m for m in methods(admin.DESCRIPTOR.services_by_name["PeerService"])}
_AGAIN_SECONDS = 0.6  # a peer may say Hello twice a second


# -- for tests ------------------------------------------------------------------------------


@dataclass
class Crowd:
    """A running crowd."""

    process: "subprocess.Popen[str]"

    def ended(self, seconds: float = 400) -> dict[str, Any]:
        """Wait until it is done; return what became of it."""
        out, problem = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, problem[-2000:]
        found: dict[str, Any] = json.loads(out)
        return found


def started(what: str, **options: Any) -> Crowd:
    """Start a crowd: `reconnecting`, `staying`, `hogging`, `flooding` or `strangers`."""
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"what": what, **options}) + "\n")
    process.stdin.flush()
    return Crowd(process)


def make_peers(folder: Path, count: int, *, first: int = 0) -> list[HostilePeer]:
    """Make facilities of the test's own."""
    return [HostilePeer(folder, f"clinic-{n}") for n in range(first, first + count)]


def pin(node: Node, peers: Sequence[HostilePeer]) -> Identity:
    """Have a node pin peers, as the command does it, but faster; return the node's identity."""
    socket = (node.home / "admin.sock").resolve()
    with open_blocking_channel(f"unix:{socket}") as channel:
        for peer in peers:
            request = admin.PairPeerRequest(statements=peer.statements())
            channel.unary(_PEERS["PairPeer"], request, timeout=60)
    file = node.home.with_suffix(".identity")
    node.run("id", "--export", str(file), "--no-qr")
    return Identity.decode(file.read_bytes())


def way_of(node: Node, identity: Identity, peers: Sequence[HostilePeer]) -> dict[str, Any]:
    """Return what a crowd of peers needs to reach a node."""
    return {
        "address": node.addresses["peer"],
        "name": server_name(identity.node_id),
        "roots": b"".join(der_to_pem(der) for der in identity.certificates).decode(),
        "peers": [(p.tls.private_pem.decode(), p.tls.certificate_pem.decode()) for p in peers],
    }


# -- honest peers ---------------------------------------------------------------------------


def _channel(options: dict[str, Any], n: int) -> grpc.aio.Channel:
    key, certificate = (part.encode() for part in options["peers"][n])
    credentials = grpc.ssl_channel_credentials(options["roots"].encode(), key, certificate)
    arguments = (
        ("grpc.ssl_target_name_override", options["name"]),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 1000),
    )
    return grpc.aio.secure_channel(options["address"], credentials, arguments)


async def _hello(channel: grpc.aio.Channel) -> str:
    """Say Hello; return what is wrong, empty if it was answered."""
    request = pb.HelloRequest(
        min_version=1, max_version=1, time_milliseconds=time.time_ns() // 10**6
    )
    encode, decode = pb.HelloRequest.SerializeToString, pb.HelloResponse.FromString
    call = channel.unary_unary(_HELLO, encode, decode)
    try:
        await call(request, timeout=10)
    except grpc.aio.AioRpcError as exc:
        return f"{exc.code()}: {exc.details()}"
    return ""


class _Record:
    """How one peer fared."""

    def __init__(self) -> None:
        self.answered = 0
        self.problems: Counter[str] = Counter()
        self._lost_seconds = 0.0
        self._last = time.monotonic()
        self._is_lost = False

    def note(self, problem: str) -> None:
        now = time.monotonic()
        if problem:
            self.problems[problem[:200]] += 1
            self._is_lost = True
            return
        self.answered += 1
        if self._is_lost:  # a slow answer is none that was lost
            self._lost_seconds = max(self._lost_seconds, now - self._last)
        self._is_lost, self._last = False, now

    def shown(self) -> dict[str, Any]:
        if self._is_lost:
            self._lost_seconds = max(self._lost_seconds, time.monotonic() - self._last)
        return {
            "answered": self.answered,
            "lost_seconds": self._lost_seconds,
            "problems": self.problems,
        }


async def _reconnecting(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Connect anew and say Hello, so many times; each until it is answered."""
    record = _Record()
    end = time.monotonic() + options.get("limit_seconds", 200)
    while record.answered < options["rounds"] and time.monotonic() < end:
        async with _channel(options, n) as channel:
            record.note(problem := await _hello(channel))
        if problem:
            await asyncio.sleep(0.1)
    return record.shown()


async def _staying(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Say Hello on one connection again and again, for some seconds."""
    record = _Record()
    end = time.monotonic() + options["seconds"]
    async with _channel(options, n) as channel:
        while time.monotonic() < end:
            record.note(await _hello(channel))
            await asyncio.sleep(_AGAIN_SECONDS)
    return record.shown()


async def _hogging(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Take connections, and have calls on them whose request never comes, for some seconds."""
    record = _Record()
    end = time.monotonic() + options["seconds"]
    while (left := end - time.monotonic()) > 0:
        async with _channel(options, n) as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), left)
            except TimeoutError:
                break
            record.note("")
            for kind, path in ((channel.stream_unary, _HELLO), (channel.stream_stream, _CARRY)):
                for _ in range(8):
                    kind(path)(timeout=left)
            state = grpc.ChannelConnectivity.READY
            with suppress(TimeoutError):
                await asyncio.wait_for(channel.wait_for_state_change(state), left)
    return record.shown()


async def _flooding(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Call a method again and again, on many streams of many connections, for some seconds."""
    record = _Record()
    end = time.monotonic() + options["seconds"]

    async def call(channel: grpc.aio.Channel) -> None:
        method = channel.unary_unary(options["path"])
        while time.monotonic() < end:
            try:
                await method(b"", timeout=10)
                record.note("")
            except grpc.aio.AioRpcError as exc:
                record.note(str(exc.code()))
                await asyncio.sleep(0.01 if exc.code() is grpc.StatusCode.UNAVAILABLE else 0)

    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(_channel(options, n))
            for _ in range(options["connections"])
        ]
        await asyncio.gather(*(call(c) for c in channels for _ in range(options["streams"])))
    return record.shown()


async def _crowd_of_peers(
    one: Callable[[dict[str, Any], int], Awaitable[dict[str, Any]]], options: dict[str, Any]
) -> Any:
    found = await asyncio.gather(*(one(options, n) for n in range(len(options["peers"]))))
    problems: Counter[str] = sum((Counter(f["problems"]) for f in found), Counter())
    return {
        "answered": [f["answered"] for f in found],
        "lost_seconds": max(f["lost_seconds"] for f in found),
        "problems": dict(problems.most_common(5)),
    }


# -- strangers ------------------------------------------------------------------------------

_CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(100)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def _read_to_end(reader: asyncio.StreamReader, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.read(), seconds)


async def _one_stranger(options: dict[str, Any], n: int, seen: Counter[str], end: float) -> None:
    """Do one of the things that strangers do, over and over."""
    host, _, port = options["address"].rpartition(":")
    kind = ("silent", "begins", "junk", "handshakes", "within")[n % 5]
    source = (f"127.0.0.{options['source']}", 0)
    within = _context() if kind in ("handshakes", "within") else None
    while (left := end - time.monotonic()) > 0:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(host, int(port), local_addr=source, ssl=within), 15
            )
        except (OSError, TimeoutError):
            seen["refused"] += 1
            await asyncio.sleep(0.02)
            continue
        seen["connected"] += 1
        with suppress(OSError):
            if kind == "begins":
                writer.write(_CLIENT_HELLO)
            if kind == "junk":
                writer.write(os.urandom(3000))
            if kind != "handshakes":
                await _read_to_end(reader, left)
        writer.transport.abort()


async def _crowd_of_strangers(options: dict[str, Any]) -> Any:
    seen: Counter[str] = Counter()
    end = time.monotonic() + options["seconds"]
    count = options["count"]
    await asyncio.gather(*(_one_stranger(options, n, seen, end) for n in range(count)))
    return seen


async def _main(options: dict[str, Any]) -> Any:
    match options["what"]:
        case "reconnecting":
            return await _crowd_of_peers(_reconnecting, options)
        case "hogging":
            os.nice(19)
            return await _crowd_of_peers(_hogging, options)
        case "flooding":
            os.nice(19)
            return await _crowd_of_peers(_flooding, options)
        case "staying":
            return await _crowd_of_peers(_staying, options)
    os.nice(19)
    return await _crowd_of_strangers(options)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.stdin.readline())))))
