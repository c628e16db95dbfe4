"""Receipts are true and damage heals: chunks that are lost or rot on the disk come again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from node.documents.messages import ReceiptMessage
from tests.integration.attacks.damage import chunks_of, contents, flip, write_large, write_noise
from tests.support.dicom_files import study_uid
from tests.support.hostile import Forgery, HostilePeer, forge
from tests.support.loop import run
from tests.support.nodes import Node

pytestmark = pytest.mark.integration

Damage = Callable[[Path], None]
DAMAGES = pytest.mark.parametrize("damage", [Path.unlink, flip], ids=["deleted", "flipped"])


def exported(node: Node, study: int, folder: Path) -> set[bytes]:
    shutil.rmtree(folder, ignore_errors=True)
    node.run("export", study_uid(study), str(folder))
    return set(contents(folder))


@DAMAGES
def test_chunk_lost_at_the_receiver_is_carried_by_send_again(
    nodes: tuple[Node, Node], tmp_path: Path, damage: Damage
) -> None:
    a, b = nodes
    study = 6000 + (damage is flip)
    folder = write_noise(tmp_path / "s", study, 12)
    a.run("import", str(folder))
    before = chunks_of(b)
    a.run("send", study_uid(study), b.display_name, "--wait")
    lost = sorted(chunks_of(b) - before)[1]
    size = lost.stat().st_size
    damage(lost)
    again = a.json("send", study_uid(study), b.display_name, "--again", "--wait")["transfers"][0]
    assert again["state"] == "delivered"
    found = next(
        t for t in a.json("transfers")["transfers"] if t["transfer_id"] == again["transfer_id"]
    )
    assert int(found["bytes_carried"]) == size, "what is lost is carried, and nothing else"
    assert exported(b, study, tmp_path / "out") == set(contents(folder))
    b.run("store", "check", "--read-data")
    a.run("delete", study_uid(study), "--yes")


@DAMAGES
@pytest.mark.parametrize("write", [write_noise, write_large], ids=["small", "large"])
def test_chunk_lost_at_the_importer_is_sealed_by_importing_again(
    nodes: tuple[Node, Node],
    tmp_path: Path,
    damage: Damage,
    write: Callable[[Path, int, int], Path],
) -> None:
    a, b = nodes
    study = 6010 + (damage is flip) + 2 * (write is write_large)
    folder = write(tmp_path / "s", study, 12)
    before = chunks_of(a)
    a.run("import", str(folder))
    for lost in sorted(chunks_of(a) - before)[:2]:
        damage(lost)
    again = a.json("import", str(folder))
    assert int(again["summary"]["carried"]) > 0, "what is lost is not known already"
    assert int(again["summary"].get("flagged", 0)) == 0
    assert exported(a, study, tmp_path / "out") == set(contents(folder))
    a.run("store", "check", "--read-data")
    # Sealed again under its own key: it is one package still, and it can be sent.
    assert len(a.json("study", study_uid(study))["sources"][0]["packages"]) == 1
    a.run("send", study_uid(study), b.display_name, "--wait")
    assert exported(b, study, tmp_path / "there") == set(contents(folder))


def test_receipt_is_not_repeated_for_what_is_lost(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    """The same delivery shown again gets the same receipt, once what it names is here again."""
    _, b = nodes
    peer = HostilePeer(tmp_path)
    identity = peer.pair_with(b)
    forgery = forge(peer, identity, 6020)
    before = chunks_of(b)

    async def send() -> tuple[object, list[str]]:
        async with peer.channel(b, identity) as channel, peer.carry(channel, identity) as link:
            said: list[str] = []
            last = await Forgery.send(forgery, Heard(link, said))  # type: ignore[arg-type]
            return last, said

    first, said = run(send)
    assert isinstance(first, ReceiptMessage)
    assert "Want" in said
    (lost,) = chunks_of(b) - before
    again, said = run(send)
    assert (again, "Want" in said) == (first, False), "whole: the receipt, and nothing carried"
    lost.unlink()
    again, said = run(send)
    assert (again, "Want" in said) == (first, True)
    assert lost.exists()
    b.run("store", "check", "--read-data")
    b.run("peers", "remove", "hostile", "--yes")


class Heard:
    """A link that notes what kinds of messages came."""

    def __init__(self, link: object, said: list[str]) -> None:
        self._link, self._said = link, said
        self.send = link.send  # type: ignore[attr-defined]

    async def receive(self) -> object:
        message = await self._link.receive()  # type: ignore[attr-defined]
        self._said.append(type(message).__name__)
        return message


def test_check_notes_damage_and_what_it_found_heals(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    folder = write_noise(tmp_path / "s", 6030, 9)
    a.run("import", str(folder))
    before = chunks_of(b)
    a.run("send", study_uid(6030), b.display_name, "--wait")
    lost = min(chunks_of(b) - before)
    flip(lost)
    b.run("store", "check", "--read-data", statuses=(1,))
    # What was noted stays so, though a look at sizes finds nothing.
    b.stop()
    b.start()
    b.run("store", "check", statuses=(1,))
    findings = {f["subject"]: f for f in b.json("doctor", statuses=(0, 1))["findings"]}
    assert findings["chunks"]["level"] == "problem"
    a.run("send", study_uid(6030), b.display_name, "--again", "--wait")
    b.run("store", "check", "--read-data")
    findings = {f["subject"]: f for f in b.json("doctor", statuses=(0, 1))["findings"]}
    assert findings["chunks"]["level"] == "ok"


def test_repaired_package_without_all_chunks_gives_no_receipt(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    folder = write_noise(tmp_path / "s", 6040, 9)
    a.run("import", str(folder))
    before = chunks_of(b)
    a.run("send", study_uid(6040), b.display_name, "--wait")
    lost = min(chunks_of(b) - before)
    mine = [
        t for t in b.json("transfers")["transfers"] if t["study_instance_uid"] == study_uid(6040)
    ]
    b.stop()
    for path in b.home.glob("metadata.db*"):
        path.unlink()
    lost.unlink()
    assert "1 chunks are missing" in b.run("store", "repair", statuses=(1,))
    b.start()
    receipts = {r["transfer_id"] for r in b.json("receipts")["receipts"]}
    assert mine[0]["transfer_id"] not in receipts
    # Pins are gone with the database; paired anew, what is missing comes.
    file = tmp_path / "a.emix"
    a.run("id", "--export", str(file), "--no-qr")
    b.run("peers", "pair", str(file))
    a.run("send", study_uid(6040), b.display_name, "--again", "--wait")
    assert exported(b, 6040, tmp_path / "out") == set(contents(folder))
