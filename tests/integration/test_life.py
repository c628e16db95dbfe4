"""A node's life: failing disks, long absences, metrics, stopping, installing."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from node.app.home import Home, save_secrets, unlock
from node.crypto.certificates import make_tls_identity
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Node, free_port, pair, wait_until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def needs(program: str) -> str:
    """Return a program's path; without it the test is skipped, and in CI fails."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed; .ci/run installs it")
        pytest.skip(f"{program} is not installed (Debian package {program})")
    return found


def test_failed_sync_stops_the_node_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Failing Disk Clinic")
    node.make()
    study = write_study(tmp_path / "s", 1, 30, size=512)
    strace = [needs("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
    inject = ["-e", "inject=fdatasync:error=EIO:when=40+"]
    plain = node.command
    node.command = lambda *a: [*strace, *inject, *plain(*a)] if a == ("serve",) else plain(*a)  # type: ignore[method-assign]
    node.start()
    assert node.process is not None
    with pytest.raises(CommandFailed):
        _import_many(node, tmp_path)
    assert node.process.wait(30) == 10
    assert "syncing to disk failed" in node.log.read_text()
    node.command = plain  # type: ignore[method-assign]
    node.kill()
    node.start()
    node.run("store", "check", "--read-data")
    node.run("import", str(study))
    assert node.stop() == 0


def _import_many(node: Node, folder: Path) -> None:
    for n in range(20):
        node.run("import", str(write_study(folder / f"s{n}", 100 + n, 5)))


def test_peer_that_comes_back_with_a_new_certificate_reconnects_by_itself(
    tmp_path: Path,
) -> None:
    a, b = Node(tmp_path, "a", "Away Clinic"), Node(tmp_path, "b", "Steady Hospital")
    try:
        for node in (a, b):
            node.make()
            node.start()
        pair(a, b)
        a.stop()
        _expire_certificate(a)
        a.start()
        wait_until(lambda: _connected(a) and _connected(b), "they do not find each other", 60)
        a.run("import", str(write_study(tmp_path / "s", 2, 2)))
        a.run("send", study_uid(2), b.display_name, "--wait")
    finally:
        for node in (a, b):
            node.stop()


def _expire_certificate(node: Node) -> None:
    """Leave the node as it is after months: with a certificate that has run out."""
    home = Home(node.home)
    unlocked = unlock(home, None)
    old = make_tls_identity(unlocked.signer.node_id, time.time() - 100 * 86400)
    save_secrets(home, unlocked, replace(unlocked.secrets, tls=(old,)))


def _connected(node: Node) -> bool:
    return bool(node.json("peers")["peers"][0]["state"] == "connected")


def test_lost_database_is_rebuilt_from_the_envelopes(tmp_path: Path) -> None:
    a, b = Node(tmp_path, "a", "Sender"), Node(tmp_path, "b", "Loser")

    def images() -> list[dict[str, str]]:
        found = b.json("query", "--level", "image")["matches"]
        values: list[dict[str, str]] = [match["values"] for match in found]
        return sorted(values, key=lambda v: v["SOPInstanceUID"])

    try:
        for node in (a, b):
            node.make()
            node.start()
        pair(a, b)
        a.run("import", str(write_study(tmp_path / "s", 5, 3)))
        b.run("import", str(write_study(tmp_path / "t", 6, 3)))
        b.run("import", str(write_study(tmp_path / "large", 9, 1, size=1800)))  # over one chunk
        a.run("send", study_uid(5), b.display_name, "--wait")
        before, images_before = b.json("studies"), images()
        assert len(images_before) == 7
        assert all(values["InstanceNumber"] for values in images_before)
        b.stop()
        for path in b.home.glob("metadata.db*"):
            path.unlink()
        with pytest.raises(CommandFailed, match="emix store repair"):
            b.start()
        assert "3 packages without rows, 3 repaired whole" in b.run("store", "repair")
        b.start()
        after = b.json("studies")
        for study in (*before["studies"], *after["studies"]):
            for volatile in ("packages", "origin_name", "origin_pinned", "number"):
                study.pop(volatile)
        by_uid = {s["study_instance_uid"]: s for s in after["studies"]}
        assert by_uid == {s["study_instance_uid"]: s for s in before["studies"]}
        assert images() == images_before
        b.run("store", "check", "--read-data")
        assert b.json("receipts")["receipts"][0]["reissued"]
        out = tmp_path / "out"
        b.run("export", study_uid(5), str(out))
        assert {p.read_bytes() for p in out.rglob("IM*")} == {
            p.read_bytes() for p in (tmp_path / "s").iterdir()
        }
    finally:
        for node in (a, b):
            node.stop()


def test_damaged_database_says_what_to_do(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Clinic")
    node.make()
    node.start()
    node.run("import", str(write_study(tmp_path / "s", 10, 2)))
    node.stop()
    path = node.home / "metadata.db"
    whole = path.read_bytes()
    for damaged in (b"", whole[:5000] + b"\xff" * 100 + whole[5100:]):
        path.write_bytes(damaged)
        with pytest.raises(CommandFailed, match="emix store repair"):
            node.start()
        assert "sqlcipher" not in node.log.read_text()
    path.unlink()
    assert "1 repaired whole" in node.run("store", "repair")
    node.start()
    assert node.json("studies")["studies"]
    node.stop()


def test_old_database_put_back_does_not_cost_newer_packages(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Clinic")
    node.make()
    node.start()
    node.run("import", str(write_study(tmp_path / "s", 7, 2)))
    node.stop()
    old = (node.home / "metadata.db").read_bytes()
    node.start()
    node.run("import", str(write_study(tmp_path / "t", 8, 2)))
    node.stop()
    (node.home / "metadata.db").write_bytes(old)
    node.start()
    assert any("alarm" in alarm for alarm in node.json("status")["alarms"])
    assert not node.json("studies", study_uid(8))["studies"]
    node.stop()
    assert "1 packages without rows, 1 repaired whole" in node.run("store", "repair")
    node.start()
    node.run("store", "check", "--read-data")
    assert node.json("studies", study_uid(8))["studies"]
    node.stop()


def test_stopping_leaves_no_socket_and_no_process(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Clinic")
    node.make()
    node.start()
    assert node.process is not None
    pid = node.process.pid
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [c for t in tasks for c in (t / "children").read_text().split()]
    assert children
    assert node.stop() == 0
    assert not (node.home / "admin.sock").exists()
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_metrics_are_served_and_name_nobody(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Clinic")
    node.make()
    port = free_port()
    config = node.home / "emix.toml"
    config.write_text(config.read_text().replace('# listen = ""', f'listen = "127.0.0.1:{port}"'))
    node.start()
    try:
        node.run("import", str(write_study(tmp_path / "s", 3, 2)))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            page = response.read().decode()
        assert "emix_instances 2.0" in page
        assert study_uid(3) not in page
        assert "Synthetic" not in page
    finally:
        node.stop()


def test_port_in_use_is_an_error_with_a_word_of_advice(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Clinic")
    node.make()
    config = node.home / "emix.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        lines = config.read_text().splitlines()
        config.write_text(
            "\n".join(f'peer = "{address}"' if x.startswith("peer =") else x for x in lines)
        )
        done = subprocess.run(
            node.command("serve"), capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 3
    assert "cannot be bound" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_wheel_installs_in_a_clean_environment_and_runs(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("emix-*.whl"))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    locked = ["--require-hashes", "-r", str(ROOT / "deploy" / "requirements.txt")]
    for what in (locked, [str(wheel)]):
        installed = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "--no-deps", *what],
            capture_output=True,
            text=True,
            check=False,
        )
        assert installed.returncode == 0, installed.stderr
    emix = tmp_path / "venv" / "bin" / "emix"
    home = ["--home", str(tmp_path / "home")]
    kit = ["--recovery-kit", str(tmp_path / "kit")]
    subprocess.run(
        [str(emix), *home, "init", "--name", "X", "--host-key", *kit], check=True, cwd="/"
    )
    shown = subprocess.run(
        [str(emix), "--version"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert shown.stdout.startswith("emix, version 0.")
    protoset = "import emix, pathlib; print(pathlib.Path(emix.__path__[0]) / 'emix.protoset')"
    where = subprocess.run(
        [str(python), "-c", protoset], capture_output=True, text=True, check=True, cwd="/"
    )
    assert Path(where.stdout.strip()).exists()
