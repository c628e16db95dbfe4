"""A paired peer gives its transfer the id of one of ours."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.identity import Identity
from node.documents.messages import ReceiptMessage
from node.domain.ids import TransferId
from tests.support.dicom_files import study_uid, write_study
from tests.support.hostile import WATCH, HostilePeer, forge
from tests.support.loop import run
from tests.support.nodes import Node, wait_until
from tests.support.processes import interruptible

pytestmark = pytest.mark.integration
Victim = tuple[Node, HostilePeer, Identity]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    """A node that has a study, and a peer that nobody can dial."""
    node = Node(tmp_path, "node", "Great Falls Clinic")
    node.make()
    node.start()
    write_study(tmp_path / "study", study=1, instances=2)
    node.run("import", str(tmp_path / "study"))
    peer = HostilePeer(tmp_path)
    yield node, peer, peer.pair_with(node)
    assert node.stop() == 0


async def mirror(victim: Victim) -> TransferId:
    """Deliver a study under the id of the transfer that waits for the peer."""
    node, peer, identity = victim
    async with peer.channel(node, identity) as channel:
        async with channel.stream(WATCH, pb.WatchRequest()) as watch:
            with trio.fail_after(30):
                waiting = b""
                while not waiting:
                    message = await watch.read()
                    assert message is not None
                    waiting = message.transfer_id
        made = forge(peer, identity, 2)
        taken = TransferId(waiting)
        async with peer.carry(channel, identity) as link:
            given = await made.with_key(made.key, identity, taken).send(link)
            assert isinstance(given, ReceiptMessage)
    return taken


def test_transfer_of_a_peer_does_not_end_the_wait_for_ours(victim: Victim) -> None:
    """`emix send --wait` ends with 0 for a receipt, and for nothing that a peer sends instead."""
    node, _, _ = victim
    sending = interruptible(node.command("send", study_uid(1), "hostile", "--wait"))
    try:
        run(lambda: mirror(victim))
        wait_until(
            lambda: any(t["state"] == "delivered" for t in node.json("transfers")["transfers"]),
            "the peer's transfer did not arrive",
        )
        with pytest.raises(subprocess.TimeoutExpired):
            sending.wait(3)  # it waits on
        [ours] = [t for t in node.json("transfers")["transfers"] if t["direction"] == "send"]
        assert ours["state"] == "pending"
        node.run("cancel", f"t{ours['number']}")
        assert sending.wait(30) == 1
    finally:
        sending.kill()
        sending.communicate()


def test_commands_ask_which_transfer_is_meant(victim: Victim) -> None:
    node, _, _ = victim
    node.run("send", study_uid(1), "hostile")
    taken = run(lambda: mirror(victim))
    both = node.json("transfers")["transfers"]
    assert {t["transfer_id"] for t in both} == {str(taken)}
    for command in (["cancel", str(taken)], ["receipts", "export", str(taken), "proof"]):
        said = node.run(*command, statuses=[5])
        assert said == ""
    numbers = {t["direction"]: f"t{t['number']}" for t in both}
    done = subprocess.run(
        node.command("cancel", str(taken)[:8]), capture_output=True, text=True, check=False
    )
    assert "name one by its number" in done.stderr
    assert all(number in done.stderr for number in numbers.values())
    node.run("cancel", numbers["send"])
    states = {t["direction"]: t["state"] for t in node.json("transfers")["transfers"]}
    assert states == {"send": "cancelled", "receive": "delivered"}
    proof = node.home.parent / "proof"
    node.run("receipts", "export", numbers["receive"], str(proof))
    node.run("receipts", "verify", str(proof))
    facts = [e["body"] for e in node.json("audit")["entries"] if e["kind"] == "transfer.cancelled"]
    assert '"direction":"send"' in facts[0].replace(" ", "")
