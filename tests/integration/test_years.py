"""A node with years of history: nothing that a person waits for takes longer for it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.nodes import Node, two_nodes
from node.domain.ids import FacilityId
from node.home import Home, unlock
from node.store.context import open_store
from tests.dicom_files import study_uid, write_study
from tests.history import History, fill

pytestmark = [pytest.mark.integration, pytest.mark.alone]
SENT, RECEIVED = 20_000, 3_000
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(node: Node) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def seconds_of(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def put_history(node: Node, peer: Node) -> None:
    """Stop a node, put a history into its store, start it again."""
    facility = FacilityId.parse(peer.json("id")["facility_id"])
    assert node.stop() == 0
    unlocked = unlock(Home(node.home), None)
    context = open_store(
        node.home, unlocked.root_key, unlocked.secrets, unlocked.signer, reserve_bytes=0
    )
    fill(context, History(facility, SENT, RECEIVED))
    context.close()
    node.start()


def test_day_is_as_fast_after_23000_transfers(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (a, b):
        number = 0

        def send() -> None:
            nonlocal number
            number += 1
            write_study(tmp_path / f"s{number}", number, 1)
            a.run("import", str(tmp_path / f"s{number}"))
            a.run("send", study_uid(number), b.display_name, "--wait")

        def measured() -> dict[str, float]:
            send()
            before = cpu_seconds(a)
            for _ in range(5):
                send()
            return {
                "send, CPU seconds of the node": (cpu_seconds(a) - before) / 5,
                "studies": min(seconds_of(lambda: a.run("studies")) for _ in range(3)),
                "transfers": min(seconds_of(lambda: a.run("transfers")) for _ in range(3)),
                "inbox": min(seconds_of(lambda: a.run("inbox")) for _ in range(3)),
                "status": min(seconds_of(lambda: a.run("status")) for _ in range(3)),
                "peers": min(seconds_of(lambda: a.run("peers")) for _ in range(3)),
            }

        fresh = measured()
        put_history(a, b)
        old = measured()
        whole = seconds_of(lambda: a.run("transfers", "--json"))
        print({name: (fresh[name], old[name]) for name in fresh}, "transfers --json", whole)
        for name, seconds in fresh.items():
            assert old[name] <= 2 * seconds + 0.1, (name, seconds, old[name])
        assert whole < 20
        assert len(a.json("transfers")["transfers"]) == SENT + RECEIVED + 12
