"""Hospitals behind firewalls of their own: the study arrives, by whichever way there is."""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.test_kills import write_noisy_study
from tests.support.dicom_files import study_uid
from tests.support.namespaces import Hosts, hosts
from tests.support.nodes import CommandFailed, Directory, Node, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.slow]
MIB = 2**20
ROOT = Path(__file__).parents[2]


class Hospitals:
    """A directory with a relay, and two nodes that drop everything inbound."""

    def __init__(self, folder: Path, network: Hosts) -> None:
        self.network = network
        self.directory = Directory(folder, host=network.address["directory"])
        self.a = Node(folder, "great-falls", "Great Falls Clinic")
        self.b = Node(folder, "billings", "Billings Hospital")
        network.put(self.directory, "directory")
        for node, name in ((self.a, "a"), (self.b, "b")):
            node.make(network.address[name])
            network.put(node, name)
            network.firewall(name)

    def enroll(self) -> None:
        """Start them all, and have both nodes join."""
        self.directory.start()
        self.a.start()
        self.b.start()
        self.directory.enroll(self.a, self.b)

    def start(self) -> None:
        """Start them all, and pair the nodes."""
        self.enroll()
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
        found.directory.make()
        try:
            found.start()
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


@pytest.mark.parametrize(("route", "relay"), [("relay", '"allowed"'), ("dial-back", '"never"')])
def test_members_that_never_met_meet_where_the_receiver_cannot_be_dialled(
    route: str, relay: str, tmp_path: Path
) -> None:
    with hosts("directory", "a", "b") as network:
        hospitals = Hospitals(tmp_path, network)
        hospitals.directory.make()
        for node in (hospitals.a, hospitals.b):
            node.set(trust='"network"', relay=relay)
        if route == "dial-back":
            network.open("a")
        try:
            hospitals.enroll()
            assert hospitals.b.json("peers")["peers"] == []  # nobody there has heard of a
            assert hospitals.send(tmp_path, 1) == route
            assert [p["pinned_how"] for p in hospitals.b.json("peers")["peers"]] == ["network"]
        finally:
            hospitals.stop()


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


@contextmanager
def relays_of_their_own(hospitals: Hospitals, *names: str) -> Iterator[list[ExitStack]]:
    """Have the network's only relays be processes of their own, where HTTPS is expected.

    Yields:
        What stops each.
    """
    directory, network = hospitals.directory, hospitals.network
    addresses = [f"{network.address[name]}:443" for name in names]
    directory.address, directory.relay = f"{network.address['directory']}:443", ""
    directory.make(*(option for address in addresses for option in ("--relay", address)))
    settings = tomllib.loads((directory.home / "directory.toml").read_text())
    key = settings["network"]["key"]
    with ExitStack() as all_of_them:
        stacks = [all_of_them.enter_context(ExitStack()) for _ in names]
        for stack, name, address in zip(stacks, names, addresses, strict=True):
            options = ("--address", address, "--listen", address, "--network", key)
            running = network.running(name, *directory.command("relay", *options))
            stack.enter_context(running)
        yield stacks


def test_hospitals_that_let_out_to_port_443_only_exchange_by_relay(tmp_path: Path) -> None:
    with hosts("directory", "relay", "a", "b") as network:
        hospitals = Hospitals(tmp_path, network)
        for name in ("a", "b"):
            network.only_out_to(name, 443)
        with relays_of_their_own(hospitals, "relay"):
            try:
                hospitals.start()
                wait_until(connected(hospitals, "relay"), "no way by relay was found", 60)
                assert hospitals.send(tmp_path, 1) == "relay"
            finally:
                hospitals.stop()


