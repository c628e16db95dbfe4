"""A paired peer that has receipts for a package and delivers it again, under new transfer ids."""

from pathlib import Path

import pytest
import trio
import trio.testing

from node.documents.messages import Answer, AnswerKind, Message, Offer, ReceiptKept, ReceiptMessage
from node.domain.ids import TransferId
from node.store import arrivals
from node.store.removal import finish_removals
from tests.node.exchange.arriving_parts import MemoryLink, Receiving, link_pair, open_receiving
from tests.support.hostile import Forgery, HostilePeer, forge
from tests.support.loop import run

pytestmark = pytest.mark.integration

_MOST = 8
_MANIFESTS = "SELECT COUNT(*), COALESCE(SUM(LENGTH(manifest)), 0) FROM transfer_manifests"


class Heard:
    """The peer's end of a link, which notes what it is told."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        await self._link.send(message)

    async def receive(self) -> Message | None:
        message = await self._link.receive()
        if message is not None:
            self.messages.append(message)
        return message


async def deliver(here: Receiving, forgery: Forgery) -> Message:
    """Deliver a package on a link of its own; return the receiver's last word."""
    theirs, ours = link_pair(forgery.peer.facility, here.facility)
    heard = Heard(theirs)

    async def send() -> None:
        if isinstance(await forgery.send(heard), ReceiptMessage):  # type: ignore[arg-type]
            await theirs.send(ReceiptKept())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            message = await ours.receive()
            assert isinstance(message, Offer)
            await here.receiver.receive(ours, message)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    return heard.messages[-1]


async def redeliver(here: Receiving, forgery: Forgery) -> Message:
    """Deliver the same package as another transfer."""
    return await deliver(here, forgery.with_key(forgery.key, here.identity, TransferId.new()))


def test_package_delivered_again_costs_a_row_and_is_declined_at_last(tmp_path: Path) -> None:
    peer = HostilePeer(tmp_path)

    async def work() -> None:
        async with open_receiving(tmp_path) as here:
            forgery = forge(peer, here.identity, 1)
            words = [await redeliver(here, forgery) for _ in range(_MOST + 2)]
            kinds = [type(word) for word in words]
            assert kinds == [ReceiptMessage] * _MOST + [Answer] * 2
            last = words[-1]
            assert isinstance(last, Answer)
            assert last.kind is AnswerKind.DECLINED
            assert "its receipts remain valid" in last.reason
            kept = here.context.database.read_sync(lambda db: db.execute(_MANIFESTS).fetchone())
            assert tuple(kept) == (1, len(forgery.manifest.encode()))
            # One copy is the proof of every one of them, also when the package is gone.
            here.context.database.write_sync(
                lambda db: db.execute("UPDATE packages SET state = 'deleting'")
            )
            finish_removals(here.context)
            rows = await here.store.find()
            assert len(rows) == _MOST
            for row in rows:
                document = await here.store.stored_manifest(row)
                assert document is not None
                assert document.digest() == forgery.manifest.digest()
            # It was deleted here: it may come again.
            assert isinstance(await redeliver(here, forgery), ReceiptMessage)

    run(work)


def test_documents_with_receipts_of_one_peer_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, other = HostilePeer(tmp_path), HostilePeer(tmp_path, "other")

    async def work() -> None:
        async with open_receiving(tmp_path) as here:
            monkeypatch.setattr(arrivals, "MAX_RECEIPT_BYTES", 4000, raising=False)
            words = [await deliver(here, forge(peer, here.identity, n)) for n in range(1, 9)]
            assert isinstance(words[0], ReceiptMessage)
            assert isinstance(words[-1], Answer)
            assert words[-1].kind is AnswerKind.LATER
            assert isinstance(await deliver(here, forge(other, here.identity, 9)), ReceiptMessage)

    run(work)


def test_package_is_not_delivered_again_past_the_quota(tmp_path: Path) -> None:
    """Its chunks are counted already; what the database keeps of each delivery is not."""
    peer = HostilePeer(tmp_path)

    async def work() -> None:
        async with open_receiving(tmp_path, quota_bytes=5_000_000) as here:
            forgery = forge(peer, here.identity, 1)
            assert isinstance(await redeliver(here, forgery), ReceiptMessage)
            here.context.database.write_sync(
                lambda db: db.execute("INSERT INTO meta VALUES ('large', ?)", (bytes(10**7),))
            )
            last = await redeliver(here, forgery)
            assert isinstance(last, Answer)
            assert last.kind is AnswerKind.LATER

    run(work)
