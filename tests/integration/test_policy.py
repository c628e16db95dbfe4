"""What a facility decides about its node: room, time, urgency, keys; between real processes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dicom_files import encode, make_dataset, study_uid, write_study
from tests.support.nodes import CommandFailed, Node, free_port, two_nodes, wait_until
from tests.support.processes import interruptible
from tests.support.slow_line import SlowLine, only_through

pytestmark = pytest.mark.integration


@contextmanager
def configured(node: Node, **settings: object) -> Iterator[None]:
    """Run a node with other settings for the time of the block."""
    config = node.home / "emix.toml"
    before = text = config.read_text()
    for name, value in settings.items():
        text, count = re.subn(rf"(?m)^# {name} = .*$", f"{name} = {json.dumps(value)}", text)
        assert count == 1, name
    config.write_text(text)
    node.stop()
    node.start()
    try:
        yield
    finally:
        config.write_text(before)
        node.stop()
        node.start()


def write_noise(folder: Path, study: int, megabytes: int) -> Path:
    """Write a study that does not compress."""
    folder.mkdir(parents=True)
    for n in range(megabytes):
        ds = make_dataset(study, n + 1, size=724)
        ds.PixelData = random.Random(study * 1000 + n).randbytes(724 * 724 * 2)
        (folder / f"{n:04d}.dcm").write_bytes(encode(ds))
    return folder


def transfer(node: Node, transfer_id: str) -> dict[str, str]:
    found = node.json("transfers")["transfers"]
    return next(t for t in found if t["transfer_id"] == transfer_id)


@pytest.mark.slow
def test_full_quota_asks_to_come_later_and_never_evicts(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    a.run("import", str(write_noise(tmp_path / "first", 1, 600)))
    a.run("import", str(write_noise(tmp_path / "second", 2, 500)))
    with configured(b, quota_gib=1):
        a.run("send", study_uid(1), b.display_name, "--wait")
        second = a.json("send", study_uid(2), b.display_name)["transfers"][0]["transfer_id"]
        wait_until(
            lambda: "quota is used up" in transfer(a, second)["reason"], "it is not told to wait"
        )
        assert transfer(a, second)["state"] == "pending"
        assert b.json("study", study_uid(1))["sources"][0]["instances"] == 600
    # With the quota gone it arrives by itself, when the sender asks again.
    wait_until(lambda: transfer(a, second)["state"] == "delivered", "it never arrives", 100)
    for node in nodes:
        for study in (1, 2):
            node.run("delete", study_uid(study), "--yes")


def test_retention_removes_what_was_received_and_says_so(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    """What was looked at is announced, and deleted a week later; nothing else is."""
    a.run("import", str(write_study(tmp_path / "s", 3, 3)), str(write_study(tmp_path / "u", 5, 1)))
    b.run("import", str(write_study(tmp_path / "own", 4, 3)))
    for study in (3, 5):
        a.run("send", study_uid(study), b.display_name, "--wait")
    b.run("study", study_uid(3))
    age_packages(b, days=40)
    with configured(b, retention_days=30):
        wait_until(lambda: fates(b) == {3: "announced", 5: "unseen"}, "it is not announced")
        assert b.json("studies", study_uid(3))["studies"], "there is a week's warning"
        text = b.run("retention", "--dry-run")
        [unseen] = [line for line in text.splitlines() if "nobody viewed it" in line]
        assert study_uid(5) in unseen.split()
        number = b.json("studies", study_uid(5))["studies"][0]["number"]
        assert f"s{number}" in unseen.split()
        found = {f["subject"]: f["text"] for f in b.json("doctor", statuses=(0, 1))["findings"]}
        assert "1 packages older than 30 days will be deleted from" in found["retention"]
        age_packages(b, days=8)
        wait_until(
            lambda: not b.json("studies", study_uid(3))["studies"], "the old study is still here"
        )
        assert b.json("studies", study_uid(4))["studies"], "an import of one's own is kept"
        assert b.json("studies", study_uid(5))["studies"], "nobody has looked at it"
        entries = [e for e in b.json("audit")["entries"] if e["kind"] == "package.expired"]
        assert "older than 30 days" in json.loads(entries[-1]["body"])["why"]
    b.run("store", "check", "--read-data")
    assert b.json("receipts")["receipts"], "the receipt outlives the study"


def fates(node: Node) -> dict[int, str]:
    """Return what becomes of studies 3 and 5, as retention says."""
    entries = node.json("retention", "--dry-run")["entries"]
    found = {entry["study_instance_uid"]: entry["fate"] for entry in entries}
    return {n: found[study_uid(n)] for n in (3, 5) if study_uid(n) in found}


def age_packages(node: Node, days: int) -> None:
    """Make all packages of a stopped node older."""
    from node.app.home import Home, unlock
    from node.sql.database import open_database
    from node.store.schema import migrations

    node.stop()
    key = unlock(Home(node.home), None).root_key.database_key()
    database = open_database(node.home / "metadata.db", key, migrations)
    sql = "UPDATE packages SET created_time = created_time - ?1, expiring_time = expiring_time - ?1"
    database.write_sync(lambda db: db.execute(sql, (days * 86400,)))
    database.close()
    node.start()


def test_stat_overtakes_and_nothing_waits_for_ever(tmp_path: Path) -> None:
    """Routine transfers fill every slot of a slow line; then a stat one comes.

    The line all but stands until the stat one is offered: however slow the machine is, no routine
    transfer can have ended by then.
    """
    with two_nodes(tmp_path) as (a, b):
        port = free_port()
        target = int(b.addresses["peer"].rpartition(":")[2])
        with SlowLine(port, target, rate=20e6) as line:
            only_through(a, b, f"127.0.0.1:{port}")
            for study in range(1, 5):
                a.run("import", str(write_noise(tmp_path / f"s{study}", study, 40)))
            a.run("import", str(write_noise(tmp_path / "stat", 9, 40)))
            line.rate = 0.5e6
            with _ends(a) as ended:
                for study in range(1, 5):
                    a.run("send", study_uid(study), b.display_name)
                wait_until(lambda: "carrying" in _states(a), "nothing is carried")
                sent = a.json("send", study_uid(9), b.display_name, "--priority", "stat")
                line.rate = 20e6
                wait_until(lambda: len(ended) == 5, "a transfer never ends", 120)
            assert ended[0] == sent["transfers"][0]["transfer_id"]
            assert _states(a) == {"delivered"}


def _states(node: Node) -> set[str]:
    return {t["state"] for t in node.json("transfers")["transfers"]}


@contextmanager
def _ends(node: Node) -> Iterator[list[str]]:
    """Yield a list that fills with the transfers that end, the first one first."""
    ended: list[str] = []
    command = node.command("transfers", "--watch", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:

        def follow() -> None:
            for line in watch.stdout or ():
                t = json.loads(line)
                if t["state"] == "delivered" and t["transfer_id"] not in ended:
                    ended.append(t["transfer_id"])

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield ended
        finally:
            watch.terminate()
            thread.join()


def test_inbox_shows_from_whom_for_whom_and_why(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = nodes
    a.run("import", str(write_study(tmp_path / "s", 5, 2)))
    note = ("--to", "Dr. Jones", "--note", "second opinion")
    a.run("send", study_uid(5), b.display_name, *note, "--wait")
    line = next(x for x in b.run("inbox").splitlines() if study_uid(5) in x)
    for what in (a.display_name, "Dr. Jones", "second opinion", "Synthetic^Person"):
        assert what in line
    package = b.json("inbox")["studies"][0]["packages"][0]
    assert (package["recipient"], package["note"]) == ("Dr. Jones", "second opinion")


def test_lists_can_be_bounded_and_a_watch_narrowed(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    sent = []
    for study in (30, 31, 32):
        a.run("import", str(write_study(tmp_path / f"s{study}", study, 1)))
        sent.append(a.json("send", study_uid(study), b.display_name, "--wait")["transfers"][0])
    for what in ("studies", "transfers", "receipts"):
        assert len(a.json(what, "--limit", "2")[what]) == 2
        assert len(a.json(what)[what]) >= 3
        assert "--limit" in a.run(what, "--help")
    newest = a.json("studies", "--limit", "1")["studies"][0]["study_instance_uid"]
    assert newest == study_uid(32)
    request = json.dumps({"numbers": [sent[1]["number"]]})
    watch = subprocess.Popen(
        [
            shutil.which("grpcurl", path=Path(sys.executable).parent) or "grpcurl",
            "-plaintext",
            *("-max-time", "2", "-d", request, "-unix", str(a.home / "admin.sock")),
            "emix.admin.v1.TransferService/WatchTransfers",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = watch.communicate(timeout=30)
    assert out.count("transfer_id") == 1
    assert sent[1]["transfer_id"] in out


def test_audit_tells_a_nodes_own_life(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    a.stop()
    a.start()
    kinds = [e["kind"] for e in a.json("audit", "--limit", "0")["entries"]]
    assert kinds[:2] == ["node.made", "node.started"]
    assert kinds[-2:] == ["node.stopped", "node.started"]
    assert kinds.count("node.made") == 1
    a.run("audit", "verify")


def test_what_leaves_in_the_clear_is_in_the_audit_log_even_when_it_fails(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    a.run("import", str(write_study(tmp_path / "s", 7, 2)))
    package = a.json("study", study_uid(7))["sources"][0]["packages"][0]["package_id"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    _error(a, "export", study_uid(7), str(tmp_path / "taken"))
    said = a.run("export", study_uid(7), str(tmp_path / "out"))
    assert said.startswith("2 instances, ")
    a.run("backup", str(tmp_path / "copy"))
    _error(a, "backup", str(tmp_path / "copy"))
    entries = a.json("audit", "--limit", "10")["entries"]
    exports = [e for e in entries if e["kind"] == "study.exported"]
    assert [json.loads(e["body"])["packages"] for e in exports] == [[package]]
    assert all(e["operator"] not in ("", "node", "admin") for e in exports)
    # The second was refused by the command, before anything left.
    assert sum(e["kind"] == "node.backed-up" for e in entries) == 1


def test_doctor_tries_what_peers_are_told(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    found = {f["subject"]: f for f in a.json("doctor", statuses=(0, 1))["findings"]}
    for subject in ("clock", "disk", "permissions", "versions", "certificate", "keys"):
        assert subject in found
    assert found["peer service"]["level"] == found["introduction"]["level"] == "ok"
    assert "emix/" in found["versions"]["text"]
    wait_until(
        lambda: any(p["software"].startswith("emix/") for p in a.json("peers")["peers"]),
        "the peer's software is not known",
    )
    with configured(a, announce=["127.0.0.1:1"]):
        found = {f["subject"]: f for f in a.json("doctor", statuses=(0, 1))["findings"]}
        assert found["peer service"]["level"] == "warning"
        assert "announce" in found["peer service"]["advice"]
    with configured(a, reserve_mib=999_999):
        found = {f["subject"]: f for f in a.json("doctor", statuses=(1,))["findings"]}
        assert found["disk"]["level"] == "problem"
        assert any("reserve" in alarm for alarm in a.json("status")["alarms"])
    b.run("status")


def test_lost_passphrase_is_replaced_with_the_recovery_kit(tmp_path: Path) -> None:
    node = Node(tmp_path, "node", "Forgetful Clinic")
    node.make()
    node.start()
    node.run("import", str(write_study(tmp_path / "s", 6, 2)))
    node.stop()
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("six random words make a passphrase\n")
    second.write_text("and these are six other ones\n")
    short = tmp_path / "short"
    short.write_text("secret\n")
    assert "shorter than 12" in _error(node, "passphrase", "--new-passphrase-file", str(short))
    node.run("passphrase", "--new-passphrase-file", str(first))
    assert not (node.home / "host.key").exists()
    (node.home / "host.key").write_bytes(bytes(32))  # as a kill before its removal leaves it
    assert "passphrase is needed" in _error(node, "serve")
    old = ("--passphrase-file", str(second))
    assert "the passphrase is wrong" in _error(
        node, "passphrase", *old, "--new-passphrase-file", str(second)
    )
    kit = ("--recovery-kit", str(node.kit))
    node.run("passphrase", *kit, "--new-passphrase-file", str(second))
    assert "the passphrase is wrong" in _error(node, "serve", "--passphrase-file", str(first))
    plain = node.command
    node.command = lambda *x: plain(*x, *old) if x == ("serve",) else plain(*x)  # type: ignore[method-assign]
    node.start()
    try:
        assert "is using" in _error(node, "passphrase", *kit, "--new-passphrase-file", str(first))
        assert node.json("studies")["studies"]
    finally:
        node.stop()


def test_backup_holds_everything_though_studies_are_deleted_meanwhile(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    for study in range(20, 26):
        a.run("import", str(write_noise(tmp_path / f"s{study}", study, 40)))
    backup = subprocess.Popen(a.command("backup", str(tmp_path / "copy")), stdout=subprocess.PIPE)
    wait_until(lambda: (tmp_path / "copy" / "metadata.db").exists(), "no backup is made")
    for study in range(20, 26):
        a.run("delete", study_uid(study), "--yes")
    backup.communicate(timeout=60)
    assert backup.returncode == 0
    restored = Node(tmp_path, "restored", a.display_name)
    assert "give --recovery-kit" in _error(restored, "restore", str(tmp_path / "copy"))
    restored.run("restore", str(tmp_path / "copy"), "--recovery-kit", str(a.kit))
    a.stop()
    restored.start()
    try:
        assert "0 problems" in restored.run("store", "check", "--read-data")
    finally:
        restored.stop()
        a.start()
    assert not a.json("studies", study_uid(20))["studies"]
    a.run("store", "check", "--read-data")


def test_backup_onto_a_full_disk_leaves_nothing_there(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    a, _ = nodes
    a.run("import", str(write_noise(tmp_path / "s", 50, 20)))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(small)], check=True)
    try:
        said = _error(a, "backup", str(small / "copy"))
        assert "has room for" in said
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)
    a.run("status")  # the node itself goes on


def test_second_interrupt_ends_an_import_though_the_node_hangs(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    assert a.process is not None
    folder = write_study(tmp_path / "s", 51, 300, size=512)
    before = len(list((a.home / "chunks").glob("??/*")))
    importing = interruptible(a.command("import", str(folder)))
    wait_until(lambda: len(list((a.home / "chunks").glob("??/*"))) > before, "nothing is imported")
    os.kill(a.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            importing.wait(2)
        importing.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            importing.wait(1)
        importing.send_signal(signal.SIGINT)
        importing.communicate(timeout=10)
        assert importing.returncode == 130
    finally:
        os.kill(a.process.pid, signal.SIGCONT)


@pytest.mark.slow
def test_study_comes_again_while_its_deletion_waits_for_a_backup(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    for study in (40, 41, 42):
        a.run("import", str(write_noise(tmp_path / f"s{study}", study, 80)))
        a.run("send", study_uid(study), b.display_name, "--wait")
    backup = subprocess.Popen(b.command("backup", str(tmp_path / "copy")), stdout=subprocess.PIPE)
    wait_until(lambda: (tmp_path / "copy" / "metadata.db").exists(), "no backup is made")
    b.run("delete", study_uid(40), "--yes")
    a.run("send", study_uid(40), b.display_name, "--again", "--wait")
    backup.communicate(timeout=60)
    assert b.json("study", study_uid(40))["sources"][0]["instances"] == 80
    b.run("store", "check", "--read-data")


def _error(node: Node, *arguments: str) -> str:
    with pytest.raises(CommandFailed) as caught:
        node.run(*arguments)
    return str(caught.value)


def test_offer_that_waits_shows_what_it_is_unless_its_sender_does_not_tell(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    for study in (60, 61):
        a.run("import", str(write_study(tmp_path / str(study), study, 1)))
    with configured(b, incoming="ask"):
        a.run("send", study_uid(60), b.display_name)
        wait_until(lambda: b.json("inbox")["offers"], "it is not offered")
        (offer,) = b.json("inbox")["offers"]
        (patient,) = offer["summary"]["patients"]
        assert (patient["name"], patient["patient_id"]) == ("Synthetic^Person", "P60")
        assert offer["summary"]["study_instance_uid"] == study_uid(60)
        assert (offer["summary"]["modalities"], offer["summary"]["study_date"]) == (
            ["CT"],
            "20261124",
        )
        assert "P60" in b.run("inbox")
        b.run("accept", f"t{offer['number']}")
        wait_until(lambda: not b.json("inbox")["offers"], "it does not come")
        with configured(a, offer_summary="none"):
            a.run("send", study_uid(61), b.display_name)
            wait_until(lambda: b.json("inbox")["offers"], "it is not offered")
            (offer,) = b.json("inbox")["offers"]
            assert "summary" not in offer
            b.run("decline", f"t{offer['number']}")
