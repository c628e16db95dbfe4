"""Cancelled clients, transfers and imports leave no file handle, task or half-made package."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import Node, wait_until

pytestmark = pytest.mark.integration
ROUNDS = 8


def handles(node: Node) -> int:
    """Return how many file handles the node has open, its libraries included.

    Without those of its database, which has a reader more where several read at once, up to four.
    """
    assert node.process is not None
    found = 0
    for handle in Path(f"/proc/{node.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += "/metadata.db" not in str(handle.readlink())
    return found


def threads(node: Node) -> int:
    assert node.process is not None
    return len(os.listdir(f"/proc/{node.process.pid}/task"))  # noqa: PTH208


def client(node: Node, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        node.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_cancelled_work_leaves_nothing_behind(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = nodes
    folder = write_study(tmp_path / "s", 1, 40, size=512)
    a.run("import", str(folder))
    a.run("send", study_uid(1), b.display_name, "--wait")  # everything has been used once
    _round(a, b, tmp_path, 100)
    before = {node: (handles(node), threads(node)) for node in nodes}
    chunks = _chunks(b)
    for n in range(ROUNDS):
        _round(a, b, tmp_path, n)
    for node in nodes:
        most_handles, most_threads = before[node]
        wait_until(
            lambda node=node, most=most_handles: handles(node) <= most,
            f"file handles are left: {handles(node)} instead of {most_handles}",
        )
        # Threads of pools come and go; what leaks grows with the rounds.
        wait_until(
            lambda node=node, most=most_threads: threads(node) < most + ROUNDS,
            f"threads are left: {threads(node)} instead of {most_threads}",
        )
    wait_until(lambda: _chunks(b) == chunks, "chunks are left at the receiver")
    for node in nodes:
        assert not node.json("transfers", "--open")["transfers"]
        node.run("store", "check", "--read-data")


def _round(a: Node, b: Node, tmp_path: Path, n: int) -> None:
    """Kill a watching client, cancel an import, and cancel a transfer on its way."""
    watch = client(a, "transfers", "--watch", "--json")
    assert watch.stdout is not None
    watch.stdout.readline()
    watch.kill()
    watch.communicate()
    folder = write_study(tmp_path / f"c{n}", 1000 + n, 60, size=512)
    importing = client(a, "import", str(folder))
    importing.send_signal(signal.SIGINT) if n % 2 else importing.kill()
    importing.communicate(timeout=60)
    a.run("import", str(folder))
    sent = a.json("send", study_uid(1000 + n), b.display_name)["transfers"][0]
    a.run("cancel", sent["transfer_id"], statuses=(0, 5))
    wait_until(lambda: not a.json("transfers", "--open")["transfers"], "it does not end")
    wait_until(lambda: not b.json("transfers", "--open")["transfers"], "it does not end there")
    for node in (a, b):
        node.run("delete", study_uid(1000 + n), "--yes", statuses=(0, 4))


def _chunks(node: Node) -> int:
    return sum(1 for p in (node.home / "chunks").rglob("*") if p.is_file())
