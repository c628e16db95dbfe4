"""The units that are shipped: how little they leave open, and that all of it works under them."""

import grp
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.attacks.users import reaching_this_code
from tests.integration.test_directory import metrics_at
from tests.support.confined import read_unit
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Directory, Node, free_port, pair
from tests.support.seaweed import seaweed

pytestmark = [pytest.mark.integration, pytest.mark.slow]
DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
MOST_EXPOSURE = 2.5
GROUP = "users"  # there is one on every Debian
SOMEBODY = 61107


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_leaves_little_open(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Overall exposure level for .*: ([\d.]+) ", shown)
    assert found is not None, shown
    assert float(found[1]) <= MOST_EXPOSURE, shown
    settings = read_unit(unit)
    for bound in (
        "MemoryMax",
        "MemoryHigh",
        "TasksMax",
        "LimitCORE",
    ):  # for which there is no score
        assert settings[bound], bound


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of an ordinary user, who could reach no other of a test."""
    made = Path("/tmp") / f"emix-unit-{secrets.token_hex(4)}"
    made.mkdir(mode=0o700)
    if os.getuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(made, user.pw_uid, user.pw_gid)
    yield made
    shutil.rmtree(made)


def under(unit: str, folder: Path) -> list[str]:
    """Return what runs a command as a unit would have it."""
    module = "tests.support.confined"
    return [sys.executable, "-m", module, str(DEPLOY / f"{unit}.service"), str(folder)]


def test_nodes_import_send_and_export_under_their_unit(folder: Path) -> None:
    nodes = [Node(folder, name, name.title()) for name in ("one", "two")]
    a, b = nodes
    for node in nodes:
        node.prefix = under("emix", folder)
        node.log = folder / f"{node.home.name}.log"
        node.make()
    study = folder / "study"
    write_study(study, study=61, instances=5)
    try:
        for node in nodes:
            node.start()
        pair(a, b)
        shown = a.run("doctor", statuses=(0, 1)).splitlines()
        layers = [line.split()[0] for line in shown if " parsers: " in line]
        assert layers == ["ok"] * 5, shown  # what the parsers take from themselves holds here, too
        a.run("import", str(study))
        a.run("send", study_uid(61), "Two", "--wait")
        b.run("export", study_uid(61), str(folder / "exported"))
        assert contents(folder / "exported") == contents(study)
    finally:
        assert [node.stop() for node in nodes] == [0, 0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_backup_is_written_by_its_caller_where_the_node_may_not(
    folder: Path, tmp_path: Path
) -> None:
    """The node runs under its unit as its own user; the admin's folder is the admin's alone."""
    node = Node(folder, "one", "One")
    node.prefix = under("emix", folder)
    node.make()
    write_study(folder / "study", study=62, instances=5)
    private, copy = tmp_path / "private", tmp_path / "private" / "copy"
    private.mkdir(mode=0o700)
    node.start()
    try:
        node.run("import", str(folder / "study"))
        node.prefix = []  # from here on, commands are the admin's
        made = node.json("backup", str(copy))
        assert (made["damaged"], made["unreadable"]) == ([], [])
        assert {p.stat().st_uid for p in (copy, *copy.rglob("*"))} == {0}
        with pytest.raises(CommandFailed, match="only the last folder"):
            node.run("backup", str(private / "unmounted" / "copy"))
        with pytest.raises(CommandFailed, match="only the last folder"):
            node.run("export", study_uid(62), str(private / "unmounted" / "out"))
        with pytest.raises(CommandFailed, match="nothing is mounted at"):
            node.run("backup", "--mounted", str(private / "today"))
        assert [p.name for p in private.iterdir()] == ["copy"]
    finally:
        assert node.stop() == 0
    verified = node.json("backup", "verify", str(copy))
    assert (verified["files"], verified["problems"]) == (made["files"], [])
    restored = Node(private, "restored", "One")
    restored.run("restore", str(copy), "--recovery-kit", str(node.kit))
    restored.start()
    try:
        assert "0 problems" in restored.run("store", "check", "--read-data")
    finally:
        assert restored.stop() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_node_with_its_chunks_in_a_bucket_works_under_its_unit(
    folder: Path, tmp_path: Path
) -> None:
    """The node's user has the credentials; the admin, who has none, makes the backups."""
    (tmp_path / "weed").mkdir()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    a, b = Node(folder, "one", "One"), Node(folder, "two", "Two")
    with seaweed(tmp_path / "weed") as server:
        credentials = folder / "credentials"
        shutil.copy(server.credentials, credentials)
        os.chown(credentials, folder.stat().st_uid, folder.stat().st_gid)
        place = ["--chunks", server.text("two"), "--chunks-credentials", str(credentials)]
        for node, options in ((a, []), (b, place)):
            node.prefix = under("emix", folder)
            node.log = folder / f"{node.home.name}.log"
            node.make(options=options)
        write_study(folder / "study", study=63, instances=5)
        try:
            for node in (a, b):
                node.start()
            pair(a, b)
            a.run("import", str(folder / "study"))
            a.run("send", study_uid(63), "Two", "--wait")
            b.kill()
            b.start()
            b.run("export", study_uid(63), str(folder / "exported"))
            assert contents(folder / "exported") == contents(folder / "study")
            b.run("store", "check", "--read-data")
            shown = b.run("doctor", statuses=(0, 1)).splitlines()
            assert not [line for line in shown if "warning" in line and "chunk" in line], shown
            b.prefix = []  # from here on, commands are the admin's
            first = b.json("backup", str(private / "first"))
            b.run("import", str(write_study(private / "more", study=64, instances=5)))
            later = b.json("backup", str(private / "later"), "--base", str(private / "first"))
            for made in (first, later):
                assert (made["damaged"], made["unreadable"]) == ([], [])
            assert {p.stat().st_uid for p in (private / "later").rglob("*")} == {0}
            credentials.chmod(0o644)
            with pytest.raises(CommandFailed, match=r"others can read .*: chmod 600") as caught:
                b.run("store", "check", "--read-data")
            assert "PROBLEM" not in str(caught.value)  # all of it, and no chunk of its own
        finally:
            b.prefix = under("emix", folder)
            assert [node.stop() for node in (a, b)] == [0, 0]
    # The bucket is gone with its server: what was backed up is all there is.
    restored = Node(private, "restored", "Two")
    restored.run("restore", str(private / "later"), "--recovery-kit", str(b.kit))
    config = (restored.home / "emix.toml").read_text()
    (restored.home / "emix.toml").write_text(re.sub(r"(?m)^chunks.*\n", "", config))
    restored.start()
    try:
        assert "0 problems" in restored.run("store", "check", "--read-data")
        restored.run("export", study_uid(64), str(private / "out"))
        assert contents(private / "out") == contents(private / "more")
    finally:
        assert restored.stop() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs users")
def test_people_of_a_group_use_the_node_under_its_unit(folder: Path) -> None:
    node = Node(folder, "one", "One")
    node.prefix = ["env", f"CONFINED_GROUP={GROUP}", *under("emix", folder)]
    node.make()
    node.set(group=f'"{GROUP}"')
    folder.chmod(0o711)
    node.start()
    try:
        shown = status_as(node, SOMEBODY, GROUP)
        assert shown.returncode == 0, shown.stderr
        assert "One" in shown.stdout
        denied = status_as(node, SOMEBODY, "")
        assert denied.returncode != 0
        found = {f["subject"]: f for f in node.json("doctor", statuses=(0, 1))["findings"]}
        assert (found["permissions"]["level"], found["admin group"]["level"]) == ("ok", "ok")
        assert GROUP in found["admin group"]["text"]
        (node.home / "keyring").chmod(0o640)
        found = {f["subject"]: f for f in node.json("doctor", statuses=(0, 1))["findings"]}
        assert "keyring" in found["permissions"]["text"]
    finally:
        assert node.stop() == 0


def status_as(node: Node, uid: int, group: str) -> subprocess.CompletedProcess[str]:
    """Ask for the node's status as somebody, who is in a group or in none."""
    groups = f"--groups={grp.getgrnam(group).gr_gid}" if group else "--clear-groups"
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", groups]
    command = [*reaching_this_code(), *become, *node.command("status")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def contents(folder: Path) -> list[bytes]:
    return sorted(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_directory_and_relay_serve_under_their_units(folder: Path) -> None:
    directory = Directory(folder)
    directory.prefix = under("emix-directory", folder)
    node = Node(folder, "node", "Great Falls Clinic")
    node.prefix = under("emix", folder)
    directory.make()
    node.make()
    try:
        directory.start()
        node.start()
        directory.enroll(node)
        assert node.json("find", "great")["facilities"][0]["online"]
    finally:
        assert (node.stop(), directory.stop()) == (0, 0)
    key = tomllib.loads((directory.home / "directory.toml").read_text())["network"]["key"]
    address, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    options = ("--address", address, "--listen", address, "--network", key, "--metrics", metrics)
    command = [*under("emix-relay", folder), *directory.command("relay", *options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as relay:
        try:
            assert relay.stderr is not None
            assert b"relay serves" in relay.stderr.readline()
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as one:
                one.sendall(b"\0\4noise")
                assert one.recv(100)
            assert metrics_at(metrics)["emix_directory_relay_refused"] == 1
        finally:
            relay.send_signal(signal.SIGTERM)
            assert relay.wait(30) == 0
