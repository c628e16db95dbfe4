"""Somebody has taken over a parser process: what is within reach, as an ordinary user.

Each attempt is made three times: without confinement, where it must succeed, or it would show
nothing; as the node's parsers are confined; and without the filter of system calls, which alone
would stop all of them, so that the other layers are seen to hold, too.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.dicom.arena import SLAB_BYTES, Arena
from tests.integration.attacks.users import as_user, folder_of_user
from tests.support.nodes import CommandFailed, Node

pytestmark = pytest.mark.integration
INSIDE = Path(__file__).with_name("inside.py")
OPEN = "all"  # not confined at all


@dataclass
class Target:
    """A node of an ordinary user, and what else the attempts are made at."""

    node: Node
    tcp: socket.socket
    udp: socket.socket
    abstract: str

    @property
    def pid(self) -> int:
        assert self.node.process is not None
        return self.node.process.pid  # setpriv becomes the node

    def parsers(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def argument(self, name: str) -> list[str]:
        values = {
            "keyring": str(self.node.home / "keyring"),
            "home": str(self.node.home),
            "admin": str(self.node.home / "admin.sock"),
            "environ": f"/proc/{self.pid}/environ",
            "memory": f"/proc/{self.pid}/mem",
            "fds": f"/proc/{self.pid}/fd",
            "node": str(self.pid),
            "sibling": str(self.parsers()[0]),
            "tcp": str(self.tcp.getsockname()[1]),
            "udp": str(self.udp.getsockname()[1]),
            "abstract": self.abstract,
        }
        return [values[name]] if name else []


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with (
        folder_of_user() as folder,
        socket.socket() as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        for listener in (tcp, udp):
            listener.bind(("127.0.0.1", 0))
        tcp.listen()
        name = f"emix-test-{os.getpid()}"
        abstract.bind(b"\0" + name.encode())
        abstract.listen()
        node = Node(folder, "node", "Clinic")
        node.prefix = [*as_user()]
        node.make()
        node.start()
        yield Target(node, tcp, udp, name)
        node.stop()


def attempt(target: Target, without: str, what: str, argument: str) -> str:
    """Return what an attempt printed, or by which signal it ended."""
    arena = Arena(1)
    fd = os.dup(arena.fd)
    command = [*as_user(), sys.executable, "-I", str(INSIDE), without, str(fd), what]
    os.set_inheritable(fd, True)
    try:
        done = subprocess.run(
            [*command, *target.argument(argument)],
            capture_output=True,
            check=False,
            timeout=60,
            cwd="/",
            pass_fds=[fd],
        )
        assert os.pread(fd, SLAB_BYTES, 0) == bytes(SLAB_BYTES), "the arena was written"
    finally:
        os.close(fd)
        arena.close()
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}"
    return done.stdout.decode() + done.stderr.decode()


ATTEMPTS = [
    ("read_file", "keyring"),
    ("list_folder", "home"),
    ("write_file", "home"),
    ("open_admin", "admin"),
    ("connect", "tcp"),
    ("send_datagram", "udp"),
    ("connect_abstract", "abstract"),
    ("execute", ""),
    ("send_signal", "node"),
    ("send_signal", "sibling"),
]
# Stopped by what the node itself is, or by the filter alone.
BY_THE_FILTER = [
    ("fork", ""),
    ("take_limit", "sibling"),
    ("make_file", ""),
    ("make_pipe", ""),
    ("leave_again", ""),
    ("run_memory", ""),
]
AT_THE_NODE = [
    ("read_file", "environ"),
    ("read_file", "memory"),
    ("list_folder", "fds"),
    ("trace", "node"),
    ("read_memory", "node"),
    ("trace", "sibling"),
]
AT_THE_ARENA = [("write_arena", ""), ("cut_arena", "")]


@pytest.mark.parametrize(
    ("what", "argument"), ATTEMPTS + BY_THE_FILTER + AT_THE_NODE + AT_THE_ARENA
)
def test_attempt_from_inside_a_parser_fails(target: Target, what: str, argument: str) -> None:
    assert "SUCCEEDED" not in attempt(target, "nothing", what, argument)


@pytest.mark.parametrize(("what", "argument"), ATTEMPTS)
def test_attempt_succeeds_where_nothing_is_confined(
    target: Target, what: str, argument: str
) -> None:
    assert attempt(target, OPEN, what, argument).strip() == "SUCCEEDED"


# What only some layers know of, beside the filter: Landlock nothing of datagrams, nor of Unix
# sockets that have a path, and namespaces nothing of signals.
_UNKNOWN = {
    ("send_datagram", "namespaces"),
    ("open_admin", "namespaces"),
    ("send_signal", "files"),
}


@pytest.mark.parametrize(
    ("what", "argument", "without"),
    [
        (what, argument, f"syscalls,{other}")
        for what, argument in ATTEMPTS
        for other in ("namespaces", "files")
        if (what, other) not in _UNKNOWN
    ],
)
def test_other_layers_hold_where_some_are_denied(
    target: Target, what: str, argument: str, without: str
) -> None:
    assert "SUCCEEDED" not in attempt(target, without, what, argument)


@pytest.mark.parametrize(("what", "argument"), AT_THE_NODE)
def test_another_process_of_the_user_does_not_get_into_the_node(
    target: Target, what: str, argument: str
) -> None:
    assert "SUCCEEDED" not in attempt(target, OPEN, what, argument)


def test_parsers_of_a_running_node_are_confined(target: Target) -> None:
    """As the kernel shows them."""
    parsers = target.parsers()
    assert parsers
    for pid in parsers:
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, name
        for kind in ("user", "net", "mnt", "ipc", "uts"):
            own, nodes = (Path(f"/proc/{p}/ns/{kind}").readlink() for p in (pid, target.pid))
            assert own != nodes
        assert list(Path(f"/proc/{pid}/root").iterdir()) == []
        assert sorted(p.name for p in Path(f"/proc/{pid}/fd").iterdir()) == ["0", "1", "2"]
        assert re.search("rw-s .*emix-arena", Path(f"/proc/{pid}/maps").read_text()) is None


def test_doctor_says_what_holds(target: Target) -> None:
    found = {f["subject"]: f for f in target.node.json("doctor", statuses=(0, 1))["findings"]}
    for layer in ("privileges", "network", "mounts", "files", "syscalls"):
        assert found[f"parsers: {layer}"]["level"] == "ok"


# What a service manager's filter may deny, and the layers that are lost then.
DENIED = {
    "unshare": (272, {"network", "mounts"}),
    "mount": (165, {"mounts"}),
    "landlock_create_ruleset": (444, {"files"}),
    "seccomp": (317, {"syscalls"}),
    "capset": (126, {"privileges"}),
}
_RESTRICTED = """
import ctypes, os, struct, sys
from node.sandbox import seccomp
libc = ctypes.CDLL(None, use_errno=True)
code = seccomp.program(0xC000003E, None, [], [int(sys.argv[1])], [], 0x7FFF0000)
buffer = ctypes.create_string_buffer(code, len(code))
filled = seccomp._Program(len(code) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filled)) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are of this machine")
@pytest.mark.parametrize("call", DENIED)
def test_layer_that_is_denied_is_named_and_may_be_required(call: str) -> None:
    number, lost = DENIED[call]
    with folder_of_user() as folder:
        node = Node(folder, "node", "Clinic")
        node.prefix = [*as_user()]
        node.make()
        restricted = [sys.executable, "-I", "-c", _RESTRICTED, str(number)]
        node.prefix = [*node.prefix, *restricted]
        node.start()
        findings = node.json("doctor", statuses=(0, 1))["findings"]
        node.stop()
        denied = {
            f["subject"].removeprefix("parsers: "): f["text"]
            for f in findings
            if f["subject"].startswith("parsers") and f["level"] == "warning"
        }
        assert denied.keys() == lost
        assert all("EACCES" in text for text in denied.values())
        assert node.log.read_text().count("the kernel denies parsers a layer") == len(lost)
        node.set(require=f'["{min(lost)}"]')
        with pytest.raises(CommandFailed, match=rf"\[parsers\] require.*{min(lost)} \(EACCES\)"):
            node.start()


