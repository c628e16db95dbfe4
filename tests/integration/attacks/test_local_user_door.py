"""Somebody who may open the admin socket says to be another."""

import getpass
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.rpc.blocking import open_blocking_channel
from node.rpc.bounds import OWN
from node.rpc.methods import methods
from node.store import audit_rows
from tests.integration.attacks import audit_log
from tests.support.nodes import Node, wait_until

pytestmark = pytest.mark.integration
OTHER = 61_234
"""A user that the machine has no name for."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, "node", "Open Hospital")
    made.make()
    made.start()
    yield made
    assert made.stop() == 0


def last_operator(node: Node) -> str:
    entries: list[dict[str, Any]] = node.json("audit", "--limit", "1")["entries"]
    return str(entries[0]["operator"])


def back_up(node: Node, folder: Path, operator: str) -> None:
    """Do something that is recorded, as a client that says who it is."""
    method = next(
        m
        for m in methods(pb.DESCRIPTOR.services_by_name["NodeService"], answer=OWN)
        if m.name == "Backup"
    )
    address = f"unix:{(node.home / 'admin.sock').resolve()}"
    says = (("emix-operator", operator),)
    with open_blocking_channel(address, says, largest_answer=OWN.size) as channel:
        request = pb.BackupRequest(destination=str(folder))
        with channel.stream(method, request, timeout=60) as events:
            assert [event.WhichOneof("event") for event in events][-1] == "end"


def test_client_that_calls_itself_another_stands_under_its_own_user(
    node: Node, tmp_path: Path
) -> None:
    back_up(node, tmp_path / "backup", "director")
    operator = last_operator(node)
    assert operator.startswith(f"uid {os.getuid()} ({getpass.getuser()})")
    assert operator.endswith("says: director")


def test_what_a_client_says_cannot_look_like_what_the_door_knows(
    node: Node, tmp_path: Path
) -> None:
    back_up(node, tmp_path / "backup", "x), uid 0 (root)")
    operator = last_operator(node)
    assert operator == f"uid {os.getuid()} ({getpass.getuser()}), says: x), uid 0 (root)"


_ACKNOWLEDGE = """
import sys
from emix.admin.v1 import admin_pb2 as pb
from node.rpc.blocking import open_blocking_channel
from node.rpc.methods import methods
[method] = [m for m in methods(pb.DESCRIPTOR.services_by_name["AuditService"])
            if m.name == "AcknowledgeAlarms"]
with open_blocking_channel(sys.argv[1], (("emix-operator", "root"),)) as channel:
    channel.unary(method, pb.AcknowledgeAlarmsRequest(through_sequence=2**40), timeout=60)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_two_users_at_one_socket_are_told_apart(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Open Hospital")
    node.make()
    with audit_log.opened(node) as database:  # something to acknowledge, for each
        database.write_sync(lambda db: audit_rows.append(db, "alarm.test", {"n": 1}))
    node.start()
    try:
        home = open_to_all(node)
        done = as_other("unix:", home / "admin.sock")
        assert done.returncode == 0, done.stderr
        assert last_operator(node) == f"uid {OTHER} (?), says: root"
        # What lies behind the door, that user does not reach.
        inside = as_other("unix:", home / "admin.d" / "s")
        assert inside.returncode != 0
        assert "Permission denied" in inside.stderr or "does not answer" in inside.stderr
    finally:
        node.stop()


def open_to_all(node: Node) -> Path:
    """Let every user of the machine open the admin socket."""
    home = node.home.resolve()
    for folder in (home, *home.parents):
        if folder != Path("/") and folder != Path("/tmp"):
            folder.chmod(0o755)
    (home / "admin.sock").chmod(0o666)
    return home


_WATCH = """
import sys, threading
import grpc
from emix.admin.v1 import admin_pb2 as pb
refused = threading.Semaphore(0)
with grpc.insecure_channel(sys.argv[1]) as channel:
    watch = channel.unary_stream("/emix.admin.v1.TransferService/WatchTransfers")
    calls = [watch(pb.WatchTransfersRequest().SerializeToString()) for _ in range(100)]
    for call in calls:
        call.add_callback(refused.release)
    for _ in range(36):  # the others have been let in then
        refused.acquire(timeout=60)
    print(sum(call.is_active() for call in calls), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_user_who_takes_all_calls_keeps_nobody_else_out(node: Node) -> None:
    home = open_to_all(node)
    with subprocess.Popen(
        [*AS_OTHER, sys.executable, "-c", _WATCH, f"unix:{home / 'admin.sock'}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "64\n"
        assert "Open Hospital" in node.run("status")
        done = as_other("unix:", home / "admin.sock")
        assert "too many calls at once" in done.stderr
        other.stdin.close()
    wait_until(
        lambda: "too many" not in as_other("unix:", home / "admin.sock").stderr,
        "the places of calls that have ended do not come back",
    )


AS_OTHER = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups")


def as_other(scheme: str, path: Path) -> "subprocess.CompletedProcess[str]":
    """Call through a socket as another user, who says to be root."""
    return call(scheme, path, *AS_OTHER)


def call(scheme: str, path: Path, *prefix: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*prefix, sys.executable, "-c", _ACKNOWLEDGE, f"{scheme}{path}"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_server_behind_the_door_takes_no_call_that_has_not_come_through_it(node: Node) -> None:
    done = call("unix:", (node.home / "admin.d" / "s").resolve())
    assert "from the admin socket only" in done.stderr


def test_user_who_takes_all_places_keeps_nobody_else_out(node: Node) -> None:
    """Nor does it end the node: it has a number of places, and takes no more."""
    from node.rpc.door import MAX_CONNECTIONS

    path = str((node.home / "admin.sock").resolve())
    with ExitStack() as stack:
        for _ in range(4 * MAX_CONNECTIONS):
            taken = stack.enter_context(socket.socket(socket.AF_UNIX))
            taken.connect(path)
        assert node.process is not None
        handles = len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))
        assert handles < 7 * MAX_CONNECTIONS // 2 + 200
    wait_until(lambda: node.run("peers", statuses=(0, 20)) != "", "it does not answer again")
