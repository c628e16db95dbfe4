"""Two hospitals behind firewalls of their own: the study arrives, by whichever way there is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.nodes import Directory, Node, wait_until
from tests.dicom_files import study_uid
from tests.integration.namespaces import Hosts, hosts
from tests.integration.test_kills import write_noisy_study

pytestmark = pytest.mark.integration
MIB = 2**20


class Hospitals:
    """A directory with a relay, and two nodes that drop everything inbound."""

    def __init__(self, folder: Path, network: Hosts) -> None:
        self.network = network
        self.directory = Directory(folder, host=network.address["directory"])
        self.a = Node(folder, "great-falls", "Great Falls Clinic")
        self.b = Node(folder, "billings", "Billings Hospital")
        network.put(self.directory, "directory")
        self.directory.make()
        self.directory.start()
        for node, name in ((self.a, "a"), (self.b, "b")):
            node.make(network.address[name])
            network.put(node, name)
            network.firewall(name)
            node.start()
        self.directory.enroll(self.a, self.b)
        ids = [node.json("id")["facility_id"] for node in (self.a, self.b)]
        self.a.run("peers", "pair", ids[1])
        self.b.run("peers", "pair", ids[0])

    def route(self, node: Node) -> str:
        [peer] = node.json("peers")["peers"]
        return str(peer["route"]) if peer["state"] == "connected" else ""

    def send(self, source: Path, study: int) -> str:
        """Have a send a study to b to the end; return its route."""
        write_noisy_study(source / f"{study}", study)
        self.a.run("import", str(source / f"{study}"))
        self.a.run("send", study_uid(study), "Billings Hospital", "--wait")
        [sent] = [
            t
            for t in self.a.json("transfers")["transfers"]
            if t["study_instance_uid"] == study_uid(study)
        ]
        assert study_uid(study) in self.b.run("studies")
        return str(sent["route"])

    def stop(self) -> None:
        for server in (self.a, self.b, self.directory):
            assert server.stop() == 0


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    with hosts("directory", "a", "b") as network:
        found = Hospitals(tmp_path, network)
        try:
            yield found
        finally:
            found.stop()


def connected(hospitals: Hospitals, *routes: str) -> Callable[[], bool]:
    return lambda: hospitals.route(hospitals.a) in routes


def test_study_goes_by_relay_where_nobody_can_dial_and_better_once_somebody_can(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    wait_until(connected(hospitals, "relay"), "no way by relay was found", 60)
    assert hospitals.send(tmp_path, 1) == "relay"
    hospitals.network.open("a")
    # b can dial now: a is reached through the connection that b has made.
    wait_until(connected(hospitals, "dial-back"), "the better way was not taken", 90)
    assert hospitals.send(tmp_path, 2) == "dial-back"
    hospitals.network.open("b")
    wait_until(connected(hospitals, "direct"), "the best way was not taken", 90)
    assert hospitals.send(tmp_path, 3) == "direct"
    assert int(hospitals.directory.json("status")["relay_bytes"]) > 0


def test_running_transfer_moves_to_a_better_way_and_loses_nothing(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    a, b, directory = hospitals.a, hospitals.b, hospitals.directory
    wait_until(connected(hospitals, "relay"), "no way by relay was found", 60)
    write_noisy_study(tmp_path / "study", 9)
    a.run("import", str(tmp_path / "study"))
    hospitals.network.slow("a", "6mbit")  # 20 MB take half a minute
    a.run("send", study_uid(9), "Billings Hospital")

    def relayed() -> int:
        return int(directory.json("status")["relay_bytes"])

    def sent() -> dict[str, str]:
        found: dict[str, str] = a.json("transfers")["transfers"][0]
        return found

    before = relayed()
    wait_until(lambda: relayed() - before > 2 * MIB, "nothing went by relay")
    hospitals.network.open("b")
    wait_until(lambda: sent()["state"] == "delivered", "it did not arrive", 120)
    transfer = sent()
    total = int(transfer["bytes_total"])
    assert transfer["route"] == "direct"
    assert 2 * MIB < relayed() - before < total  # the rest went another way
    assert int(transfer["bytes_carried"]) <= total + 16 * MIB
    assert study_uid(9) in b.run("studies")
