"""A peer sends what this node would hold at an import: it is received, and held here too."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.documents.messages import ReceiptMessage
from tests.support.dicom_files import make_instance, study_uid
from tests.support.hostile import Forgery, HostilePeer, forge
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


def executable(study: int) -> bytes:
    """Return an instance that Windows would run."""
    return b"MZ" + make_instance(study, 1)[2:]


def send(
    node: Node,
    peer: HostilePeer,
    study: int,
    content: bytes,
    *,
    split_at: int = 0,
    number: int = 1,
) -> None:
    """Have a hostile peer deliver one instance; the node must give its receipt."""

    async def work() -> None:
        identity = await trio.to_thread.run_sync(peer.pair_with, node)
        forgery: Forgery = forge(
            peer,
            identity,
            study,
            instance=content,
            split_at=split_at,
            entry_changes={"sop_instance_uid": f"{study_uid(study)}.1.{number}"},
        )
        async with peer.channel(node, identity) as channel:
            async with peer.carry(channel, identity) as link:
                assert isinstance(await forgery.send(link), ReceiptMessage)

    run(work)


def files(folder: Path) -> list[bytes]:
    return [p.read_bytes() for p in folder.rglob("IM*")] if folder.exists() else []


@pytest.mark.parametrize("split_at", [0, 1000], ids=["one-chunk", "two-chunks"])
def test_executable_from_a_peer_is_not_exported_before_a_person_releases_it(
    victim: tuple[Node, HostilePeer], tmp_path: Path, split_at: int
) -> None:
    node, peer = victim
    study = 900 + bool(split_at)
    content = executable(study)
    send(node, peer, study, content, split_at=split_at)
    node.run("export", study_uid(study), str(tmp_path / "out"), statuses=(0, 1, 5))
    assert files(tmp_path / "out") == []
    (held,) = [h for h in node.json("held")["held"] if h["study_instance_uid"] == study_uid(study)]
    assert "executable" in held["reasons"][0]
    assert held["received_from"] == peer.name
    (package,) = next(
        s["packages"]
        for s in node.json("inbox")["studies"]
        if s["study_instance_uid"] == study_uid(study)
    )
    assert package["held_instances"] == 1
    assert "executable" in package["hold_reasons"][0]
    assert "executable" in node.run("inbox")
    node.run("held", "release", held["held_id"])
    node.run("export", study_uid(study), str(tmp_path / "out"))
    assert files(tmp_path / "out") == [content]
    entries = node.json("audit", "--limit", "0")["entries"]
    assert any(
        e["kind"] == "held.released" and json.loads(e["body"])["held"] == int(held["held_id"])
        for e in entries
    )


def test_held_instance_is_exported_only_where_a_person_asks_for_it(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    node, peer = victim
    send(node, peer, 903, executable(903))
    send(node, peer, 903, make_instance(903, 2), number=2)
    # The rest of the study is exported; what is left out is named, and the status says so.
    shown = node.run("export", study_uid(903), str(tmp_path / "out"), statuses=(1,))
    assert files(tmp_path / "out") == [make_instance(903, 2)]
    assert f"{study_uid(903)}.1.1" in shown
    node.run("export", study_uid(903), str(tmp_path / "all"), "--include-held")
    assert sorted(files(tmp_path / "all")) == sorted([executable(903), make_instance(903, 2)])
    exported = [
        json.loads(e["body"])
        for e in node.json("audit", "--limit", "0")["entries"]
        if e["kind"] == "study.exported"
    ]
    assert [("held" in body) for body in exported[-2:]] == [False, True]


def test_held_instance_of_a_peer_cannot_be_discarded_and_is_held_after_a_repair(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, "node", "Victim Hospital")
    node.make()
    node.start()
    try:
        send(node, HostilePeer(tmp_path), 904, executable(904))
        number = node.json("held")["held"][0]["held_id"]
        node.run("held", "discard", number, statuses=(5,))
        node.stop()
        for path in node.home.glob("metadata.db*"):
            path.unlink()
        node.run("store", "repair")
        node.start()
        node.run("export", study_uid(904), str(tmp_path / "out"), statuses=(5,))
        assert files(tmp_path / "out") == []
        assert len(node.json("held")["held"]) == 1
    finally:
        node.stop()


def test_package_with_a_held_instance_is_not_sent_on(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    node, peer = victim
    send(node, peer, 905, executable(905))
    third = HostilePeer(tmp_path, "third")
    third.pair_with(node)
    shown = node.run("send", study_uid(905), "third", statuses=(0, 1))
    transfers = [t for t in node.json("transfers")["transfers"] if t["direction"] == "send"]
    assert not [t for t in transfers if t["study_instance_uid"] == study_uid(905)], shown
    answer = node.json("send", study_uid(905), "third", "--include-held")
    assert [t["origin"] for t in answer["transfers"]] == [str(peer.facility)]


def test_first_bytes_in_a_tiny_extent_are_zeroed_where_preambles_are(
    victim: tuple[Node, HostilePeer], tmp_path: Path
) -> None:
    """The preamble may lie in several chunks: what follows it stays as it is."""
    node, peer = victim
    content = make_instance(906, 1)
    content = b"II*\0" + b"x" * 124 + content[128:]
    send(node, peer, 906, content, split_at=7)
    node.run("export", study_uid(906), str(tmp_path / "out"), "--safe-preamble")
    assert files(tmp_path / "out") == [bytes(128) + content[128:]]
