"""A week in which the directory is away, by a clock that the test sets."""

from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Directory, Node, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]
DAYS = (1, 3, 5, 7, 8)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_paired_nodes_exchange_through_a_week_without_the_directory(
    tmp_path: Path, clock: Clock
) -> None:
    directory = Directory(tmp_path)
    a = Node(tmp_path, "great-falls", "Great Falls Clinic")
    b = Node(tmp_path, "billings", "Billings Hospital")
    member = Node(tmp_path, "helena", "Helena Hospital")
    servers = (directory, a, b, member)
    for server in servers:
        clock.put_on(server)
        server.make()
    for node in (a, b, member):
        node.set(trust='"network"')
    try:
        for server in servers:
            server.start()
        directory.enroll(a, b, member)
        ids = {node: node.json("id")["facility_id"] for node in (a, b)}
        a.run("peers", "pair", ids[b])
        b.run("peers", "pair", ids[a])

        def send(day: int, to: str) -> None:
            write_study(tmp_path / f"study{day}", study=day, instances=2)
            a.run("import", str(tmp_path / f"study{day}"))
            a.run("send", study_uid(day), to, "--wait")

        send(100, "Helena Hospital")  # a member that nobody paired with
        assert directory.stop() == 0
        for day in DAYS:
            clock.set_day(day)
            send(day, "Billings Hospital")
            assert study_uid(day) in b.run("studies")
        # What the network's word alone stood for has ended with its list.
        [network] = a.json("networks")["networks"]
        assert "expired" in network["standing"], network
        assert any("list has expired" in alarm for alarm in a.json("status")["alarms"])
        found = {f["subject"]: f for f in a.json("doctor", statuses=(0, 1))["findings"]}
        assert "not trusted now" in found["peer Helena Hospital"]["text"], found
        with pytest.raises(CommandFailed):
            send(101, "Helena Hospital")
        # The next day both come back, and so does a node that was off all week.
        for node in (a, b):
            assert node.stop() == 0
            node.start()
        send(102, "Billings Hospital")
        directory.start()
        directory.sign_list()
        wait_until(
            lambda: a.json("networks")["networks"][0]["standing"] == "member",
            "the next list was not taken over",
            90,
        )
        send(103, "Helena Hospital")
    finally:
        statuses = [server.stop() for server in (a, b, member, directory)]
    assert statuses == [0, 0, 0, 0]
