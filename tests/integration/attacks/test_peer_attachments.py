"""A paired peer sends packages with files that are not DICOM: as many, and as odd, as it can."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio_asyncio

from node.documents.identity import Identity
from node.documents.messages import Message, Problem, ReceiptMessage
from node.domain.manifest import MAX_ABOUT, MAX_ATTACHMENTS
from tests.support.dicom_files import study_uid
from tests.support.hostile import Forgery, HostilePeer, forge
from tests.support.nodes import Node

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ABOUT = [f"1.2.{n}.{'9' * 50}" for n in range(MAX_ABOUT)]
REPORT = [("text/plain", b"nothing found", ())]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, "node", "Clinic")
    node.make()
    node.start()
    yield node
    node.stop()


def send(
    peer: HostilePeer, node: Node, identity: Identity, forgeries: Sequence[Forgery]
) -> list[Message | None]:
    """Send packages one after the other; return the node's last word on each."""

    async def attack() -> list[Message | None]:
        said = []
        async with peer.channel(node, identity) as channel:
            for forgery in forgeries:
                async with peer.carry(channel, identity) as link:
                    said.append(await forgery.send(link))
        return said

    found: list[Message | None] = trio_asyncio.run(attack)
    return found


def test_packages_full_of_attachments_are_listed_shown_and_deleted(
    node: Node, tmp_path: Path
) -> None:
    peer = HostilePeer(tmp_path)
    identity = peer.pair_with(node)
    attached = [("x" * 60 + "/y", b"%d" % n, ABOUT) for n in range(MAX_ATTACHMENTS)]
    said = send(
        peer, node, identity, [forge(peer, identity, 1, attachments=attached) for _ in range(6)]
    )
    assert [type(word) for word in said] == [ReceiptMessage] * 6
    assert len(node.json("studies")["studies"]) == 1
    assert node.json("query", "--level", "image")["matches"]
    (source,) = node.json("study", study_uid(1))["sources"]
    assert [p["attachments_total"] for p in source["packages"]] == [MAX_ATTACHMENTS] * 6
    assert all(len(p["attachments"]) <= 20 for p in source["packages"])
    node.run("inbox")
    node.run("export", study_uid(1), str(tmp_path / "out"))
    found = {hashlib.sha256(p.read_bytes()).digest() for p in (tmp_path / "out").rglob("AT*.bin")}
    assert found == {hashlib.sha256(content).digest() for _, content, _ in attached}
    node.run("delete", study_uid(1), "--yes")
    assert not node.json("studies")["studies"]


def test_attachment_with_other_bytes_than_its_manifest_says_is_refused(
    node: Node, tmp_path: Path
) -> None:
    peer = HostilePeer(tmp_path)
    identity = peer.pair_with(node)
    honest = forge(peer, identity, 1, attachments=REPORT)
    image, report = honest.chunks
    swapped = replace(honest, chunks={**honest.chunks, report: honest.chunks[image]})
    (said,) = send(peer, node, identity, [swapped])
    assert isinstance(said, Problem)
    assert not node.json("studies")["studies"]
    (said,) = send(peer, node, identity, [forge(peer, identity, 1, attachments=REPORT)])
    assert isinstance(said, ReceiptMessage)
    assert node.json("studies")["studies"]
