"""Receiving over a real store: what ends leaves nothing, what is promised is reserved."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from node.documents.arrivals import Arrival
from node.documents.messages import Answer, AnswerKind, Offer, Problem, ReceiptMessage
from node.domain.encoded import EncodedChunk
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.transfers import State
from node.errors import NodeError, StoreError
from node.store.chunk_access import ChunkAccess
from tests.node.exchange.arriving_parts import Receiving, link_pair, open_receiving
from tests.support.actors import actor
from tests.support.hostile import Forgery, HostilePeer, forge


class SlowCarrier(ChunkAccess):
    """Keeps a chunk only when the test says so."""

    begun, may_go = threading.Event(), threading.Event()

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> EncodedChunk:
        self.begun.set()
        assert self.may_go.wait(30)
        return super().put_sealed(arrival, entry, sealed)


async def test_cancelled_arrival_is_removed_with_what_was_being_written(tmp_path: Path) -> None:
    SlowCarrier.begun.clear()
    SlowCarrier.may_go.clear()
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path, SlowCarrier) as here:
            forgery = forge(peer, here.identity, 1)
            theirs, ours = link_pair(peer.facility, here.facility)

            async def receive() -> None:
                offer = await ours.receive()
                assert isinstance(offer, Offer)
                await here.receiver.receive(ours, offer)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(forgery.send, theirs)  # type: ignore[arg-type]
                await trio.to_thread.run_sync(SlowCarrier.begun.wait, 30)
                (row,) = await here.store.find()
                ended = trio.Event()

                async def cancel() -> None:
                    await here.transfers.cancel(str(row.transfer_id), actor("test"))
                    ended.set()

                nursery.start_soon(cancel)
                with trio.move_on_after(1):
                    await ended.wait()
                SlowCarrier.may_go.set()
                await ended.wait()
            (row,) = await here.store.find()
            assert row.state is State.DECLINED
            assert not _files(tmp_path / "home"), "a chunk was written after the removal"


async def test_receipt_is_not_repeated_for_a_chunk_that_rotted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is still right; it comes again first."""
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path) as here:
            forgery = forge(peer, here.identity, 1)
            first = await offer(here, forgery)
            assert isinstance(first, ReceiptMessage)
            (file,) = _files(tmp_path / "home")
            whole = file.read_bytes()
            file.chmod(0o600)
            file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            assert await offer(here, forgery) == first
            (file,) = _files(tmp_path / "home")
            assert file.read_bytes() == whole
            read: list[ChunkId] = []
            get = here.context.storage.get

            def counted(chunk_id: ChunkId) -> bytes:
                read.append(chunk_id)
                return get(chunk_id)

            monkeypatch.setattr(here.context.storage, "get", counted)
            for _ in range(3):
                assert await offer(here, forgery) == first
            assert len(read) == 1, "once an hour"


async def test_package_that_cannot_be_opened_here_is_refused_before_its_chunks(
    tmp_path: Path,
) -> None:
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path) as here:
            forgery = forge(peer, here.identity, 1, needs=("jpeg-ls", "newer"))
            problem = await offer(here, forgery)
            assert isinstance(problem, Problem)
            assert problem.is_final
            assert "not installed here: newer" in problem.message
            assert not _files(tmp_path / "home")


class FailingCarrier(ChunkAccess):
    """Has a disk that takes nothing."""

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> EncodedChunk:
        raise StoreError("/var/lib/emix/chunks belongs to root (uid 0)")


async def offer(here: Receiving, forgery: Forgery) -> object:
    """Offer and send a package; return the receiver's last word."""
    theirs, ours = link_pair(forgery.peer.facility, here.facility)
    said: list[object] = []

    async def send() -> None:
        said.append(await forgery.send(theirs))  # type: ignore[arg-type]
        await theirs.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        shown = await ours.receive()
        assert isinstance(shown, Offer)
        with suppress(NodeError):
            await here.receiver.receive(ours, shown)
        await ours.end()
    return said[0]


async def test_peer_does_not_pay_for_our_own_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = HostilePeer(tmp_path)
    charged: list[object] = []
    with trio.fail_after(60):
        async with open_receiving(tmp_path, FailingCarrier) as here:
            monkeypatch.setattr(here.receiver._offers, "charge", lambda *_: charged.append(1))
            said = await offer(here, forge(peer, here.identity, 1))
            assert isinstance(said, Problem)
            assert (said.code, len(charged)) == ("store", 0)
            assert said.message.startswith("that node's store failed")
            lying = forge(peer, here.identity, 2, entry_changes={"digest": bytes(32)})
            monkeypatch.setattr(FailingCarrier, "put_sealed", ChunkAccess.put_sealed)
            assert isinstance(await offer(here, lying), Problem)
            assert charged


async def test_who_gets_no_room_has_not_paid_for_a_manifest(tmp_path: Path) -> None:
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path, quota_bytes=1) as here:
            assert await offer(here, forge(peer, here.identity, 1)) is None  # later, and the end
            assert not here.receiver._manifest_bytes._used_until


def _files(home: Path) -> Sequence[Path]:
    return list((home / "chunks").glob("??/*"))


async def test_receiver_without_room_says_so_to_the_sender_and_to_people_here(
    tmp_path: Path,
) -> None:
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path, quota_bytes=1) as here:
            forgery = forge(peer, here.identity, 1)
            theirs, ours = link_pair(peer.facility, here.facility)
            await here.receiver.receive(ours, Offer(forgery.delivery, forgery.sealed_key))
            answer = await theirs.receive()
            assert isinstance(answer, Answer)
            assert (answer.kind, answer.reason) == (
                AnswerKind.LATER,
                "the receiver's quota is used up",
            )
            (row,) = await here.store.find()
            assert row.reason == answer.reason
            assert not here.transfers.is_carried(row)
