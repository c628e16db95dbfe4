"""A week in which the directory is away, by a clock that the test sets."""

import os
from pathlib import Path

import pytest

from bench.nodes import CommandFailed, Directory, Node, wait_until
from tests.dicom_files import study_uid, write_study

pytestmark = [pytest.mark.integration, pytest.mark.slow]
DAYS = (1, 3, 5, 7, 8)


class Clock:
    """The time of every process that it is put on; only the time of day, no waiting."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set_day(0)

    def set_day(self, day: int) -> None:
        """Have it be so many days later."""
        following = self._file.with_suffix(".next")
        following.write_text(f"+{day}d\n")
        following.rename(self._file)

    def put_on(self, server: Node | Directory) -> None:
        """Have a server and its commands go by this clock."""
        server.prefix = [
            "env",
            f"LD_PRELOAD={_library()}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "FAKETIME_DONT_RESET=1",
        ]


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        assert not os.environ.get("CI"), "CI needs the system package faketime"
        pytest.skip("needs the system package faketime")
    return found[0]


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