def test_stretching_a_passphrase_is_confined() -> None:
    """Seen from outside, while it works."""
    request = {"passphrase": "eA==", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "ops": 16}
    command = [*as_user(), sys.executable, "-I", "-m", "node.crypto.argon2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps({**request, "memory_bytes": 128 * 2**20}).encode())
        child.stdin.close()
        seen = set()
        while child.poll() is None:
            seen |= set(re.findall("Seccomp:\t2", Path(f"/proc/{child.pid}/status").read_text()))
        assert child.stdout is not None
        assert len(child.stdout.read()) == 32
    assert seen


def test_builder_of_the_dicomdir_reaches_its_folder_only() -> None:
    """As an ordinary user, and with the foreign code that it runs doing what it likes."""
    with folder_of_user() as folder:
        (folder / "own").mkdir()
        (folder / "own" / "file").write_bytes(b"own")
        (folder / "secret").write_bytes(b"secret")
        for path in (folder / "own", folder / "own" / "file", folder / "secret"):
            if os.geteuid() == 0:
                os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
        done = subprocess.run(
            [*as_user(), sys.executable, "-I", "-c", _IN_A_FOLDER, str(folder / "own")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )
    assert done.stdout.split() == ["{}", "own", "made", "no", "no", "no", "no", "no"], done.stderr


_IN_A_FOLDER = """
import ctypes, os, socket, sys
from pathlib import Path
from node.sandbox.confine import confine_to_folder
own = Path(sys.argv[1])
print(confine_to_folder(2 << 30, own))
print((own / "file").read_text())
(own / "new").write_text("new"); (own / "new").rename(own / "newer"); print("made")
def tried(what):
    try:
        what()
    except OSError:
        print("no")
    else:
        print("yes")
tried((own.parent / "secret").read_text)
tried(lambda: Path("/proc", str(os.getppid()), "environ").read_bytes())
tried(lambda: socket.socket())
tried(os.fork)
tried(lambda: os.kill(os.getppid(), 0))
"""
