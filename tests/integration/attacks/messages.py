"""Calls with bodies as bytes, made past our own client: what a program made to attack sends."""

import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from node.crypto.certificates import DIRECTORY_NAME, name_in, server_name
from node.documents.identity import Identity
from node.rpc.credentials import client_credentials
from tests.support.hostile import HostilePeer

_SECONDS = 60.0
MIB = 2**20
MOST_MIB = 64
"""By which no messages of strangers may make a process grow, nor what a peer answers."""

MOST_MIB_OF_PEER = 128
"""Likewise, messages of a paired peer on one connection: 16 frames of 2 MiB, which gRPC and Python
hold once each, and what gRPC's windows let in before anybody reads it."""


def swollen(field: int, size: int) -> bytes:
    """Return a body of so many bytes: one repeated field, again and again, each time empty.

    Parsed by protobuf it takes 14 to 39 times its size.
    """
    return bytes([field << 3 | 2, 0]) * (size // 2)


def within(field: int, body: bytes) -> bytes:
    """Return a body that has another one in a field."""
    size, length = len(body), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    return bytes([field << 3 | 2]) + length + bytes([size]) + body


@contextmanager
def stranger(endpoint: str, *, is_directory: bool = False) -> Iterator[grpc.Channel]:
    """Connect as somebody whom nobody knows, with whatever certificate is shown there."""
    host, _, port = endpoint.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)))
    name = DIRECTORY_NAME if is_directory else name_in(ssl.PEM_cert_to_DER_cert(pem))
    credentials = grpc.ssl_channel_credentials(pem.encode())
    with _opened(endpoint, credentials, name) as channel:
        yield channel


@contextmanager
def paired(endpoint: str, peer: HostilePeer, identity: Identity) -> Iterator[grpc.Channel]:
    """Connect as a peer that a node has paired with."""
    credentials = client_credentials(peer.tls, identity.certificates)
    with _opened(endpoint, credentials, server_name(identity.node_id)) as channel:
        yield channel


@contextmanager
def _opened(
    endpoint: str, credentials: grpc.ChannelCredentials, name: str
) -> Iterator[grpc.Channel]:
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.secure_channel(endpoint, credentials, options=options) as channel:
        yield channel


def flood(channel: grpc.Channel, path: str, body: bytes, calls: int) -> Counter[str]:
    """Make so many calls at once; return how they ended, by status."""
    call = channel.unary_unary(path)
    running = [call.future(body, timeout=_SECONDS) for _ in range(calls)]
    return Counter(_status(one) for one in running)


def ask(channel: grpc.Channel, path: str, body: bytes) -> tuple[str, str]:
    """Make one call, of whatever kind; return its status and what is said with it."""
    call = channel.stream_stream(path)(iter([body]), timeout=_SECONDS)
    try:
        next(iter(call), None)
        call.cancel()
    except grpc.RpcError:
        return call.code().name, call.details() or ""
    return "OK", ""


def _status(running: grpc.Future) -> str:
    try:
        running.result()
    except grpc.RpcError as exc:
        return str(exc.code().name)
    return "OK"


def high_water(pid: int) -> int:
    """Return the most memory that a process has held so far, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
