"""Several directory processes on one PostgreSQL: any serves any node, and any may die."""

import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import trio

from directory_service.home import Home, bus_key
from directory_service.operator import OperatorKey, known_list
from directory_service.postgres import channel_of, open_postgres
from directory_service.storage import Storage
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Directory, Node, free_port, wait_until
from tests.support.postgres import Postgres, running_postgres

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Processes:
    """Three processes of one directory, and nodes that know all three."""

    def __init__(self, folder: Path, database: Postgres, limits: str) -> None:
        self.folder = folder
        self.database = database
        first = Directory(folder, "one")
        others = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        key = ("--name", "Montana", "--network-key", str(first.key))
        addresses = [a for one in (first.address, *others) for a in ("--endpoint", one)]
        first.run("init", *key, *addresses, "--listen", first.address, "--database", database.url)
        settings = first.home / "directory.toml"
        settings.write_text(settings.read_text().replace("# strangers_a_minute = 120", limits))
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


@contextmanager
def running_processes(
    folder: Path, limits: str = "# strangers_a_minute = 120"
) -> Iterator[Processes]:
    """Run three for the time of the block."""
    with running_postgres(Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}") as database:
        found = Processes(folder, database, limits)
        try:
            yield found
        finally:
            for process in found.all:
                process.stop()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with running_processes(tmp_path) as found:
        yield found


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
        # Whoever knows where they listen can notify; that changes nothing, and ends nobody.
        channel = channel_of(bus_key(Home(first.home).key()))
        with psycopg.connect(processes.database.url, autocommit=True) as stranger:
            for text in ('["x","member",[],""]', '["x","tell",["00"],""]', "[" * 2000, "", "x"):
                stranger.execute("SELECT pg_notify(%s, %s)", (channel, text))
            encoding = stranger.execute("SHOW server_encoding").fetchone()
            assert encoding == (b"SQL_ASCII",)  # else the next would be refused
            stranger.execute(
                "SELECT pg_notify(%s, convert_from('\\xfffe', 'SQL_ASCII'))", (channel,)
            )
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


def list_numbers(processes: Processes) -> set[str]:
    return {str(p.json("status")["list_number"]) for p in processes.all}


def test_what_a_process_kept_and_could_not_tell_is_found_by_the_others(
    processes: Processes,
) -> None:
    first = processes.all[0]
    first.sign_list()
    wait_until(lambda: list_numbers(processes) == {"1"}, "the list is not with all of them")
    operator = OperatorKey.read(first.key)
    latest = known_list(first.key, operator, time.time())
    encoded = operator.next_list(latest, (), (), time.time())

    async def keep() -> None:  # as one that dies before it can tell
        engine = await open_postgres(processes.database.url, b"another key")
        await Storage(engine).put_list((1, 2), encoded)
        await engine.aclose()

    trio.run(keep)
    wait_until(lambda: list_numbers(processes) == {"2"}, "it was not found", 60)


def test_process_that_was_frozen_and_database_that_ends_connections_leave_no_ghosts(
    processes: Processes, tmp_path: Path
) -> None:
    a = make_node(tmp_path, "a", "Great Falls Clinic")
    b = make_node(tmp_path, "b", "Billings Hospital")
    try:
        processes.all[0].enroll(a, b)

        def online() -> list[int]:
            return [int(p.json("status")["online"]) for p in processes.all]

        wait_until(lambda: online() == [2, 2, 2], "they do not agree", 60)
        victim = processes.of(a)
        assert victim.process is not None
        others = [p for p in processes.all if p is not victim]
        here = 1 + (processes.of(b) is victim)
        victim.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(
                lambda: all(int(p.json("status")["online"]) == 2 - here for p in others),
                "a silent process is not noticed",
                60,
            )
        finally:
            victim.process.send_signal(signal.SIGCONT)
        wait_until(lambda: online() == [2, 2, 2], "they do not agree any more", 90)
        with psycopg.connect(processes.database.url, autocommit=True) as operator:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
            b.kill()
        wait_until(lambda: online() == [1, 1, 1], "a ghost is left", 90)
        b.start()
        wait_until(lambda: online() == [2, 2, 2], "it is not seen again", 90)
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
        assert '"directory asks this node to move"' in a.log.read_text()
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


def _joins(node: Node, letter: str) -> bool:
    try:
        node.run("join", letter)
    except CommandFailed:
        return False
    return True
