"""Real node processes for the demo, the benches and the integration tests."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from emix.admin.v1 import admin_pb2 as pb
from emix.directory.v1 import admin_pb2 as dpb
from google.protobuf.message import Message

from node.errors import NodeError
from node.rpc.blocking import open_blocking_channel
from node.rpc.bounds import OWN
from node.rpc.methods import Method, methods
from node.terminal.output import as_dict

START_SECONDS = 30
_ANSWER_SECONDS = 60.0
_ADMIN = "DirectoryAdminService"
# Below those that the kernel hands out (ip_local_port_range), each once.
_PORTS = iter(random.sample(range(15_000, 32_000), 17_000))


def _of(module: Any, service: str, name: str) -> Method[Any, Any]:
    found = methods(module.DESCRIPTOR.services_by_name[service], answer=OWN)
    return next(method for method in found if method.name == name)


class CommandFailed(Exception):
    """A command ended with an unexpected status; the message has what it printed."""


class Server:
    """A server of ours: its home, and its process while it runs."""

    module: str
    ready_event: str
    python = sys.executable
    lists: ClassVar[Mapping[str, tuple[Method[Any, Any], Message]]]
    """What commands with --json ask for, and print as it comes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.home = folder / name
        self.log = folder / f"{name}.log"
        self.prefix: list[str] = []  # what runs the process, where that is not plain
        self.process: subprocess.Popen[bytes] | None = None
        self.addresses: dict[str, str] = {}

    def command(self, *arguments: str) -> list[str]:
        """Return a command line for this server."""
        return [self.python, "-m", self.module, "--home", str(self.home), *map(str, arguments)]

    def run(self, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
        """Run a command and return what it printed.

        Raises:
            CommandFailed: its exit status is not one of those expected.
        """
        done = subprocess.run(
            [*self.prefix, *self.command(*arguments)], capture_output=True, check=False
        )
        if done.returncode not in statuses:
            raise CommandFailed(
                f"{self.module} {' '.join(map(str, arguments))} ended with {done.returncode}:"
                f" {done.stdout.decode()}{done.stderr.decode()}"
            )
        return done.stdout.decode()

    def json(self, *arguments: str, statuses: Sequence[int] = (0,)) -> Any:
        """Run a command with --json and return the value.

        What is asked for again and again, until something is so, is asked for without a command:
        starting one takes more of a core than what it waits for.
        """
        if len(arguments) == 1 and arguments[0] in self.lists and self.process is not None:
            method, request = self.lists[arguments[0]]
            socket = (self.home / "admin.sock").resolve()
            address = f"unix:{socket}"
            with (
                suppress(NodeError),
                open_blocking_channel(address, largest_answer=OWN.size) as channel,
            ):
                return as_dict(channel.whole(method, request, timeout=_ANSWER_SECONDS))
        return json.loads(self.run(*arguments, "--json", statuses=statuses))

    def start(self) -> None:
        """Start the process and wait until it serves.

        Raises:
            CommandFailed: it ended, or did not serve in time.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*self.prefix, *self.command("serve")], stderr=subprocess.PIPE, env=environment, cwd="/"
        )
        self.addresses = {}
        ready = threading.Event()
        threading.Thread(target=self._keep_log, args=(self.process, ready), daemon=True).start()
        if not ready.wait(START_SECONDS) or not self.addresses:
            self.kill()
            raise CommandFailed(f"{self.module} did not start: {self.log.read_text()}")

    def _keep_log(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        if process.stderr is None:
            return
        with self.log.open("ab") as out:
            for line in process.stderr:
                out.write(line)
                out.flush()
                if f'"{self.ready_event}"'.encode() in line:
                    self.addresses = json.loads(line)
                    ready.set()
        ready.set()

    def stop(self) -> int:
        """Stop the process as an admin would; return its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self._close()
        return status

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._close()

    def _close(self) -> None:
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()
        self.process = None


class Node(Server):
    """One facility's node."""

    module = "node"
    ready_event = "node serves"
    lists: ClassVar = {
        "status": (_of(pb, "NodeService", "GetStatus"), pb.GetStatusRequest()),
        "peers": (_of(pb, "PeerService", "ListPeers"), pb.ListPeersRequest()),
        "networks": (_of(pb, "NetworkService", "ListNetworks"), pb.ListNetworksRequest()),
        "transfers": (_of(pb, "TransferService", "ListTransfers"), pb.ListTransfersRequest()),
    }

    def __init__(self, folder: Path, name: str, display_name: str) -> None:
        super().__init__(folder, name)
        self.kit = folder / f"{name}.recovery-kit"
        self.display_name = display_name

    def make(self, host: str = "127.0.0.1", options: Sequence[str] = ()) -> None:
        """Make the home, on free ports of an address, with more options of `init`."""
        self.run(
            "init",
            "--name",
            self.display_name,
            "--recovery-kit",
            str(self.kit),
            "--host-key",
            "--peer-listen",
            f"{host}:{free_port()}",
            "--introduction-listen",
            f"{host}:{free_port()}",
            *options,
        )
        self.set(ballast_mib="1")  # of very many homes, which tests leave behind

    def set(self, **settings: str) -> None:
        """Set values in the configuration, as TOML writes them; its comments show where."""
        path = self.home / "emix.toml"
        text = path.read_text()
        for key, value in settings.items():
            text, found = re.subn(rf"(?m)^# {key} = .*$", f"{key} = {value}", text)
            if found != 1:
                raise ValueError(f"no such setting: {key}")
        path.write_text(text)


class Directory(Server):
    """A network's directory, and its operator's key."""

    module = "directory_service"
    ready_event = "directory serves"
    lists: ClassVar = {
        "status": (_of(dpb, _ADMIN, "GetStatus"), dpb.GetStatusRequest()),
        "facilities": (_of(dpb, _ADMIN, "ListFacilities"), dpb.ListFacilitiesRequest()),
    }

    def __init__(self, folder: Path, name: str = "directory", *, host: str = "127.0.0.1") -> None:
        super().__init__(folder, name)
        self.key = folder / f"{name}.network-key"
        self.address = f"{host}:{free_port()}"
        self.relay = f"{host}:{free_port()}"

    def make(self, *options: str) -> None:
        """Make the home, with a relay in it, if it has one; and the key, if it is not there."""
        if self.relay:
            options = (*options, "--relay-listen", self.relay, "--relay", self.relay)
        key = ("--name", "Montana Imaging", "--network-key", str(self.key))
        if "--listen" not in options:
            options = (*options, "--listen", self.address)
        self.run("init", *key, "--endpoint", self.address, *options)

    def invite(self, name: str) -> str:
        """Return a join letter."""
        return self.run("token", "create", name, "--network-key", str(self.key)).strip()

    def sign_list(self) -> None:
        """Confirm who has joined."""
        self.run("list", "sign", "--network-key", str(self.key))

    def enroll(self, *nodes: Node) -> None:
        """Have nodes join, confirm them, and wait until they know it."""
        for node in nodes:
            node.run("join", self.invite(node.display_name))
        self.sign_list()
        for node in nodes:
            wait_until(
                lambda node=node: all(
                    (n["standing"], n["state"]) == ("member", "connected")
                    for n in node.json("networks")["networks"]
                ),
                f"{node.display_name} is no member",
            )


def free_port() -> int:
    """Return a port that nobody uses now; a node keeps its port over restarts.

    Not one of those that the kernel hands out: while a node is stopped, an outgoing connection
    of some other test could get its port.
    """
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CommandFailed("no port is free")


def pair(a: Node, b: Node) -> None:
    """Pair two nodes through files, and wait until both are connected."""
    for node, other in ((a, b), (b, a)):
        file = other.home.with_suffix(".emix")
        other.run("id", "--export", str(file), "--no-qr")
        node.run("peers", "pair", str(file))
    for node in (a, b):
        wait_until(
            lambda node=node: all(p["state"] == "connected" for p in node.json("peers")["peers"]),
            f"{node.display_name} is not connected",
        )


def wait_until(is_so: Any, otherwise: str, seconds: float = 30) -> None:
    """Ask again and again until something is so.

    Raises:
        CommandFailed: it never was, in the time given.
    """
    pause = threading.Event()
    for _ in range(int(seconds / 0.1)):
        if is_so():
            return
        pause.wait(0.1)
    raise CommandFailed(otherwise)


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Node, Node]]:
    """Run two paired nodes of two facilities for the time of the block."""
    a = Node(folder, "great-falls", "Great Falls Clinic")
    b = Node(folder, "billings", "Billings Hospital")
    try:
        for node in (a, b):
            node.make()
            node.start()
        pair(a, b)
        yield a, b
    finally:
        for node in (a, b):
            node.stop()
