"""Several directory processes on one PostgreSQL: any serves any node, and any may die."""

import itertools
import random
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb

from bench.nodes import CommandFailed, Directory, Node, free_port, two_nodes, wait_until
from bench.simulated import METHODS, SimulatedNode, connected
from bench.slow_line import SlowLine, only_through
from directory_service.operator import OperatorKey
from node.errors import NodeError
from tests.dicom_files import study_uid, write_study
from tests.directory_service.postgres import Postgres, running_postgres
from tests.integration.loop import call_soon, run
from tests.integration.test_kills import write_noisy_study

pytestmark = pytest.mark.integration


class Processes:
    """Three processes of one directory, and nodes that know all three."""

    def __init__(self, folder: Path, database: Postgres) -> None:
        self.folder = folder
        self.database = database
        first = Directory(folder, "one")
        others = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        key = ("--name", "Montana", "--network-key", str(first.key))
        addresses = [a for one in (first.address, *others) for a in ("--endpoint", one)]
        first.run("init", *key, *addresses, "--listen", first.address, "--database", database.url)
        self.all = [first]
        for name, address in zip(("two", "three"), others, strict=True):
            # The same home, but for where it serves: that is how a process is added.
            shutil.copytree(first.home, folder / name)
            process = Directory(folder, name)
            process.key = first.key
            config = process.home / "directory.toml"
            config.write_text(config.read_text().replace(first.address, address))
            process.address = address
            self.all.append(process)
        for process in self.all:
            process.start()

    def of(self, node: Node) -> Directory:
        """Return the process at which a node is now."""
        [network] = node.json("networks")["networks"]
        assert network["state"] == "connected"
        [found] = [p for p in self.all if p.address == network["endpoint"]]
        return found


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with running_postgres(Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}") as database:
        found = Processes(tmp_path, database)
        try:
            yield found
        finally:
            for process in found.all:
                process.stop()


def make_node(folder: Path, name: str, display_name: str, **settings: str) -> Node:
    node = Node(folder, name, display_name)
    node.make()
    node.set(**settings)
    node.start()
    return node


def is_connected(node: Node) -> bool:
    [network] = node.json("networks")["networks"]
    return bool(network["state"] == "connected")


def finds(node: Node, words: str, *, online: bool) -> bool:
    try:
        found = node.json("find", words)["facilities"]
    except CommandFailed:
        return False
    return [f["online"] for f in found] == [online]


def test_any_process_serves_any_node_and_each_may_die(processes: Processes, tmp_path: Path) -> None:
    first = processes.all[0]
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"')
    try:
        first.enroll(a, b)
        for process in processes.all:
            wait_until(
                lambda p=process: (
                    [f["online"] for f in p.json("facilities")["facilities"]] == [1, 1]
                ),
                f"{process.home.name} does not know who is online",
            )
        # Whoever may connect to the database can notify; that changes nothing, and ends nobody.
        with psycopg.connect(processes.database.url, autocommit=True) as stranger:
            for text in ('["x","member",[],""]', '["x","tell",["00"],""]', "[" * 2000, "", "x"):
                stranger.execute("SELECT pg_notify('emix_directory', %s)", (text,))
        # Each in its turn, with its nodes on it, until both nodes have lost theirs.
        for _ in range(2):
            victim = processes.of(b)
            victim.kill()
            wait_until(lambda: is_connected(b), "it did not find another process", 30)
            wait_until(lambda: is_connected(a), "it did not find another process", 30)
            assert processes.of(b) is not victim
            wait_until(lambda: finds(a, "billings", online=True), "b is not seen", 40)
            victim.start()
        # At different processes: what one asks for reaches the other.
        for _ in range(20):
            if processes.of(a) is not processes.of(b):
                break
            b.stop()
            b.start()
            wait_until(lambda: is_connected(b), "it did not come back")
        assert processes.of(a) is not processes.of(b)
        wait_until(lambda: finds(a, "billings", online=True), "b is not seen")
        write_study(tmp_path / "study", study=61, instances=2)
        a.run("import", str(tmp_path / "study"))
        a.run("send", study_uid(61), "Billings Hospital", "--wait")
        first.run("revoke", "Great Falls Clinic", "--network-key", str(first.key))
        wait_until(
            lambda: "revoked" in b.json("peers")["peers"][0]["problem"],
            "the revocation did not reach the other process",
            60,
        )
        b.stop()
        wait_until(
            lambda: all(
                f["online"] == 0 for p in processes.all for f in p.json("facilities")["facilities"]
            ),
            "b is seen still",
            40,
        )
    finally:
        assert (a.stop(), b.stop()) == (0, 0)


def test_process_that_stops_asks_its_nodes_to_go_to_another_first(
    processes: Processes, tmp_path: Path
) -> None:
    a = make_node(tmp_path, "a", "Great Falls Clinic")
    try:
        processes.all[0].enroll(a)
        before = processes.of(a)
        assert before.stop() == 0
        assert '"directory asks us to move"' in a.log.read_text()
        wait_until(
            lambda: is_connected(a) and processes.of(a) is not before,
            "it did not find another process",
        )
        before.start()
    finally:
        assert a.stop() == 0