def test_running_transfer_goes_on_over_another_relay_before_one_stops(tmp_path: Path) -> None:
    with hosts("directory", "relay", "other", "a", "b") as network:
        hospitals = Hospitals(tmp_path, network)
        with relays_of_their_own(hospitals, "relay", "other") as stops:
            try:
                hospitals.start()
                a, b = hospitals.a, hospitals.b
                wait_until(connected(hospitals, "relay"), "no way by relay was found", 60)
                write_noisy_study(tmp_path / "study", 3)
                a.run("import", str(tmp_path / "study"))
                network.slow("a", "8mbit")  # 20 MB take some twenty seconds
                a.run("send", study_uid(3), "Billings Hospital")

                def sent() -> dict[str, str]:
                    found: dict[str, str] = a.json("transfers")["transfers"][0]
                    return found

                def relays() -> set[str]:  # whoever of the two dialled knows
                    peers = [p for node in (a, b) for p in node.json("peers")["peers"]]
                    return {p["endpoint"] for p in peers if p["endpoint"].endswith(":443")}

                wait_until(lambda: int(sent()["bytes_carried"]) > 2 * MIB, "nothing went")
                [first] = relays()
                names = ["relay", "other"]
                stopped = [f"{network.address[name]}:443" for name in names].index(first)
                stops[stopped].close()
                wait_until(lambda: relays() - {first}, "they did not go to the other", 30)
                wait_until(lambda: sent()["state"] == "delivered", "it did not arrive", 120)
                assert sent()["route"] == "relay"
                assert int(sent()["bytes_carried"]) <= int(sent()["bytes_total"]) + 16 * MIB
                assert study_uid(3) in b.run("studies")
                leaving = '"the relay asks us to leave"'
                assert leaving in a.log.read_text() + b.log.read_text()
            finally:
                hospitals.stop()


def documented_proxy(host: str) -> str:
    """Return the HAProxy configuration of docs/operations-directory.md, for an address."""
    page = (ROOT / "docs/operations-directory.md").read_text()
    [example] = [part for part in page.split("```") if part.lstrip().startswith("frontend")]
    defaults = "defaults\n    timeout client 2h\n    timeout connect 5s\n"
    return defaults + example.replace("bind :443", f"bind {host}:443") + "\n"


def test_directory_and_relay_share_one_port_behind_the_documented_proxy(tmp_path: Path) -> None:
    with hosts("directory", "a", "b") as network:
        hospitals = Hospitals(tmp_path, network)
        for name in ("a", "b"):
            network.only_out_to(name, 443)
        host, directory = network.address["directory"], hospitals.directory
        inside, directory.relay = "127.0.0.1:7420", ""
        directory.address = f"{host}:443"
        options = ("--listen", inside, "--relay-listen", "127.0.0.1:7421", "--relay", f"{host}:443")
        directory.make(*options)
        settings = tmp_path / "haproxy.cfg"
        settings.write_text(documented_proxy(host))
        with network.running("directory", "haproxy", "-q", "-db", "-f", settings):
            try:
                hospitals.start()
                wait_until(connected(hospitals, "relay"), "no way by relay was found", 60)
                assert hospitals.send(tmp_path, 1) == "relay"
            finally:
                hospitals.stop()


_TINYPROXY = """
Port 3128
Listen {host}
Timeout 600
MaxClients 100
BasicAuth hospital {password}
ConnectPort 443
LogFile "{log}"
"""


