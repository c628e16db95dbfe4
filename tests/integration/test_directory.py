"""A network with a directory: enrollment, discovery, trust by membership, and life without it."""

import secrets
import shutil
import signal
import socket
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_kills import write_noisy_study
from tests.support.dicom_files import study_uid, write_study
from tests.support.dumps import database_dump
from tests.support.nodes import CommandFailed, Directory, Node, free_port, wait_until
from tests.support.postgres import running_postgres
from tests.support.slow_line import SlowLine

NOBODY = '["127.0.0.1:1"]'
pytestmark = pytest.mark.integration


def make_node(folder: Path, name: str, display_name: str, **settings: str) -> Node:
    node = Node(folder, name, display_name)
    node.make()
    node.set(**settings)
    node.start()
    return node


def stop(*servers: Node | Directory) -> None:
    for server in servers:
        assert server.stop() == 0


@pytest.fixture(scope="module", params=["embedded", "postgresql"])
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Directory, Node, Node]]:
    """A directory on either database, with two members that trust members."""
    folder = tmp_path_factory.mktemp("network")
    directory = Directory(folder)
    a = make_node(folder, "great-falls", "Great Falls Clinic", trust='"network"')
    b = make_node(
        folder,
        "billings",
        "Billings Hospital",
        trust='"network"',
        city='"Billings"',
        departments='["Radiology", "Emergency"]',
    )

    def run() -> Iterator[tuple[Directory, Node, Node]]:
        directory.start()
        directory.enroll(a, b)
        yield directory, a, b
        stop(directory, a, b)

    if request.param == "embedded":
        directory.make()
        yield from run()
        return
    with running_postgres(Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}") as server:
        directory.make("--database", server.url)
        yield from run()


def facility_id(node: Node) -> str:
    found: str = node.json("id")["facility_id"]
    return found


def import_study(node: Node, folder: Path, study: int) -> str:
    write_study(folder / f"study-{study}", study=study, instances=3)
    node.run("import", str(folder / f"study-{study}"))
    return study_uid(study)


Network = tuple[Directory, Node, Node]


def test_members_find_each_other_and_exchange_without_pairing(
    network: Network, tmp_path: Path
) -> None:
    _, a, b = network
    [found] = a.json("find", "bilings", "emergency")["facilities"]
    assert (found["display_name"], found["city"], found["online"], found["standing"]) == (
        "Billings Hospital",
        "Billings",
        True,
        "member",
    )
    uid = import_study(a, tmp_path, 41)
    a.run("send", uid, "Billings Hospital", "--wait")
    assert uid in b.run("studies")
    [peer] = b.json("peers")["peers"]
    assert (peer["display_name"], peer["pinned_how"]) == ("Great Falls Clinic", "network")


def test_member_is_sent_to_by_the_name_that_the_network_gave_it(
    network: Network, tmp_path: Path
) -> None:
    directory, a, b = network
    # It calls itself like another, and was let in under a name of its own.
    impostor = Node(tmp_path, "impostor", "Billings Hospital")
    impostor.make()
    impostor.set(trust='"network"')
    impostor.start()
    try:
        impostor.run("join", directory.invite("Xray Shack"))
        directory.sign_list()
        wait_until(
            lambda: impostor.json("networks")["networks"][0]["standing"] == "member",
            "it is no member",
        )
        uid = import_study(impostor, tmp_path, 51)
        impostor.run("send", uid, "Great Falls Clinic", "--wait")  # now it is a peer, too
        mine = import_study(a, tmp_path, 52)
        a.run("send", mine, "Billings Hospital", "--wait")
        assert mine in b.run("studies")
        assert mine not in impostor.run("studies")
        names = {p["facility_id"]: p["display_name"] for p in a.json("peers")["peers"]}
        assert names[facility_id(impostor)] == "Xray Shack"
        [found] = a.json("find", "xray")["facilities"]
        assert (found["listed_name"], found["display_name"]) == ("Xray Shack", "Billings Hospital")
    finally:
        stop(impostor)


def test_facility_is_no_peer_of_itself(network: Network, tmp_path: Path) -> None:
    _, a, _ = network
    uid = import_study(a, tmp_path, 53)
    before = [p["facility_id"] for p in a.json("peers")["peers"]]
    for name in ("Great Falls Clinic", facility_id(a)):
        with pytest.raises(CommandFailed, match="the facility named is this one"):
            a.run("send", uid, name)
    assert [p["facility_id"] for p in a.json("peers")["peers"]] == before


