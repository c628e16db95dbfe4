"""A peer seals another patient's pixels under our UIDs: origins stay apart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.documents.messages import ReceiptMessage
from tests.support.dicom_files import encode, make_dataset, make_instance, study_uid
from tests.support.hostile import HostilePeer, forge
from tests.support.loop import run
from tests.support.nodes import Node

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, HostilePeer]]:
    folder = tmp_path_factory.mktemp("victim")
    node = Node(folder, "node", "Victim Hospital")
    node.make()
    node.start()
    try:
        yield node, HostilePeer(folder)
    finally:
        node.stop()


def forged(study: int) -> bytes:
    """Return our instance's UIDs around another patient."""
    ds = make_dataset(study, 1)
    ds.PatientName, ds.PatientID = "Somebody^Else", "OTHER"
    ds.PixelData = bytes(len(ds.PixelData))
    return encode(ds)


def deliver(node: Node, peer: HostilePeer, study: int, content: bytes) -> None:
    async def work() -> None:
        identity = await trio.to_thread.run_sync(peer.pair_with, node)
        forgery = forge(peer, identity, study, instance=content)
        async with peer.channel(node, identity) as channel:
            async with peer.carry(channel, identity) as link:
                assert isinstance(await forgery.send(link), ReceiptMessage)

    run(work)


def import_own(node: Node, folder: Path, study: int) -> bytes:
    content = make_instance(study, 1)
    folder.mkdir(exist_ok=True)
    (folder / "1.dcm").write_bytes(content)
    node.run("import", str(folder))
    return content


def files(folder: Path) -> list[bytes]:
    return [p.read_bytes() for p in folder.rglob("IM*")] if folder.exists() else []


def test_export_asks_whose_images_are_meant(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    node, peer = victim
    own = import_own(node, tmp_path / "cd", 800)
    deliver(node, peer, 800, forged(800))
    uid = study_uid(800)
    node.run("export", uid, str(tmp_path / "out"), statuses=(0, 5))
    assert files(tmp_path / "out") == []
    node.run("export", uid, str(tmp_path / "own"), "--origin", "own")
    assert files(tmp_path / "own") == [own]
    for n, origin in enumerate((str(peer.facility), str(peer.facility)[:23], peer.name)):
        node.run("export", uid, str(tmp_path / f"theirs{n}"), "--origin", origin)
        assert files(tmp_path / f"theirs{n}") == [forged(800)]
    # Fewer characters could be made to fit.
    node.run("export", uid, str(tmp_path / "no"), "--origin", peer.facility.short(), statuses=(4,))


def test_the_question_names_origins_and_commands_and_no_patient(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    node, peer = victim
    import_own(node, tmp_path / "cd", 801)
    deliver(node, peer, 801, forged(801))
    uid, out = study_uid(801), str(tmp_path / "out")
    commands = (("export", uid, out), ("send", uid, peer.name), ("delete", uid, "--yes"))
    for command in commands:
        with pytest.raises(Exception, match="ended with 5") as failed:
            node.run(*command)
        said = str(failed.value).partition("ended with 5")[2]
        arguments = command[:2] if command[0] == "delete" else command
        # What is shown can be pasted.
        assert "emix " + " ".join([*arguments, "--origin", "own"]) in said
        assert f"--origin {peer.facility}" in said
        assert "Else" not in said
        assert "Synthetic" not in said
    shown = node.json("studies", uid)["studies"]
    assert len({s["origin"] for s in shown}) == 2


def test_only_the_chosen_origin_is_sent(victim: tuple[Node, HostilePeer], tmp_path: Path) -> None:
    node, peer = victim
    import_own(node, tmp_path / "cd", 802)
    deliver(node, peer, 802, forged(802))
    third = HostilePeer(tmp_path, "third")
    third.pair_with(node)
    node.run("send", study_uid(802), "third", statuses=(0, 5))
    sent = [
        t
        for t in node.json("transfers")["transfers"]
        if t["direction"] == "send" and t["study_instance_uid"] == study_uid(802)
    ]
    assert sent == []
    answer = node.json("send", study_uid(802), "third", "--origin", "own")
    own = node.json("id")["facility_id"]
    assert answer["origin"] == own
    assert [t["origin"] for t in answer["transfers"]] == [own]


def test_the_same_images_from_a_peer_and_a_cd_are_exported_once(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    node, peer = victim
    own = import_own(node, tmp_path / "cd", 803)
    deliver(node, peer, 803, own)
    shown = node.json("studies", study_uid(803))["studies"]
    assert len(shown) == 2
    node.run("export", study_uid(803), str(tmp_path / "out"))
    assert files(tmp_path / "out") == [own]


def test_what_a_peer_adds_to_the_same_images_is_a_question(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    node, peer = victim
    own = import_own(node, tmp_path / "cd", 804)
    deliver(node, peer, 804, own)
    deliver(node, peer, 804, forged(804))
    node.run("export", study_uid(804), str(tmp_path / "out"), statuses=(0, 5))
    assert files(tmp_path / "out") == []
