"""What must survive a power loss is synced, its name in its folder included."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_life import needs
from tests.support.nodes import Directory, Node

pytestmark = pytest.mark.integration


def synced(server: Node | Directory, trace: Path, *command: str) -> list[str]:
    """Run a command; return what it synced, in order: paths of files and folders."""
    strace = [needs("strace"), "-f", "-y", "-qq", "-o", str(trace), "-e", "trace=fsync,fdatasync"]
    subprocess.run([*strace, *server.command(*command)], check=True, capture_output=True)
    return re.findall(r"sync\(\d+<([^>]+)>", trace.read_text())


def test_recovery_kit_and_home_are_there_after_a_power_loss(tmp_path: Path) -> None:
    node = Node(tmp_path / "new" / "homes", "node", "Careful Clinic")
    node.home.parent.mkdir(parents=True)
    node.kit = tmp_path / "stick" / "kit.json"
    node.kit.parent.mkdir()
    found = synced(
        node,
        tmp_path / "trace",
        *("init", "--name", "Careful", "--host-key", "--recovery-kit", str(node.kit)),
    )
    kit = found.index(str(node.kit))
    assert str(node.kit.parent) in found[kit:]
    assert found.index(str(node.kit.parent)) < len(found) - 1  # the keyring is last: a home by then
    for folder in (node.home, node.home.parent):
        assert str(folder) in found


def test_restored_home_is_there_after_a_power_loss(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Careful Clinic")
    node.make()
    node.start()
    node.run("backup", str(tmp_path / "backup"))
    node.stop()
    restored = Node(tmp_path / "other", "restored", "Careful Clinic")
    restored.home.parent.mkdir()
    command = ("restore", str(tmp_path / "backup"), "--recovery-kit", str(node.kit))
    found = synced(restored, tmp_path / "trace", *command)
    aside = restored.home / ".restoring"
    for path in ("metadata.db", "keyring", "emix.toml", "host.key", "chunks", "envelopes"):
        assert str(aside / path) in found
    assert str(restored.home.parent) in found  # the home's own name, and then what is in it
    assert found.count(str(restored.home)) >= 2
    assert found[-1] == str(restored.home)
