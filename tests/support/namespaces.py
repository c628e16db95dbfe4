"""Hospitals behind firewalls: network namespaces on one switch, each with its own rules.

Each is a network of its own, as hospitals are, unless they are asked to share one.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.nodes import Server

_SUBNET = "10.213.77"


class Hosts:
    """Namespaces, by name, and their addresses."""

    def __init__(self, *names: str, are_neighbours: bool) -> None:
        self._prefix = f"emix{os.getpid()}"
        self._names = names
        self._are_neighbours = are_neighbours
        self.address = {name: f"{_SUBNET}.{n}" for n, name in enumerate(names, 1)}
        self.before: dict[str, str] = {}

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def make(self) -> None:
        """Make them all."""
        switch = self._namespace("switch")
        _run("ip", "netns", "add", switch)
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for n, name in enumerate(self._names):
            own = self._namespace(name)
            _run("ip", "netns", "add", own)
            ends = ("type", "veth", "peer", "name", f"p{n}", "netns", switch)
            _run("ip", "-n", own, "link", "add", "eth0", *ends)
            _run("ip", "-n", switch, "link", "set", f"p{n}", "master", "br0", "up")
            prefix = 24 if self._are_neighbours else 32
            at = f"{self.address[name]}/{prefix}"
            _run("ip", "-n", own, "address", "add", at, "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", own, "link", "set", device, "up")
            _run("ip", "-n", own, "route", "replace", f"{_SUBNET}.0/24", "dev", "eth0")

    def remove(self) -> None:
        """Remove them all."""
        for name in (*self._names, "switch"):
            subprocess.run(["ip", "netns", "delete", self._namespace(name)], check=False)

    def put(self, server: Server, name: str) -> None:
        """Have a server's process run on a host from its next start on."""
        server.prefix = ["ip", "netns", "exec", self._namespace(name)]

    def firewall(self, name: str) -> None:
        """Drop everything inbound that does not answer what went out."""
        self._nft(name, "add table inet filter")
        self._nft(
            name,
            "add chain inet filter arriving { type filter hook input priority 0 ; policy drop ; }",
        )
        self._nft(name, "add rule inet filter arriving iif lo accept")
        self._nft(name, "add rule inet filter arriving ct state established,related accept")

    def open(self, name: str) -> None:
        """Let everything in."""
        self._nft(name, "flush ruleset")

    def only_out_to(self, name: str, port: int) -> None:
        """Drop what goes out to any other TCP port, too."""
        self._nft(
            name,
            "add chain inet filter leaving { type filter hook output priority 0 ; policy drop ; }",
        )
        self._nft(name, "add rule inet filter leaving oif lo accept")
        self._nft(name, f"add rule inet filter leaving tcp dport {port} accept")

    def slow(self, name: str, rate: str) -> None:
        """Let only so much out, such as `8mbit`."""
        bucket = ("tbf", "rate", rate, "burst", "64kb", "latency", "200ms")
        own = self._namespace(name)
        _run("ip", "netns", "exec", own, "tc", "qdisc", "add", "dev", "eth0", "root", *bucket)

    @contextmanager
    def running(self, name: str, *command: str | Path) -> Iterator[None]:
        """Run a program on a host for the time of the block."""
        prefix = ("ip", "netns", "exec", self._namespace(name))
        process = subprocess.Popen([*prefix, *command], stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

    def move(self, name: str, number: int) -> None:
        """Give a host another address of the same network."""
        own, before = self._namespace(name), self.address[name]
        self.before[name], self.address[name] = before, f"{_SUBNET}.{number}"
        for command, at in (("delete", before), ("add", self.address[name])):
            _run("ip", "-n", own, "address", command, f"{at}/24", "dev", "eth0")

    def _nft(self, name: str, command: str) -> None:
        _run("ip", "netns", "exec", self._namespace(name), "nft", command)


def needs_root(*tools: str) -> None:
    """Skip where namespaces cannot be made, unless in CI."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or os.getuid() != 0:
        needed = "root and the system packages iproute2, nftables and util-linux"
        assert not os.environ.get("CI"), f"CI needs {needed}"
        pytest.skip(f"needs {needed}")


@contextmanager
def hosts(*names: str, are_neighbours: bool = False) -> Iterator[Hosts]:
    """Make hosts for the time of the block; skip where that is not possible."""
    needs_root("ip", "nft")
    made = Hosts(*names, are_neighbours=are_neighbours)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
