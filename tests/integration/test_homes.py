"""Homes and users as they are found: odd names, no home directory, terminals, systemd."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.attacks.users import as_user, folder_of_user
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Directory, Node, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ODD = ["100% %41?x#y", "großer Ordner; a&b='c'", "ein\\name:1@b"]


@pytest.mark.parametrize("name", ODD)
def test_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    node = Node(tmp_path, name, "Odd Clinic")
    node.make()
    node.start()
    try:
        assert node.run("status")
        node.run("import", str(write_study(tmp_path / f"study {name}", 71, 2)))
        node.run("export", study_uid(71), str(tmp_path / f"out {name}"))
        node.run("backup", str(tmp_path / f"copy {name}"))
        assert "0 problems" in node.run("backup", "verify", str(tmp_path / f"copy {name}"))
    finally:
        assert node.stop() == 0


def test_home_of_a_directory_may_too(tmp_path: Path) -> None:
    directory = Directory(tmp_path, ODD[0])
    directory.make()
    directory.start()
    try:
        assert directory.run("status")
    finally:
        assert directory.stop() == 0


@pytest.fixture
def nobodys() -> Iterator[Path]:
    with folder_of_user() as folder:
        yield folder


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user whom the machine does not know, with nothing in the environment."""
    command = [*as_user(), "env", "-i", *(f"{k}={v}" for k, v in environment.items())]
    return subprocess.run(
        [*command, sys.executable, "-m", *arguments], capture_output=True, text=True, check=False
    )


def test_user_without_a_home_directory_or_name_can_run_a_node(nobodys: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be a user without a name")
    for module, variable in (("node", "EMIX_HOME"), ("directory_service", "EMIX_DIRECTORY_HOME")):
        done = run(module, "status")
        assert done.returncode == 2, done.stderr
        assert f"name the node's home with --home DIR or {variable}" in done.stderr
    home = str(nobodys / "home")
    kit = ("--recovery-kit", str(nobodys / "kit"), "--host-key")
    listen = ("--peer-listen", "127.0.0.1:0", "--introduction-listen", "127.0.0.1:0")
    made = run("node", "init", "--name", "Nameless", *kit, *listen, EMIX_HOME=home)
    assert made.returncode == 0, made.stderr
    node = Node(nobodys, "home", "Nameless")
    node.prefix = [*as_user(), "env", "-i"]
    node.start()
    try:
        found = json.loads(run("node", "status", "--json", EMIX_HOME=home).stdout)
        assert found["display_name"] == "Nameless"
    finally:
        assert node.stop() == 0


def test_node_reads_its_settings_again_and_tells_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, "node", "Notified Clinic")
    node.make()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        node.start()
        assert manager.recv(500).startswith(b"READY=1\nSTATUS=peers connect to 127.0.0.1:")
        assert node.process is not None
        node.set(quota_gib="5", trust='"network"', level='"warning"')
        assert "[store] quota_gib" in node.run("config", "check")
        os.kill(node.process.pid, signal.SIGHUP)
        assert manager.recv(500).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(500).startswith(b"READY=1\n")
        [entry] = node.json("audit", "--action", "node.settings-changed")["entries"]
        changed = ["[store] quota_gib", "[log] level"]
        assert json.loads(entry["body"]) == {"settings": changed}
        node.set(reserve_mib='"much"')
        os.kill(node.process.pid, signal.SIGHUP)
        wait_until(
            lambda: "reserve_mib must be" in node.log.read_text(), "what is wrong is not said"
        )
        assert [manager.recv(500).split(b"=")[0] for _ in range(2)] == [b"RELOADING", b"READY"]
        node.run("status")
        assert node.stop() == 0
        assert manager.recv(500) == b"STOPPING=1"


def test_home_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    from node.app.home import Home, unlock
    from node.sql.database import open_database
    from node.store.schema import migrations

    node = Node(tmp_path, "node", "Later Clinic")
    node.make()
    node.start()
    node.stop()
    key = unlock(Home(node.home), None).root_key.database_key()
    database = open_database(node.home / "metadata.db", key, migrations)
    later = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, '')"
    database.write_sync(lambda db: db.execute(later, ("emix-node", "9999_later")))
    database.close()
    with pytest.raises(CommandFailed, match=r"made by a newer emix \(9999_later\)"):
        node.run("serve")
