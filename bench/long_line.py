"""A long line between two hosts: packets through two TUN devices, with delay, rate, loss, a queue.

The TCP connections end at the hosts, so windows, congestion control and retransmission are those of
real ones; a proxy would end them itself. The kernel's own delay (netem) is not on every machine.
"""

import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_CLONE_NEWNET = 0x40000000
_SUBNET = "10.213.79"
_MOST_PACKET = 2048
_HEADERS = 52  # of IP and TCP with timestamps, of nearly every packet
_LEAST_QUEUE_SECONDS = 0.1
_NOTE_SECONDS = 0.1


class Direction:
    """One direction of a line.

    Attributes:
        carried: Bytes of whole packets that came out at the far end.
        payload: Bytes in them without the headers of IP and TCP.
        marked: When so many bytes had come out as `forget` said; 0 for not yet.
    """

    def __init__(self, source: int, sink: int, line: "LongLine") -> None:
        self.source, self._sink, self._line = source, sink, line
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._free = 0.0
        self._random = random.Random(1)
        self.forget()

    def forget(self, mark: int = 0) -> None:
        """Count anew, and mark when so many bytes have come out."""
        self.carried = self.payload = 0
        self._mark, self.marked = mark, 0.0
        self._noted: list[tuple[float, int]] = []

    def rate_under_way(self) -> float:
        """Return the bits a second after the first quarter and before the last twentieth."""
        noted = [n for n in self._noted if 0.25 * self.carried <= n[1] <= 0.95 * self.carried]
        (began, first), (ended, last) = noted[0], noted[-1]
        return (last - first) * 8 / (ended - began)

    def take(self, now: float) -> None:
        """Take in what has come; what the queue does not hold is lost, as at a router."""
        line = self._line
        while True:
            try:
                packet = os.read(self.source, _MOST_PACKET)
            except BlockingIOError:
                return
            if line.loss and self._random.random() < line.loss:
                continue
            free = max(self._free, now) + len(packet) * 8 / line.rate
            if free - now > max(_LEAST_QUEUE_SECONDS, line.round_trip):
                continue
            self._free = free
            self._waiting.append((free + line.round_trip / 2, packet))

    def give(self, now: float) -> float:
        """Give out what is due; return when the next is, or a second from now."""
        if not self._noted or now - self._noted[-1][0] > _NOTE_SECONDS:
            self._noted.append((now, self.carried))
        while self._waiting and self._waiting[0][0] <= now:
            _, packet = self._waiting.popleft()
            self.carried += len(packet)
            self.payload += max(0, len(packet) - _HEADERS)
            if self._mark and not self.marked and self.carried >= self._mark:
                self.marked = now
            os.write(self._sink, packet)
        return self._waiting[0][0] if self._waiting else now + 1


class LongLine:
    """A line between two hosts, which are network namespaces.

    Its values may be changed while it is in use.

    Attributes:
        hosts: The addresses of both.
        there: The direction from the first to the second.
        back: The other one.
        rate: Bits a second, each direction for itself.
        round_trip: Seconds.
        loss: The share of packets that are lost, each direction for itself.
    """

    hosts = (f"{_SUBNET}.1", f"{_SUBNET}.2")

    def __init__(self) -> None:
        self.rate, self.round_trip, self.loss = 1e9, 0.0, 0.0
        self._names = [f"emix{os.getpid()}-{side}" for side in ("near", "far")]

    def prefix(self, side: int) -> list[str]:
        """Return what runs a command on the first (0) or second host (1)."""
        return ["ip", "netns", "exec", self._names[side]]

    @contextmanager
    def laid(self) -> Iterator[None]:
        """Make the hosts and carry between them for the time of the block."""
        try:
            near, far = self._end(0), self._end(1)
            self.there, self.back = Direction(near, far, self), Direction(far, near, self)
            stop = threading.Event()
            carrying = threading.Thread(target=self._carry, args=(stop,), daemon=True)
            carrying.start()
            try:
                yield
            finally:
                stop.set()
                carrying.join()
        finally:
            for name in self._names:
                subprocess.run(["ip", "netns", "delete", name], check=False)

    def congestion(self, name: str) -> None:
        """Have new connections of both hosts use one kind of congestion control."""
        for side in (0, 1):
            route = (f"{self.hosts[1 - side]}/32", "dev", "line", "congctl", name)
            _run("ip", "-n", self._names[side], "route", "replace", *route)

    def _end(self, side: int) -> int:
        name = self._names[side]
        _run("ip", "netns", "add", name)
        device = _in_namespace(name)
        within = ("ip", "-n", name)
        _run(*within, "address", "add", f"{self.hosts[side]}/32", "dev", "line")
        for each in ("lo", "line"):
            _run(*within, "link", "set", each, "up")
        _run(*within, "route", "add", f"{self.hosts[1 - side]}/32", "dev", "line")
        return device

    def _carry(self, stop: threading.Event) -> None:
        both = (self.there, self.back)
        sources = [direction.source for direction in both]
        while not stop.is_set():
            now = time.perf_counter()
            due = min(direction.give(now) for direction in both)
            select.select(sources, (), (), max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            for direction in both:
                direction.take(now)


def _in_namespace(name: str) -> int:
    """Return a new TUN device of a namespace; this thread is in it for that long."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        with Path(f"/run/netns/{name}").open("rb") as there:
            if libc.setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot enter a network namespace")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"line", _IFF_TUN | _IFF_NO_PI))
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)
    return device


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
