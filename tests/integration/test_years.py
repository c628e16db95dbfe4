"""A node with years of history: nothing that a person waits for takes longer for it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.app.home import Home, unlock
from node.domain.ids import FacilityId
from node.rpc.blocking import BlockingChannel, open_blocking_channel
from node.rpc.bounds import OWN
from node.rpc.methods import methods
from node.store.context import open_store
from tests.support.dicom_files import study_uid, write_study
from tests.support.history import History, fill
from tests.support.nodes import Node, two_nodes, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.alone]
SENT, RECEIVED = 20_000, 3_000
_TICK = os.sysconf("SC_CLK_TCK")


_SEND = next(
    m
    for m in methods(pb.DESCRIPTOR.services_by_name["TransferService"], answer=OWN)
    if m.name == "Send"
)


@contextmanager
def admin_channel(node: Node) -> Iterator[BlockingChannel]:
    address = f"unix:{(node.home / 'admin.sock').resolve()}"
    with open_blocking_channel(address, largest_answer=OWN.size) as channel:
        yield channel


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
        assert whole < 60
        assert len(a.json("transfers")["transfers"]) == SENT + RECEIVED + 12


OFFERS = 300


def test_offers_that_wait_for_a_person_cost_nothing(tmp_path: Path) -> None:
    """The sender rests while they wait, and one that is accepted is there at once."""
    with two_nodes(tmp_path) as (a, b):
        assert b.stop() == 0
        b.set(incoming='"ask"')
        b.start()
        for n in range(1, OFFERS + 1):
            write_study(tmp_path / "in" / str(n), n, 1)
        a.run("import", str(tmp_path / "in"))
        with admin_channel(a) as channel:
            for n in range(1, OFFERS + 1):
                request = pb.SendRequest(study=study_uid(n), facility=b.display_name)
                channel.whole(_SEND, request, timeout=60)
        wait_until(lambda: int(b.json("status")["held_offers"]) == OFFERS, "not all are held", 120)
        before, started = (cpu_seconds(a), cpu_seconds(b)), time.monotonic()
        threading.Event().wait(20)
        shares = [
            (cpu_seconds(node) - was) / (time.monotonic() - started)
            for node, was in zip((a, b), before, strict=True)
        ]
        offer = b.json("inbox")["offers"][OFFERS // 2]
        accepted = time.monotonic()
        b.run("accept", f"t{offer['number']}")
        wait_until(lambda: len(b.json("studies")["studies"]) == 1, "it does not come")
        took = time.monotonic() - accepted
        print(f"{OFFERS} held offers: cores {shares}, from accept to delivery {took:.2f} s")
        assert max(shares) < 0.1
        assert took < 3