def test_letter_works_once_and_for_one_facility(network: Network, tmp_path: Path) -> None:
    directory, a, _ = network
    letter = directory.invite("Sun River Clinic")
    first, second = (make_node(tmp_path, name, name.title()) for name in ("first", "second"))
    try:
        first.run("join", letter)
        first.run("join", letter)  # again changes nothing
        with pytest.raises(CommandFailed, match="this facility is already in Montana Imaging"):
            a.run("join", directory.invite("Great Falls Clinic"))
        with pytest.raises(CommandFailed, match="another facility used"):
            second.run("join", letter)
        assert second.json("networks")["networks"] == []
        # Not confirmed yet: no study goes to it.
        uid = import_study(a, tmp_path, 42)
        wait_until(lambda: a.json("find", "first")["facilities"], "first is not announced")
        with pytest.raises(CommandFailed, match="not confirmed yet"):
            a.run("send", uid, facility_id(first))
        [listed] = [
            f for f in directory.json("facilities")["facilities"] if f["name"] == "Sun River Clinic"
        ]
        assert listed["standing"] == "provisional"
        alarms = directory.json("status")["alarms"]
        assert any("wait to be confirmed" in alarm for alarm in alarms)
        assert any("presented the letter of Sun River Clinic" in alarm for alarm in alarms)
    finally:
        stop(first, second)


def test_directory_keeps_nothing_that_it_should_not(network: Network, tmp_path: Path) -> None:
    directory, a, _ = network
    uid = import_study(a, tmp_path, 43)
    a.run("send", uid, "Billings Hospital", "--note", "planted-note", "--wait")
    dump = database_dump(directory)
    assert b"Billings Hospital" in dump  # it is what it should be
    files = [p.read_bytes() for p in directory.home.rglob("*") if p.is_file()]
    content = b"".join([dump, directory.log.read_bytes(), *files])
    # Long ones: three letters are in every few megabytes of ciphertext.
    needles = (uid, "Synthetic^Person", "planted-note")
    assert [needle for needle in needles if needle.encode() in content] == []


def test_directory_that_restarts_knows_everybody_and_they_come_back(network: Network) -> None:
    directory, a, b = network
    directory.kill()
    wait_until(
        lambda: a.json("networks")["networks"][0]["state"] == "unreachable", "still connected"
    )
    with pytest.raises(CommandFailed, match="not reachable"):
        a.run("find", "nowhere")
    directory.start()
    wait_until(
        lambda: (
            directory.json("status")["online"] >= 2
            and a.json("networks")["networks"][0]["state"] == "connected"
        ),
        "they did not come back",
        60,
    )
    found = a.json("find", "billings")["facilities"]
    assert facility_id(b) in {f["facility_id"] for f in found}


def test_revoked_member_is_refused_within_a_minute_and_for_good(
    network: Network, tmp_path: Path
) -> None:
    directory, a, b = network
    c = make_node(tmp_path, "helena", "Helena Hospital", trust='"network"')
    try:
        directory.enroll(c)
        uid = import_study(c, tmp_path, 44)
        c.run("send", uid, "Billings Hospital", "--wait")
        directory.run("revoke", "Helena Hospital", "--network-key", str(directory.key))
        wait_until(
            lambda: any("revoked" in p["problem"] for p in b.json("peers")["peers"]),
            "the receiver did not learn of it",
            60,
        )
        wait_until(
            lambda: c.json("networks")["networks"][0]["standing"] == "revoked",
            "it did not learn of it itself",
            60,
        )
        other = import_study(c, tmp_path, 45)
        with pytest.raises(CommandFailed, match="revoked"):
            c.run("send", other, facility_id(b))
        assert other not in b.run("studies")
        assert a.json("find", "helena")["facilities"] == []
        # Let in again by a new letter, it is trusted as if nothing had been.
        directory.enroll(c)
        c.run("send", other, "Billings Hospital", "--wait")
        assert other in b.run("studies")
    finally:
        stop(c)


