"""A relay that somebody broke into: it records everything, and does to it what it is told."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.support.nodes import free_port

Alter = Callable[[bytes, int], bytes]
"""Takes the next bytes and how many went before in that direction; returns what to pass on."""


class HostileRelay:
    """Stands where nodes expect the relay, and passes what comes on to the right one."""

    def __init__(self, behind: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.recorded = bytearray()
        self.alter: Alter = lambda data, _: data
        self.elsewhere: str | None = None  # where to send connections after all
        self.altered = 0
        self._behind = behind
        host, _, port = self.address.rpartition(":")
        self._listener = socket.create_server((host, int(port)))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and end all connections."""
        self._listener.close()
        for connection in self._open:
            connection.close()

    def cut(self) -> None:
        """End all connections that are open now."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, ours: socket.socket) -> None:
        if self.elsewhere is not None:
            size = int.from_bytes(ours.recv(2), "big")
            ours.recv(size, socket.MSG_WAITALL)
            ours.sendall(b"\0")  # "you are joined"
        host, _, port = (self.elsewhere or self._behind).rpartition(":")
        try:
            theirs = socket.create_connection((host, int(port)))
        except OSError:
            ours.close()
            return
        self._open += [ours, theirs]
        for source, sink in ((ours, theirs), (theirs, ours)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        count = 0
        with suppress(OSError):
            while data := source.recv(65536):
                self.recorded += data
                passed_on = self.alter(data, count)
                self.altered += passed_on != data
                sink.sendall(passed_on)
                count += len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
