"""A minute in which PostgreSQL is away and a process is killed, under load: nothing is lost."""

import itertools
import random
import threading
import time
from pathlib import Path
from typing import Self

import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb
from grpc_health.v1 import health_pb2

from directory_service.operator import OperatorKey
from node.errors import NodeError
from node.rpc.methods import methods
from tests.integration.test_directory_processes import Processes, running_processes
from tests.integration.test_kills import write_noisy_study
from tests.support.dicom_files import study_uid
from tests.support.loop import call_soon, run
from tests.support.nodes import free_port, two_nodes, wait_until
from tests.support.simulated import METHODS, SimulatedNode, connected
from tests.support.slow_line import SlowLine, only_through

_HEALTH = {m.name: m for m in methods(health_pb2.DESCRIPTOR.services_by_name["Health"])}
JOINERS = 6
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.slow]


class Load:
    """Facilities that keep joining, and members that keep asking, at whichever process answers."""

    def __init__(self, processes: Processes) -> None:
        self.joined: set[str] = set()
        self.refused = 0
        self._operator = OperatorKey.read(processes.all[0].key)
        self._addresses = [process.address for process in processes.all]
        self.answered = dict.fromkeys(self._addresses, 0)  # so often, by which process
        self._scope = trio.CancelScope()

    async def _keep_joining(self, first: int) -> None:
        for n in itertools.count(first, JOINERS):
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
            await trio.sleep(0.2)

    async def _keep_asking(self, address: str) -> None:
        node = SimulatedNode(10**6, self._operator)
        while True:
            try:
                async with connected(self._operator, address) as channel:
                    await node.join(channel)
                    await node.come(channel)
                    while True:
                        request = pb.LookupRequest(facility_ids=[node.facility.digest])
                        await channel.unary(METHODS["Lookup"], request, metadata=node.metadata)
                        self.answered[address] += 1
                        await trio.sleep(0.1)
            except NodeError:
                await trio.sleep(2)

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                for n in range(JOINERS):
                    nursery.start_soon(self._keep_joining, n)
                for address in self._addresses:
                    nursery.start_soon(self._keep_asking, address)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=run, args=(self._run,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        call_soon(self._scope.cancel)
        self._thread.join(30)


def health(processes: Processes) -> list[str]:
    """Return how the first process is, and its service."""
    first, found = processes.all[0], []
    operator = OperatorKey.read(first.key)

    async def ask() -> None:
        async with connected(operator, first.address) as channel:
            for service in ("", METHODS["Find"].path.split("/")[1]):
                request = health_pb2.HealthCheckRequest(service=service)
                answer = await channel.unary(_HEALTH["Check"], request)
                found.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    run(ask)
    return found


def test_a_minute_without_the_database_under_load_loses_no_enrollment_and_no_transfer(
    tmp_path: Path,
) -> None:
    with (
        running_processes(tmp_path, "strangers_a_minute = 100000") as processes,
        two_nodes(tmp_path) as (a, b),
    ):
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
            # Killed while some join and others ask, each in its turn.
            for process in processes.all:
                so_far = len(load.joined)
                process.kill()
                wait_until(lambda n=so_far: len(load.joined) > n + 10, "nobody joins elsewhere")
                process.start()
            processes.all[0].sign_list()  # who is not confirmed is told nothing
            # Whoever has not logged in before the database goes cannot, while it is away.
            wait_until(lambda: min(load.answered.values()) > 0, "somebody is not answered", 90)
            processes.database.stop()
            away = time.monotonic() + 60
            victim = processes.all[1]
            victim.kill()
            before, answered = len(load.joined), sum(load.answered.values())
            wait_until(lambda: load.refused >= 5, "joining did not become impossible")
            wait_until(
                lambda: any("database" in x for x in processes.all[0].json("status")["alarms"]),
                "nobody is told that the database is away",
            )
            # What is known is answered all the same.
            wait_until(
                lambda: sum(load.answered.values()) > answered + 50, "nobody is answered", 90
            )
            assert health(processes) == ["SERVING", "NOT_SERVING"]
            wait_until(lambda: time.monotonic() > away, "a minute is long", 90)
            assert transfer()["state"] in ("carrying", "delivered")
            during = len(load.joined)
            assert during <= before + JOINERS  # those that were under way
            processes.database.start()
            victim.start()
            wait_until(lambda: len(load.joined) >= during + 5, "nobody joins any more", 60)
            wait_until(
                lambda: not any("database" in x for x in processes.all[0].json("status")["alarms"]),
                "the alarm stays",
            )
            assert health(processes) == ["SERVING", "SERVING"]
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