def test_revocation_ends_a_transfer_whose_chunks_run(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    port = free_port()
    policy = {"trust": '"network"', "relay": '"never"'}
    a = make_node(tmp_path, "a", "Great Falls Clinic", **policy, announce=NOBODY)
    line = f'["127.0.0.1:{port}"]'
    b = make_node(tmp_path, "b", "Billings Hospital", **policy, announce=line)
    try:
        with SlowLine(port, int(b.addresses["peer"].rpartition(":")[2]), rate=0.5e6):
            directory.enroll(a, b)
            write_noisy_study(tmp_path / "study", 54)  # 20 MB: 40 s on this line
            a.run("import", str(tmp_path / "study"))
            a.run("send", study_uid(54), "Billings Hospital")

            def transfer(node: Node) -> dict[str, str]:
                found: list[dict[str, str]] = node.json("transfers")["transfers"]
                return found[0] if found else {"state": ""}

            wait_until(lambda: transfer(b)["state"] == "carrying", "nothing is carried", 60)
            directory.run("revoke", "Great Falls Clinic", "--network-key", str(directory.key))
            wait_until(
                lambda: all("revoked" in n.json("peers")["peers"][0]["problem"] for n in (a, b)),
                "they did not learn of it",
                60,
            )
            done = transfer(b)["bytes_done"]
            assert int(done) < int(transfer(b)["bytes_total"])
            for _ in range(20):
                assert transfer(b)["bytes_done"] == done  # not one chunk more
            assert {transfer(node)["state"] for node in (a, b)} & {"delivered", "received"} == set()
        assert study_uid(54) not in b.run("studies")
    finally:
        stop(a, b, directory)


def test_paired_nodes_exchange_while_the_directory_is_away(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic")
    b = make_node(tmp_path, "b", "Billings Hospital")
    try:
        directory.enroll(a, b)
        a.run("peers", "pair", facility_id(b))
        b.run("peers", "pair", facility_id(a))
        directory.kill()
        for node in (a, b):
            node.stop()
            node.start()
        uid = import_study(a, tmp_path, 46)
        a.run("send", uid, "Billings Hospital", "--wait")
        assert uid in b.run("studies")
    finally:
        stop(a, b)


def test_member_that_was_seen_is_found_and_sent_to_while_the_directory_is_away(
    tmp_path: Path,
) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"', city='"Billings"')
    try:
        directory.enroll(a, b)
        wait_until(lambda: a.json("find", "billings")["facilities"], "it is not announced")
        directory.kill()
        for node in (a, b):
            node.stop()
            node.start()
        [found] = a.json("find", "bilings")["facilities"]
        assert (found["listed_name"], found["standing"]) == ("Billings Hospital", "member")
        assert int(found["seen_seconds"]) > 0
        assert not found["online"]
        assert "seen 20" in a.run("find", "bilings")
        assert a.json("peers")["peers"] == []  # they have never met
        uid = import_study(a, tmp_path, 50)
        a.run("send", uid, "Billings Hospital", "--wait")
        assert uid in b.run("studies")
    finally:
        stop(a, b)


def audit_kinds(node: Node) -> set[str]:
    return {entry["kind"] for entry in node.json("audit", "--limit", "0")["entries"]}


def back_at(directory: Directory, *nodes: Node) -> None:
    """Wait until nodes are members, and at a directory, and show no problem with it."""
    for node in nodes:
        wait_until(
            lambda node=node: (
                [(n["standing"], n["state"]) for n in node.json("networks")["networks"]]
                == [("member", "connected")]
            ),
            f"{node.display_name} did not come back",
            90,
        )
    names = {f["name"] for f in directory.json("facilities")["facilities"]}
    assert names >= {node.display_name for node in nodes}


@pytest.mark.slow
def test_directory_that_lost_everything_but_the_network_key_is_made_anew(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"')
    gone = make_node(tmp_path, "c", "Helena Hospital", trust='"network"')
    try:
        directory.enroll(a, b, gone)
        directory.run("revoke", "Helena Hospital", "--network-key", str(directory.key))
        wait_until(lambda: a.json("networks")["networks"][0]["list_number"] == 2, "no list came")
        directory.kill()
        shutil.rmtree(directory.home)
        directory.make()
        directory.start()
        back_at(directory, a, b)
        assert directory.json("status")["list_number"] == 2
        uid = import_study(a, tmp_path, 51)
        a.run("send", uid, "Billings Hospital", "--wait")
        assert uid in b.run("studies")
        # Who was revoked does not come back with the others.
        wait_until(
            lambda: gone.json("networks")["networks"][0]["standing"] == "revoked",
            "it did not learn of it",
            60,
        )
        names = [f["name"] for f in directory.json("facilities")["facilities"]]
        assert sorted(names) == ["Billings Hospital", "Great Falls Clinic"]
        directory.sign_list()
        wait_until(lambda: b.json("networks")["networks"][0]["list_number"] == 3, "no list came")
        assert not any("alarm" in kind for kind in audit_kinds(a))
    finally:
        stop(directory, a, b, gone)


def test_directory_comes_back_from_an_older_copy_of_its_home(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"')
    try:
        directory.enroll(a)
        assert directory.stop() == 0
        backup = tmp_path / "backup"
        shutil.copytree(directory.home, backup)
        directory.start()
        directory.enroll(b)
        directory.kill()
        shutil.rmtree(directory.home)
        backup.rename(directory.home)
        directory.start()
        back_at(directory, a, b)
        assert directory.json("status")["list_number"] == 2
        # It had gone back, and that is not kept from anybody.
        assert "alarm.directory" in audit_kinds(a) | audit_kinds(b)
    finally:
        stop(directory, a, b)


def metrics_at(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics") as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (x.split() for x in lines if x[0] != "#")}


def test_metrics_of_a_directory_and_of_a_relay_alone_are_numbers_and_name_nobody(
    tmp_path: Path,
) -> None:
    directory = Directory(tmp_path)
    directory.make()
    address, alone = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = directory.home / "directory.toml"
    text = config.read_text()
    config.write_text(text.replace('# listen = ""', f'listen = "{address}"'))
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic")
    key = tomllib.loads(text)["network"]["key"]
    relay = f"127.0.0.1:{free_port()}"
    options = ("--address", relay, "--listen", relay, "--network", key, "--metrics", alone)
    command = directory.command("relay", *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b"relay serves" in process.stderr.readline()
            directory.enroll(a)
            found = metrics_at(address)
            assert found["emix_directory_online"] == found["emix_directory_facilities"] == 1
            assert found["emix_directory_database_away"] == found["emix_directory_alarms"] == 0
            status = directory.json("status")
            for what in ("certificate", "list"):
                seconds = found[f"emix_directory_{what}_expires_seconds"]
                assert seconds == float(status[f"{what}_expires_seconds"]) > 0
            with socket.create_connection(("127.0.0.1", int(relay.rpartition(":")[2]))) as one:
                one.sendall(b"\0\4noise")
                assert one.recv(100)
            assert metrics_at(alone) == {
                "emix_directory_relay_pairs": 0,
                "emix_directory_relay_open_pairs": 0,
                "emix_directory_relay_bytes": 0,
                "emix_directory_relay_refused": 1,
                "emix_directory_alarms": 0,
            }
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            stop(a, directory)


def test_removal_by_a_person_holds_against_the_network(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"')
    try:
        directory.enroll(a, b)
        uid = import_study(a, tmp_path, 47)
        a.run("send", uid, "Billings Hospital", "--wait")
        b.run("peers", "remove", "Great Falls Clinic", "--yes")
        other = import_study(a, tmp_path, 48)
        a.run("send", other, "Billings Hospital")
        wait_until(
            lambda: a.json("peers")["peers"][0]["state"] == "unreachable", "it is connected still"
        )
        assert other not in b.run("studies")
        with pytest.raises(CommandFailed, match="removed here"):
            b.run("send", uid, facility_id(a))
        assert b.json("peers")["peers"][0]["state"] == "removed"
    finally:
        stop(directory, a, b)


def test_member_is_not_enough_where_only_paired_facilities_are_trusted(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital")
    try:
        directory.enroll(a, b)
        uid = import_study(a, tmp_path, 49)
        a.run("send", uid, "Billings Hospital")  # waits until b pairs
        with pytest.raises(CommandFailed, match="is a member of Montana Imaging") as refused:
            b.run("send", uid, "Great Falls Clinic", statuses=())
        assert f"Pair here with `emix peers pair {facility_id(a)}`, and there" in str(refused.value)
        wait_until(lambda: a.json("peers")["peers"][0]["state"] == "unreachable", "it is connected")
        wait_until(
            lambda: "there: `emix peers pair`" in a.json("transfers")["transfers"][0]["reason"],
            "it does not say what to do on which side",
        )
        assert b.json("peers")["peers"] == []
        b.run("peers", "pair", facility_id(a))
        wait_until(lambda: uid in b.run("studies"), "it did not arrive after pairing")
    finally:
        stop(directory, a, b)
