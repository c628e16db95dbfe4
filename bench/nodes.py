"""Real node processes for the demo, the benches and the integration tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 30


class CommandFailed(Exception):
    """A command ended with an unexpected status; the message has what it printed."""


class Node:
    """One facility's node: its home, and its process while it runs."""

    def __init__(self, folder: Path, name: str, display_name: str) -> None:
        self.home = folder / name
        self.kit = folder / f"{name}.recovery-kit"
        self.log = folder / f"{name}.log"
        self.display_name = display_name
        self.process: subprocess.Popen[bytes] | None = None
        self.addresses: dict[str, str] = {}

    def command(self, *arguments: str) -> list[str]:
        """Return an `emix` command line for this node."""
        return [sys.executable, "-m", "node", "--home", str(self.home), *arguments]

    def run(self, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
        """Run an `emix` command and return what it printed.

        Raises:
            CommandFailed: its exit status is not one of those expected.
        """
        done = subprocess.run(self.command(*arguments), capture_output=True, check=False)
        if done.returncode not in statuses:
            raise CommandFailed(
                f"emix {' '.join(arguments)} ended with {done.returncode}:"
                f" {done.stdout.decode()}{done.stderr.decode()}"
            )
        return done.stdout.decode()

    def json(self, *arguments: str, statuses: Sequence[int] = (0,)) -> Any:
        """Run an `emix` command with --json and return the value."""
        return json.loads(self.run(*arguments, "--json", statuses=statuses))

    def make(self) -> None:
        """Make the home, on free ports of the loopback."""
        self.run(
            "init",
            "--name",
            self.display_name,
            "--recovery-kit",
            str(self.kit),
            "--host-key",
            "--peer-listen",
            f"127.0.0.1:{free_port()}",
            "--introduction-listen",
            f"127.0.0.1:{free_port()}",
        )

    def start(self) -> None:
        """Start the process and wait until it serves.

        Raises:
            CommandFailed: it ended, or did not serve in time.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            self.command("serve"), stderr=subprocess.PIPE, env=environment, cwd="/"
        )
        self.addresses = {}
        ready = threading.Event()
        threading.Thread(target=self._keep_log, args=(self.process, ready), daemon=True).start()
        if not ready.wait(START_SECONDS) or not self.addresses:
            self.kill()
            raise CommandFailed(f"the node did not start: {self.log.read_text()}")

    def _keep_log(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        if process.stderr is None:
            return
        with self.log.open("ab") as out:
            for line in process.stderr:
                out.write(line)
                out.flush()
                if b'"node serves"' in line:
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


def free_port() -> int:
    """Return a port that nobody uses now; a node keeps its port over restarts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
