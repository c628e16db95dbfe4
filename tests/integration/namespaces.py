"""Hospitals behind firewalls: network namespaces on one switch, each with its own rules."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.nodes import Server

_SUBNET = "10.213.77"


class Hosts:
    """Namespaces, by name, and their addresses."""

    def __init__(self, *names: str) -> None:
        self._prefix = f"emix{os.getpid()}"
        self._names = names
        self.address = {name: f"{_SUBNET}.{n}" for n, name in enumerate(names, 1)}

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
            _run("ip", "-n", own, "address", "add", f"{self.address[name]}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", own, "link", "set", device, "up")

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

    def _nft(self, name: str, command: str) -> None:
        _run("ip", "netns", "exec", self._namespace(name), "nft", command)


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Make hosts for the time of the block; skip where that is not possible."""
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing or os.getuid() != 0:
        needed = "root and the system packages iproute2 and nftables"
        assert not os.environ.get("CI"), f"CI needs {needed}"
        pytest.skip(f"needs {needed}")
    made = Hosts(*names)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
