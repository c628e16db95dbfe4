"""New keys: every rotation keeps all that is here, also when it is killed; shredded is shredded."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.app.home import Home, unlock
from node.errors import BadDataKey, KeysError, StoreError
from node.store.context import StoreContext, open_store
from node.store.package_rows import find_packages
from tests.integration.test_life import needs
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Node, pair, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A stopped node with two studies."""
    node = Node(tmp_path, "node", "Careful Clinic")
    node.make()
    node.start()
    for n in (1, 2):
        node.run("import", str(write_study(tmp_path / f"in{n}", n, 2)))
    node.stop()
    yield node
    node.stop()


def hold_whole(node: Node, *studies: int) -> None:
    """Check that a node has these studies, every byte of them, and serves."""
    node.start()
    try:
        assert "0 problems" in node.run("store", "check", "--read-data")
        for n in studies:
            out = node.home.with_name(f"out{n}")
            shutil.rmtree(out, ignore_errors=True)
            node.run("export", study_uid(n), str(out))
            wanted = {p.read_bytes() for p in node.home.with_name(f"in{n}").iterdir()}
            assert {p.read_bytes() for p in out.rglob("IM*")} == wanted
    finally:
        node.stop()


def opened(home: Path) -> StoreContext:
    unlocked = unlock(Home(home), None)
    return open_store(
        home, unlocked.root_key, unlocked.secrets, unlocked.signer, reserve_bytes=2**20
    )


def epochs(node: Node) -> list[int]:
    return sorted(unlock(Home(node.home), None).secrets.epochs)


def kinds(node: Node) -> list[str]:
    node.start()
    try:
        return [e["kind"] for e in node.json("audit")["entries"]]
    finally:
        node.stop()


def test_rotated_epoch_opens_everything_and_the_old_key_is_gone(node: Node) -> None:
    answer = json.loads(node.run("keys", "rotate-epoch", "--json"))
    assert answer == {"epoch": 2, "packages": 2, "destroyed_epochs": [1]}
    assert epochs(node) == [2]
    hold_whole(node, 1, 2)
    assert {"keys.epoch-begun", "keys.epoch-rotated"} <= set(kinds(node))
    # A lost database comes back from the envelopes, which were moved too.
    for path in node.home.glob("metadata.db*"):
        path.unlink()
    assert "2 repaired whole" in node.run("store", "repair")
    hold_whole(node, 1, 2)


@pytest.mark.parametrize("call", ["rename", "fdatasync"])
def test_rotation_that_is_killed_anywhere_loses_nothing(node: Node, call: str) -> None:
    """Killed at the n-th such call until it comes through; after each kill all opens."""
    kills = 0
    for n in (1, 2, 3, 5, 8, 13, 99):
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={n}"]
        strace = [needs("strace"), "-f", "-qq", "-o", "/dev/null", *inject]
        done = subprocess.run(
            [*strace, *node.command("keys", "rotate-epoch")], capture_output=True, check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        kills += 1
        context = opened(node.home)
        try:
            for package in context.database.read_sync(lambda db: find_packages(db, "1", ())):
                context.data_key(package)
            for path in context.envelopes.paths():
                context.envelopes.read(path)
        finally:
            context.close()
    assert kills >= 2
    node.run("keys", "rotate-epoch")
    assert len(epochs(node)) == 1
    hold_whole(node, 1, 2)


def test_what_was_deleted_is_opened_by_no_key_that_is_left(node: Node, tmp_path: Path) -> None:
    """With an old copy of all but the keyring: it opens before shredding, and not after."""
    copy = tmp_path / "copy"
    shutil.copytree(node.home, copy)
    node.start()
    node.run("delete", study_uid(1), "--yes")
    node.stop()

    def open_with_present_keys() -> None:
        for name in ("keyring", "host.key"):
            (copy / name).unlink()
            shutil.copy2(node.home / name, copy / name)
        context = opened(copy)
        try:
            for package in context.database.read_sync(lambda db: find_packages(db, "1", ())):
                context.data_key(package)
            for path in context.envelopes.paths():
                context.envelopes.read(path)
        finally:
            context.close()

    open_with_present_keys()  # a deletion alone destroys no key
    answer = json.loads(node.run("keys", "shred", "--json"))
    assert answer["packages"] == 1
    with pytest.raises((KeysError, BadDataKey, StoreError)):
        open_with_present_keys()
    assert (
        not (node.home / "metadata.db-wal").exists()
        or not (node.home / "metadata.db-wal").stat().st_size
    )
    hold_whole(node, 2)
    assert "keys.shredded" in kinds(node)


def test_rotation_that_cannot_move_a_package_destroys_nothing(node: Node) -> None:
    path = next((node.home / "envelopes").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CommandFailed, match="cannot be decrypted"):
        node.run("keys", "rotate-epoch")
    assert 1 in epochs(node)


def test_node_that_runs_is_not_given_other_keys(node: Node) -> None:
    node.start()
    for command in (
        ("keys", "rotate-epoch"),
        ("keys", "rotate-seal"),
        ("keys", "shred"),
        ("node", "replace", "--recovery-kit", str(node.kit)),
    ):
        with pytest.raises(CommandFailed, match="another process"):
            node.run(*command)


def test_delivery_to_an_older_seal_key_still_arrives(tmp_path: Path) -> None:
    """Sealed before the rotation by a peer that could not reach us, collected after it."""
    a, b = Node(tmp_path, "a", "Sender"), Node(tmp_path, "b", "Receiver")
    try:
        for node in (a, b):
            node.make()
            node.start()
        pair(a, b)
        b.stop()
        a.run("import", str(write_study(tmp_path / "in", 3, 1)))
        a.run("send", study_uid(3), b.display_name)
        assert json.loads(b.run("keys", "rotate-seal", "--json")) == {"kept": 1, "destroyed": 0}
        b.start()
        wait_until(lambda: bool(b.json("studies")["studies"]), "it does not arrive", 60)
        a.run("send", study_uid(3), b.display_name, "--again", "--wait")  # to the new one
    finally:
        for node in (a, b):
            node.stop()


def test_certificate_is_renewed_with_the_kit_or_by_request(node: Node, tmp_path: Path) -> None:
    before = json.loads(node.run("keys", "--json"))
    asked, answer = tmp_path / "node.request", tmp_path / "node.certificate"
    node.run("node", "request", str(asked))
    kit = ("--recovery-kit", str(node.kit))
    certify = ("node", "certify", str(asked), str(answer), *kit)
    with pytest.raises(CommandFailed, match="the node's ID is needed"):
        node.run(*certify)
    printed = node.run(*certify, "--node", before["node_id"])
    assert before["node_id"] in printed
    assert "ends" in printed
    renewed = json.loads(node.run("node", "renew", "--certificate", str(answer), "--json"))
    assert (renewed["node_id"], renewed["generation"]) == (before["node_id"], before["generation"])
    assert renewed["expires_seconds"] >= before["expires_seconds"]
    node.run("node", "renew", "--recovery-kit", str(node.kit))
    with pytest.raises(CommandFailed, match="older than the present"):
        node.run("node", "renew", "--certificate", str(answer))
    other = Node(tmp_path, "other", "Other Clinic")
    other.make()
    with pytest.raises(CommandFailed, match="another"):
        node.run(*certify[:4], "--recovery-kit", str(other.kit), "--node", before["node_id"])
    with pytest.raises(CommandFailed, match="another"):
        node.run("node", "replace", "--recovery-kit", str(other.kit))
    hold_whole(node, 1, 2)
    assert kinds(node).count("node.renewed") == 2