def test_hospital_whose_only_way_out_is_a_proxy_with_a_password_exchanges_by_relay(
    tmp_path: Path,
) -> None:
    with hosts("directory", "relay", "proxy", "a", "b") as network:
        hospitals = Hospitals(tmp_path, network)
        network.only_out_to("a", 3128)
        network.only_out_to("b", 443)
        host, log = network.address["proxy"], tmp_path / "proxy.log"
        settings, credentials = tmp_path / "proxy.conf", tmp_path / "proxy.password"
        settings.write_text(_TINYPROXY.format(host=host, password="right-1", log=log))
        credentials.write_text("hospital:wrong-1\n")
        credentials.chmod(0o600)
        a = hospitals.a
        a.set(credentials=f'"{credentials}"')
        config = a.home / "emix.toml"
        text = config.read_text()
        config.write_text(text.replace('# address = ""', f'address = "{host}:3128"'))
        with (
            relays_of_their_own(hospitals, "relay"),
            network.running("proxy", "tinyproxy", "-d", "-c", settings),
        ):
            try:
                hospitals.directory.start()
                a.start()
                letter = hospitals.directory.invite(a.display_name)
                with pytest.raises(CommandFailed, match=r"credentials in emix\.toml"):
                    a.run("join", letter)
                assert a.stop() == 0
                hospitals.directory.stop()
                credentials.write_text("hospital:right-1\n")
                hospitals.start()
                wait_until(connected(hospitals, "relay"), "no way by relay was found", 60)
                assert hospitals.send(tmp_path, 1) == "relay"
                carried = log.read_text()
                for name in ("directory", "relay"):
                    assert f"CONNECT {network.address[name]}:443" in carried
                logs = a.log.read_text() + hospitals.b.log.read_text()
                assert "right-1" not in logs
                assert "wrong-1" not in logs
            finally:
                hospitals.stop()


def test_nodes_of_one_network_find_each_other_without_anybody_else(tmp_path: Path) -> None:
    with hosts("a", "b", are_neighbours=True) as network:
        a = Node(tmp_path, "a", "Great Falls Clinic")
        b = Node(tmp_path, "b", "Billings Hospital")
        try:
            for node, name in ((a, "a"), (b, "b")):
                node.make(network.address[name])
                node.set(announce='["127.0.0.1:1"]', announce_introduction='["127.0.0.1:1"]')
                network.put(node, name)
                node.start()
            ids = [node.json("id")["facility_id"] for node in (a, b)]

            def pairs(node: Node, other: str) -> bool:
                try:
                    node.run("peers", "pair", other)
                except CommandFailed:  # it was not heard of yet
                    return False
                return True

            wait_until(lambda: pairs(a, ids[1]), "b was not found")
            wait_until(lambda: pairs(b, ids[0]), "a was not found")
            for node in (a, b):
                wait_until(
                    lambda node=node: (
                        [(p["state"], p["route"]) for p in node.json("peers")["peers"]]
                        == [("connected", "lan")]
                    ),
                    "they do not meet on their network",
                )
            write_noisy_study(tmp_path / "study", 5)
            a.run("import", str(tmp_path / "study"))
            a.run("send", study_uid(5), "Billings Hospital", "--wait")
            for restarted in (False, True):  # what is known of a transfer outlives the node
                if restarted:
                    assert a.stop() == 0
                    a.start()
                [sent] = a.json("transfers")["transfers"]
                assert (sent["route"], int(sent["bytes_a_second"]) > MIB) == ("lan", True)
            [got] = b.json("transfers")["transfers"]
            assert got["route"] in ("lan", "direct")
            assert int(got["bytes_a_second"]) > MIB
            wait_until(
                # Not only because the other side has dialled: that tells no time.
                lambda: float(a.json("peers")["peers"][0]["round_trip_milliseconds"]) > 0,
                "it did not come back",
                60,
            )
            [peer] = a.json("peers")["peers"]
            assert peer["state"] == "connected"
            assert peer["bytes_a_second"] == sent["bytes_a_second"]
            assert "/s" in a.run("peers")
            assert "/s" in a.run("transfers")
            # It comes back elsewhere, and is found there.
            assert b.stop() == 0
            network.move("b", 9)
            config = b.home / "emix.toml"
            config.write_text(config.read_text().replace(network.before["b"], network.address["b"]))
            b.start()
            wait_until(
                lambda: a.json("peers")["peers"][0]["endpoint"] == b.addresses["peer"],
                "b was not found again",
                60,
            )
        finally:
            assert (a.stop(), b.stop()) == (0, 0)