def test_nodes_behind_different_processes_meet_at_a_relay(
    processes: Processes, tmp_path: Path
) -> None:
    relay, at = processes.all[0], f"127.0.0.1:{free_port()}"
    for process in processes.all:
        process.stop()
        config = process.home / "directory.toml"
        text = config.read_text().replace("addresses = []", f'addresses = ["{at}"]')
        if process is relay:
            text = text.replace('listen = ""', f'listen = "{at}"', 1)
        config.write_text(text)
        # Nodes go to no relay that the network has not named.
        process.run("renew", "--network-key", str(relay.key))
        process.start()
    nobody = '["127.0.0.1:1"]'
    a = make_node(tmp_path, "a", "Great Falls Clinic", announce=nobody)
    b = make_node(tmp_path, "b", "Billings Hospital", announce=nobody)
    try:
        relay.enroll(a, b)
        for _ in range(20):
            if processes.of(a) is not processes.of(b):
                break
            b.stop()
            b.start()
            wait_until(lambda: is_connected(b), "it did not come back")
        a.run("peers", "pair", b.json("id")["facility_id"])
        b.run("peers", "pair", a.json("id")["facility_id"])
        wait_until(lambda: a.json("peers")["peers"][0]["route"] == "relay", "they did not meet", 60)
    finally:
        assert (a.stop(), b.stop()) == (0, 0)


def test_database_that_is_away_for_a_while_costs_no_enrollment_and_no_transfer(
    processes: Processes, tmp_path: Path
) -> None:
    first = processes.all[0]
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"')
    late = make_node(tmp_path, "late", "Helena Hospital", trust='"network"')
    try:
        first.enroll(a, b)
        letter = first.invite("Helena Hospital")
        processes.database.stop()
        # What is known is answered from memory, and members exchange.
        assert finds(a, "billings", online=True)
        write_study(tmp_path / "study", study=62, instances=2)
        a.run("import", str(tmp_path / "study"))
        a.run("send", study_uid(62), "Billings Hospital", "--wait")
        with pytest.raises(CommandFailed, match="database does not answer"):
            late.run("join", letter)
        processes.database.start()
        wait_until(lambda: _joins(late, letter), "it could not join afterwards", 30)
        first.sign_list()
        wait_until(
            lambda: late.json("networks")["networks"][0]["standing"] == "member",
            "it is not confirmed",
            60,
        )
        for process in processes.all:
            wait_until(
                lambda p=process: len(p.json("facilities")["facilities"]) == 3,
                f"{process.home.name} did not look again",
                30,
            )
            assert {f["standing"] for f in process.json("facilities")["facilities"]} == {"member"}
    finally:
        assert (a.stop(), b.stop(), late.stop()) == (0, 0, 0)


class Load:
    """Facilities that keep joining, and members that keep asking, at whichever process answers."""

    def __init__(self, processes: Processes) -> None:
        self.joined: set[str] = set()
        self.refused = 0
        self.asked = 0
        self._operator = OperatorKey.read(processes.all[0].key)
        self._addresses = [process.address for process in processes.all]
        self._scope = trio.CancelScope()

    async def _keep_joining(self) -> None:
        for n in itertools.count():
            node = SimulatedNode(n, self._operator)
            while True:  # whoever did not hear that it is in asks again
                try:
                    async with connected(self._operator, random.choice(self._addresses)) as channel:
                        await node.join(channel)
                    break
                except NodeError:
                    self.refused += 1
                    await trio.sleep(1)
            self.joined.add(str(node.facility))
            await trio.sleep(1)

    async def _keep_asking(self, address: str) -> None:
        node = SimulatedNode(10**6, self._operator)
        while True:
            try:
                async with connected(self._operator, address) as channel:
                    await node.join(channel)
                    await node.come(channel)
                    while True:
                        request = pb.FindRequest(words="clinic")
                        await channel.unary(METHODS["Find"], request, metadata=node.metadata)
                        self.asked += 1
                        await trio.sleep(0.01)
            except NodeError:
                await trio.sleep(2)

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_joining)
                for address in self._addresses:
                    nursery.start_soon(self._keep_asking, address)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=run, args=(self._run,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        call_soon(self._scope.cancel)
        self._thread.join(30)


def test_a_minute_without_the_database_under_load_loses_no_enrollment_and_no_transfer(
    processes: Processes, tmp_path: Path
) -> None:
    with two_nodes(tmp_path) as (a, b):
        processes.all[0].enroll(a, b)
        port = free_port()
        line = SlowLine(port, int(b.addresses["peer"].rpartition(":")[2]), rate=0.25e6)
        with line, Load(processes) as load:
            only_through(a, b, f"127.0.0.1:{port}")
            write_noisy_study(tmp_path / "study", 63)  # 20 MB: over a minute on this line
            a.run("import", str(tmp_path / "study"))
            a.run("send", study_uid(63), b.display_name)

            def transfer() -> dict[str, str]:
                found: dict[str, str] = a.json("transfers")["transfers"][0]
                return found

            wait_until(lambda: transfer()["state"] == "carrying", "nothing is carried")
            wait_until(lambda: len(load.joined) >= 5, "nobody joins")
            processes.database.stop()
            away = time.monotonic() + 60
            victim = processes.all[1]
            victim.kill()
            before, asked = len(load.joined), load.asked
            wait_until(lambda: load.refused >= 5, "joining did not become impossible")
            assert load.asked > asked + 50  # what is known is answered all the same
            wait_until(lambda: time.monotonic() > away, "a minute is long", 90)
            assert transfer()["state"] in ("carrying", "delivered")
            during = len(load.joined)
            assert during <= before + 2  # those that were under way
            processes.database.start()
            victim.start()
            wait_until(lambda: len(load.joined) >= during + 5, "nobody joins any more", 60)
            wait_until(lambda: transfer()["state"] == "delivered", "it did not arrive", 120)
            assert transfer()["bytes_carried"] == transfer()["bytes_total"]  # nothing twice
        assert study_uid(63) in b.run("studies")
        for process in processes.all:
            wait_until(
                lambda p=process: (
                    load.joined <= {f["facility_id"] for f in p.json("facilities")["facilities"]}
                ),
                f"{process.home.name} has lost an enrollment",
                60,
            )


def _joins(node: Node, letter: str) -> bool:
    try:
        node.run("join", letter)
    except CommandFailed:
        return False
    return True
