"""Our relay beside Syncthing's, carrying the same bytes: `python -m bench.relays`.

Both join two plain TCP connections; what the peers' own TLS would cost is left out of both. Ours
is also measured within TLS, which a firewall may ask for. Writes results-relays.md.
"""

import os
import secrets
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from node.crypto.certificates import TlsIdentity, fingerprint, make_tls_identity
from node.crypto.signing import SigningKey
from node.documents.tickets import (
    JOINED,
    TICKET_LENGTH,
    Ticket,
    certify_tickets,
    read_ticket_signer,
)
from node.domain.ids import FacilityId, NodeId
from tests.support.nodes import free_port, wait_until

RESULTS = Path(__file__).with_name("results-relays.md")
RUNS = int(os.environ.get("RUNS", "5"))
GIB = 2**30
_PIECE = 2**20
Ends = tuple[socket.socket, socket.socket]


def main() -> None:
    """Run all and write the results."""
    if shutil.which("strelaysrv") is None:
        sys.exit("strelaysrv is not here; `make bench-setup` installs it")
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    seconds: dict[str, list[float]] = {}
    processor: dict[str, float] = {}
    try:
        with ExitStack() as stack:
            ours = stack.enter_context(our_relay())
            theirs = stack.enter_context(_theirs(folder))
            relays: dict[str, tuple[int, Callable[[], Ends]]] = {
                "emix": (ours.pid, ours.join),
                "emix within TLS": (ours.pid, ours.join_within_tls),
                "strelaysrv": (theirs.pid, theirs.join),
            }
            for n in range(RUNS):
                for name, (pid, join) in relays.items():
                    before = _processor_seconds(pid)
                    took = _carry(join())
                    seconds.setdefault(name, []).append(took)
                    used = _processor_seconds(pid) - before
                    processor[name] = processor.get(name, 0.0) + used / RUNS
                    print(f"{name} {n + 1}/{RUNS}: {took:.2f} s, {used:.2f} s of processor")
    finally:
        shutil.rmtree(folder)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    rows = "".join(
        f"| {name} | {took:.2f} s | {2 * GIB / took / 2**20:.0f} MiB/s | {processor[name]:.2f} s |"
        f" {medians['strelaysrv'] / took:.2f} |\n"
        for name, took in medians.items()
    )
    text = (
        "# Relays\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. 2 GiB through one joined pair of"
        " connections, sender, relay and receiver on one machine, the relays alternated, medians of"
        f" {RUNS}. strelaysrv is Debian's `syncthing-relaysrv`. To reach: faster than it.\n\n"
        "| relay | time | rate | its own processor time | times as fast as strelaysrv |\n"
        "|---|---|---|---|---|\n"
        f"{rows}"
    )
    RESULTS.write_text(text)
    print(text)


