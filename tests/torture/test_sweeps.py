"""Kills and flipped bits, until nothing new can be hit in the time that there is."""

import hashlib
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.test_kills import SECONDS_A_KILL, Rounds, packed, write_noisy_study
from tests.support.dicom_files import study_uid
from tests.support.loop import run
from tests.support.nodes import CommandFailed, Node, two_nodes, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.torture]
Report = Callable[[str], None]

RANDOM_KILLS = 300
FLIPS = 300
SYSTEM_CALLS = (
    "pwrite64",
    "write",
    "fdatasync,fsync",
    "rename,renameat,renameat2,link,linkat",
    "ftruncate",
    "unlink,unlinkat",
    "openat",
)
ARCHIVE_CALLS = ("write", "openat")
"""Between the node and the process that reads archives, beside what every import does."""

MOST_CALLS, MOST_ARCHIVE_CALLS = 80, 30
_TRACER_SECONDS = 10.0  # to let go of a node
_STUDY = 1


def test_random_kills_lose_nothing(tmp_path: Path, report: Report) -> None:
    with two_nodes(tmp_path) as (a, b):
        rounds = Rounds(a, b, tmp_path, RANDOM_KILLS)
        run(rounds.run, RANDOM_KILLS * SECONDS_A_KILL)
        rounds.check()
    report(f"{rounds.kills.total()} random kills lost nothing. {rounds}")


@pytest.mark.parametrize(
    ("call", "kind"),
    [*((call, "folder") for call in SYSTEM_CALLS), *((call, "gztar") for call in ARCHIVE_CALLS)],
)
def test_kill_at_each_system_call_of_an_import(
    call: str, kind: str, tmp_path: Path, report: Report
) -> None:
    """Kill the node at the n-th call of each thread, for growing n, until none is left to hit."""
    node = Node(tmp_path, "swept", "Swept Clinic")
    node.make()
    folder = tmp_path / "in"
    digests = set(write_noisy_study(folder, _STUDY).values())
    source = packed(folder, kind)
    hit = 0
    node.start()
    try:
        for n in range(1, (MOST_CALLS if kind == "folder" else MOST_ARCHIVE_CALLS) + 1):
            was_killed = _import_killed_at(node, source, call, n)
            hit += was_killed
            _import_again(node, source, tmp_path / "out", digests)
            if not was_killed:
                break
    finally:
        node.stop()
    what = "import" if kind == "folder" else f"import of a {kind}"
    report(f"{what} killed at {hit} different calls of {call}: each time whole after a repeat")
    assert hit > 0


@contextmanager
def _killer(node: Node, call: str, n: int) -> Iterator[None]:
    """Have strace kill the running node at the n-th such call that a thread of it makes."""
    assert node.process is not None
    inject = f"inject={call}:signal=SIGKILL:when={n}"
    command = ["strace", "-f", "-p", str(node.process.pid), "-e", f"trace={call}", "-e", inject]
    killer = subprocess.Popen(
        [*command, "-o", "/dev/null"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert killer.stderr is not None
        assert b"attached" in killer.stderr.readline()
        yield
    finally:
        killer.terminate()
        try:
            killer.communicate(timeout=_TRACER_SECONDS)
        except subprocess.TimeoutExpired:  # it waits for a thread that it is just killing
            killer.kill()
            killer.communicate()


def _import_killed_at(node: Node, source: Path, call: str, n: int) -> bool:
    """Import into a running node, which runs after it; return whether the kill came in between."""
    was_killed = False
    with _killer(node, call, n):
        try:
            node.run("import", str(source))
        except CommandFailed as failed:
            was_killed = True  # or only the process that reads archives
            if "does not answer" in str(failed):
                assert node.process is not None
                status = node.process.wait(60)
                assert status == -signal.SIGKILL, status
    if _ends_now(node):
        node.kill()
        node.start()
        was_killed = True
    return was_killed


def _ends_now(node: Node) -> bool:
    """Whether a node has ended, or does so now: what kills it may come a little later."""
    assert node.process is not None
    with suppress(subprocess.TimeoutExpired):
        node.process.wait(0.5)
        return True
    return False


def _import_again(node: Node, source: Path, out: Path, digests: set[str]) -> None:
    node.run("import", str(source))
    node.run("export", study_uid(_STUDY), str(out))
    found = {hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("IM*")}
    assert found == digests
    node.run("audit", "verify")
    node.run("delete", study_uid(_STUDY), "--yes")
    shutil.rmtree(out)


@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_kill_at_each_system_call_of_an_arrival(call: str, tmp_path: Path, report: Report) -> None:
    """Kill the receiver at the n-th call of each thread, until it outlives the transfer."""
    source = tmp_path / "in"
    digests = set(write_noisy_study(source, _STUDY).values())
    hit = 0
    with two_nodes(tmp_path) as (a, b):
        a.run("import", str(source))
        for n in range(1, MOST_CALLS + 1):
            was_killed = _arrival_killed_at(a, b, call, n)
            hit += was_killed
            wait_until(lambda: _states(a) == {"delivered"}, "never delivered", 120)
            out = tmp_path / f"out{n}"
            b.run("export", study_uid(_STUDY), str(out))
            found = {hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("IM*")}
            assert found == digests
            shutil.rmtree(out)
            b.run("delete", study_uid(_STUDY), "--yes")
            if not was_killed:
                break
        for node in (a, b):
            node.run("audit", "verify")
    report(f"receiver killed at {hit} different calls of {call}: each time whole by itself")
    assert hit > 0


def _arrival_killed_at(a: Node, b: Node, call: str, n: int) -> bool:
    """Send a study to a node that is killed at its n-th call; return whether it was."""
    with _killer(b, call, n):
        a.run("send", study_uid(_STUDY), b.display_name, "--again")
        wait_until(lambda: _has_ended(b) or _states(a) == {"delivered"}, "nothing happens", 120)
    was_killed = _ends_now(b)
    if was_killed:
        b.kill()
        b.start()
    return was_killed


def _has_ended(node: Node) -> bool:
    return node.process is not None and node.process.poll() is not None


def _states(node: Node) -> set[str]:
    return {t["state"] for t in node.json("transfers")["transfers"]}


def test_flipped_bits_are_found_and_never_come_out(tmp_path: Path, report: Report) -> None:
    source = tmp_path / "in"
    digests = set(write_noisy_study(source, _STUDY).values())
    chance, refused = random.Random(11), 0
    node = Node(tmp_path, "flipped", "Flipped Clinic")
    node.make()
    node.start()
    try:
        node.run("import", str(source))
        chunks = sorted(p for p in (node.home / "chunks").rglob("*") if p.is_file())
        for n in range(FLIPS):
            path = chance.choice(chunks)
            content = path.read_bytes()
            at = chance.randrange(len(content))
            changed = bytearray(content)
            changed[at] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            out = tmp_path / f"out{n}"
            try:
                node.run("export", study_uid(_STUDY), str(out))
            except CommandFailed:
                refused += 1
            found = {hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("IM*")}
            assert found <= digests
            shutil.rmtree(out, ignore_errors=True)
            path.write_bytes(content)
        wait_until(lambda: node.json("status") is not None, "the node has ended")
    finally:
        node.stop()
    report(f"{FLIPS} flipped bits of chunks: {refused} exports refused, no wrong byte came out")
    assert refused == FLIPS
