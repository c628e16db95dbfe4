"""A broken-into relay: it sees ciphertext only, and whatever it does, the study arrives whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_kills import write_noisy_study
from tests.integration.test_planted import STUDY, plant
from tests.support.dicom_files import study_uid
from tests.support.dumps import database_dump
from tests.support.hostile_relay import HostileRelay
from tests.support.nodes import Directory, Node, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NOBODY = '["127.0.0.1:1"]'


class Pair:
    """Two paired nodes that reach each other through a hostile relay only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = Directory(folder)
        real = f"127.0.0.1:{free_port()}"
        self.relay = HostileRelay(real)
        # The relay's name is where the hostile one stands; the right one is behind it.
        key = ("--name", "Montana", "--network-key", str(self.directory.key))
        addresses = ("--endpoint", self.directory.address, "--listen", self.directory.address)
        relays = ("--relay-listen", real, "--relay", self.relay.address)
        self.directory.run("init", *key, *addresses, *relays)
        self.directory.start()
        self.a = Node(folder, "great-falls", "Great Falls Clinic")
        self.b = Node(folder, "billings", "Billings Hospital")
        for node in (self.a, self.b):
            node.make()
            node.set(announce=NOBODY)
            node.start()
        self.directory.enroll(self.a, self.b)
        ids = [node.json("id")["facility_id"] for node in (self.a, self.b)]
        self.a.run("peers", "pair", ids[1])
        self.b.run("peers", "pair", ids[0])
        self.wait_relayed()

    def wait_relayed(self) -> None:
        def is_relayed() -> bool:
            [peer] = self.a.json("peers")["peers"]
            return (peer["state"], peer["route"]) == ("connected", "relay")

        wait_until(is_relayed, "no way by relay was found", 60)

    def restart(self) -> None:
        """Have nodes that wait for long after many failures begin anew."""
        for node in (self.a, self.b):
            assert node.stop() == 0
            node.start()
        self.wait_relayed()

    def relay_alarms(self) -> int:
        """Return how many alarms the nodes have raised about what the relay did to bytes."""
        return self.has_told("altered")

    def has_told(self, text: str) -> int:
        """Return how many alarms with a text the nodes have raised."""
        logs = [node.log.read_text().splitlines() for node in (self.a, self.b)]
        lines = [line for log in logs for line in log if '"directory alarm"' in line]
        return sum(text in line for line in lines)

    def acknowledge(self) -> None:
        """Have an admin of both nodes see what there is."""
        for node in (self.a, self.b):
            node.run("audit", "acknowledge")

    def is_shown(self, text: str) -> bool:
        """Whether an admin of one of the nodes is shown an alarm."""
        alarms = [a for node in (self.a, self.b) for a in node.json("status")["alarms"]]
        return any(alarm.startswith("directory: ") and text in alarm for alarm in alarms)

    def arrives(self, study: int) -> None:
        """Send a study, and hold that it comes out byte for byte."""
        source, out = self.folder / f"in{study}", self.folder / f"out{study}"
        digests = write_noisy_study(source, study)
        self.a.run("import", str(source))
        self.a.run("send", study_uid(study), "Billings Hospital", "--wait")
        self.b.run("export", study_uid(study), str(out))
        found = sorted(p.read_bytes() for p in out.rglob("*") if p.is_file())
        assert found == sorted((source / name).read_bytes() for name in digests)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("relay"))
    try:
        yield pair
    finally:
        statuses = [server.stop() for server in (pair.a, pair.b, pair.directory)]
        pair.relay.close()
    assert statuses == [0, 0, 0]


def test_relay_and_directory_see_none_of_two_hundred_planted_strings(pair: Pair) -> None:
    source = pair.folder / "planted"
    planted = plant(source)
    assert planted.found_in([source]) == set(planted.needles)  # the scanner finds them all
    pair.a.run("import", str(source))
    uid = study_uid(STUDY)
    pair.a.run("send", uid, "Billings Hospital", "--wait", "--yes")
    capture = pair.folder / "capture"
    capture.mkdir()
    (capture / "relay").write_bytes(pair.relay.recorded)
    [sent] = pair.a.json("transfers")["transfers"]
    assert len(pair.relay.recorded) > int(sent["bytes_total"])
    (capture / "dump").write_bytes(database_dump(pair.directory))
    assert b"Great Falls Clinic" in (capture / "dump").read_bytes()  # it is what it should be
    assert planted.found_in([capture, pair.directory.home]) == set()
    assert uid.encode() not in pair.relay.recorded
    planted_log = pair.directory.log.read_bytes()
    assert not [n for n, forms in planted.needles.items() if any(f in planted_log for f in forms)]


@pytest.mark.parametrize(
    ("study", "what"),
    [(101, "flips"), (102, "drops"), (103, "adds"), (104, "swaps"), (105, "repeats")],
)
def test_study_arrives_whole_whatever_a_relay_does_to_its_bytes(
    pair: Pair, study: int, what: str
) -> None:
    pair.wait_relayed()
    pair.acknowledge()
    told = pair.relay_alarms()

    def alter(data: bytes, count: int) -> bytes:
        # In the middle of the chunks, until somebody notices; then it behaves.
        if pair.relay_alarms() > told or count < 500_000:
            return data
        middle = len(data) // 2
        match what:
            case "flips":
                return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            case "drops":
                return data[:middle] + data[middle + 1 :]
            case "adds":
                return data[:middle] + b"\0" + data[middle:]
            case "swaps":
                return data[middle:] + data[:middle]
        return data + data

    pair.relay.alter = alter
    try:
        # An admin sees it: at once, or at the third time where it looks like breaking off. One
        # study may have arrived before that.
        for more in range(4):
            altered = pair.relay.altered
            pair.arrives(study + 100 * more)
            assert pair.relay.altered > altered or pair.relay_alarms() > told
            if pair.relay_alarms() > told:
                break
        wait_until(lambda: pair.is_shown("altered"), "nobody was told")
    finally:
        pair.relay.alter = lambda data, _: data


def test_study_arrives_though_the_relay_breaks_off_again_and_again(pair: Pair) -> None:
    pair.restart()
    pair.acknowledge()
    cuts = 0
    told = pair.has_told("3 connections by the relay")  # in the log of the tests before

    def alter(data: bytes, count: int) -> bytes:
        nonlocal cuts
        # Each side notices those that it made itself; the third that it notices is told of.
        if count > 1_000_000 and cuts < 12 and pair.has_told("3 connections by the relay") == told:
            cuts += 1
            pair.relay.cut()
        return data

    pair.relay.alter = alter
    try:
        pair.arrives(106)
        assert cuts >= 3
        wait_until(lambda: pair.is_shown("3 connections by the relay"), "nobody was told")
    finally:
        pair.relay.alter = lambda data, _: data


def test_relay_that_joins_a_node_with_somebody_else_is_found_out(pair: Pair) -> None:
    pair.restart()
    pair.acknowledge()
    stranger = Node(pair.folder, "stranger", "Stranger")
    stranger.make()
    stranger.start()
    try:
        pair.relay.elsewhere = stranger.addresses["peer"]
        pair.relay.cut()

        wait_until(lambda: pair.is_shown("connected another facility"), "nobody noticed", 90)
        states = [n.json("peers")["peers"][0]["state"] for n in (pair.a, pair.b)]
        assert "connected" not in states
    finally:
        pair.relay.elsewhere = None
        assert stranger.stop() == 0
    pair.restart()
    pair.arrives(107)