def _carry(ends: Ends) -> float:
    """Send 2 GiB from one end to the other; return the seconds until the last byte is there."""
    source, sink = ends
    data = memoryview(secrets.token_bytes(_PIECE))
    pieces = 2 * GIB // _PIECE

    def send() -> None:
        for _ in range(pieces):
            source.sendall(data)

    started = time.perf_counter()
    sender = threading.Thread(target=send)
    sender.start()
    left, buffer = pieces * _PIECE, bytearray(_PIECE)
    while left:
        found = sink.recv_into(buffer)
        if not found:
            raise RuntimeError(f"the connection ended {left} bytes before its end")
        left -= found
    took = time.perf_counter() - started
    sender.join()
    if bytes(buffer[:16]) == bytes(16):
        raise RuntimeError("nothing was carried")
    source.close()
    sink.close()
    return took


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class OurRelay:
    """A relay process, and tickets for it."""

    def __init__(self, pid: int, address: str, network: SigningKey) -> None:
        self.pid = pid
        self.address = address
        key = SigningKey.new()
        certificate = certify_tickets(network, key.public, [address], time.time() + 3600)
        self._signer = read_ticket_signer(key, certificate)

    def join(self, wrap: Callable[[socket.socket], socket.socket] = lambda s: s) -> Ends:
        """Return two connections that the relay has joined."""
        facilities = [FacilityId(secrets.token_bytes(32)) for _ in range(2)]
        nodes = [NodeId(secrets.token_bytes(32)) for _ in range(2)]
        ticket = Ticket.new(
            self.address, facilities[0], nodes[0], facilities[1], nodes[1], time.time()
        )
        ends = []
        for half in (ticket, ticket.other_half()):
            shown = self._signer.sign(half)
            end = wrap(_connected(self.address))
            end.sendall(TICKET_LENGTH.pack(len(shown)) + shown)
            ends.append(end)
        for end in ends:
            if end.recv(1) != JOINED:
                raise RuntimeError("the relay has not joined them")
        return ends[0], ends[1]

    def join_within_tls(self) -> Ends:
        """Return the same, each within TLS to the relay."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return self.join(lambda s: context.wrap_socket(s))


@contextmanager
def our_relay() -> Iterator[OurRelay]:
    """Run a relay in a process of its own."""
    network, address = SigningKey.new(), f"127.0.0.1:{free_port()}"
    key = b64encode(network.public).decode()
    command = [sys.executable, "-m", "directory_service", "relay", "--address", address]
    with _running([*command, "--listen", address, "--network", key], address) as pid:
        yield OurRelay(pid, address, network)


_MAGIC = 0x9E79BC40
_JOIN_RELAY, _JOIN_SESSION, _RESPONSE, _CONNECT, _INVITATION = 2, 3, 4, 5, 6


class _Theirs:
    """strelaysrv, by its protocol: a joined device is invited when another asks for it."""

    def __init__(self, pid: int, address: str, folder: Path) -> None:
        self.pid = pid
        self._address = address
        self._folder = folder
        self._kept: list[socket.socket] = []

    def join(self) -> Ends:
        for end in self._kept:
            end.close()
        waiting, wanted = self._control("b")
        _say(waiting, _JOIN_RELAY, b"")
        _hear(waiting, _RESPONSE)
        asking, _ = self._control("a")
        _say(asking, _CONNECT, _opaque(wanted))
        invitations = [_hear(end, _INVITATION) for end in (asking, waiting)]
        ends = []
        for invitation in invitations:
            end = _connected(self._address)
            _, rest = _take_opaque(invitation)
            session, _ = _take_opaque(rest)
            _say(end, _JOIN_SESSION, _opaque(session))
            ends.append(end)
        for end in ends:
            if _hear(end, _RESPONSE)[:4] != bytes(4):
                return self.join()  # it sends away who comes before its session waits for somebody
        self._kept = [waiting, asking]  # it ends a pair whose device goes away
        return ends[0], ends[1]

    def _control(self, name: str) -> tuple[ssl.SSLSocket, bytes]:
        identity = make_tls_identity(NodeId(secrets.token_bytes(32)), time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["bep-relay"])
        file = self._folder / f"{name}.pem"
        file.write_bytes(_pem(identity))
        context.load_cert_chain(file)
        return context.wrap_socket(_connected(self._address)), fingerprint(identity.certificate_der)


@contextmanager
def _theirs(folder: Path) -> Iterator[_Theirs]:
    address = f"127.0.0.1:{free_port()}"
    options = ["-listen", address, "-pools", "", "-status-srv", "", "-keys", str(folder)]
    with _running(["strelaysrv", *options], address) as pid:
        yield _Theirs(pid, address, folder)


def _pem(identity: TlsIdentity) -> bytes:
    return identity.private_pem + identity.certificate_pem


def _opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def _take_opaque(data: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from(">I", data)
    return data[4 : 4 + size], data[4 + size + -size % 4 :]


def _say(end: socket.socket, kind: int, body: bytes) -> None:
    end.sendall(struct.pack(">III", _MAGIC, kind, len(body)) + body)


def _hear(end: socket.socket, kind: int) -> bytes:
    magic, found, size = struct.unpack(">III", _exactly(end, 12))
    if (magic, found) != (_MAGIC, kind):
        raise RuntimeError(f"strelaysrv says {found}, not {kind}")
    return _exactly(end, size)


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = end.recv(size - len(data))
        if not piece:
            raise RuntimeError("strelaysrv has closed the connection")
        data += piece
    return data


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@contextmanager
def _running(command: list[str], address: str) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(address), f"{command[0]} does not answer")
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        _connected(address).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
