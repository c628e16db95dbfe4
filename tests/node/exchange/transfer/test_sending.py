"""Sending to a receiver that is faster than we are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.documents.identity import Identity
from node.documents.manifest import decode_body, sign_manifest
from node.documents.messages import Answer, AnswerKind, ChunkFrame, Message, Offer, Want
from node.documents.signed import Document
from node.domain.connections import Route
from node.domain.manifest import AttachmentEntry, ChunkEntry
from node.domain.transfers import State, Transfer
from node.errors import PeerLacks, PeerUnreachable
from node.exchange.transfer import sender_machine
from node.exchange.transfer.priority_gate import PriorityGate
from node.exchange.transfer.sending import Sender
from tests.integration.attacks.exhaustion import promise
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.hostile import HostilePeer


class FastLink:
    """Answers every chunk with a want for the next one before the sending of it returns."""

    route = "direct"
    capabilities = frozenset[Any]()
    is_offered = False

    def __init__(self, peer: Any, wants: list[Want], window: int) -> None:
        self.peer = peer
        self._wants = wants
        self._window = window
        self._to_sender, self._receive = trio.open_memory_channel[Message](100)

    async def send(self, message: Message) -> None:
        match message:
            case Offer():
                self.is_offered = True
                self._to_sender.send_nowait(Answer(AnswerKind.ACCEPTED, is_manifest_needed=False))
                for _ in range(self._window):
                    self._want()
            case ChunkFrame():
                self._want()
        await trio.testing.wait_all_tasks_blocked()  # the sender has heard it

    def _want(self) -> None:
        if self._wants:
            self._to_sender.send_nowait(self._wants.pop(0))
        else:
            self._to_sender.close()

    async def receive(self) -> Message | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None


class PromisedStore:
    """Has a package whose chunks are zeros."""

    def __init__(self, manifest: Document) -> None:
        self.manifest = manifest
        self.entries: list[ChunkEntry] = []

    async def sending_manifest(self, _: Transfer) -> Document:
        return self.manifest

    async def note_progress(self, row: Transfer, *_: object) -> Transfer:
        return row

    async def set_state(self, row: Transfer, _: State, *__: object) -> Transfer:
        raise AssertionError("an honest transfer has failed")

    def get_sealed(self, entry: ChunkEntry) -> bytes:
        self.entries.append(entry)
        return bytes(entry.sealed_bytes)


def make_sending(peer: HostilePeer) -> tuple[Transfer, Any]:
    """Return a transfer of eight chunks of 100 bytes, and the store that has them."""
    forgery = promise(peer, Identity.decode(peer.statements()), chunks=8, chunk_bytes=100)
    row = replace(make_row(), delivery=forgery.delivery.encode(), sealed_key=forgery.sealed_key)
    return row, PromisedStore(forgery.manifest)


async def test_attachments_are_not_sent_to_a_peer_that_does_not_take_them(tmp_path: Path) -> None:
    peer = HostilePeer(tmp_path)
    row, store = make_sending(peer)
    manifest = decode_body(store.manifest.body)
    (*kept, last) = manifest.instances
    attachment = AttachmentEntry("text/plain", last.size_bytes, last.digest, last.extents)
    changed = replace(manifest, instances=tuple(kept), attachments=(attachment,))
    store.manifest = sign_manifest(changed, peer.keys.signer)
    states: list[tuple[State, object]] = []

    async def set_state(row: Transfer, state: State, *more: object) -> Transfer:
        states.append((state, *more))  # type: ignore[arg-type]
        return row

    store.set_state = set_state
    link: Any = FastLink(peer.facility, [], 1)
    with trio.fail_after(30), pytest.raises(PeerLacks, match="upgrade emix"):
        await Sender(store, store).send(link, row, PriorityGate(), Route.DIRECT)
    assert [state for state, _ in states] == [State.FAILED]
    assert not link.is_offered


@pytest.mark.parametrize(
    ("need", "advice"), [("jpeg-ls", r"pip install 'emix\[small\]'"), ("newer", "upgrade emix")]
)
async def test_what_the_peer_cannot_open_is_not_sent(
    tmp_path: Path, need: str, advice: str
) -> None:
    peer = HostilePeer(tmp_path)
    row, store = make_sending(peer)
    changed = replace(decode_body(store.manifest.body), needs=(need,))
    store.manifest = sign_manifest(changed, peer.keys.signer)

    async def set_state(row: Transfer, *_: object) -> Transfer:
        return row

    store.set_state = set_state
    link: Any = FastLink(peer.facility, [], 1)
    with trio.fail_after(30), pytest.raises(PeerLacks, match=advice):
        await Sender(store, store).send(link, row, PriorityGate(), Route.DIRECT)
    assert not link.is_offered


async def test_receiver_may_want_more_as_soon_as_a_chunk_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = HostilePeer(tmp_path)
    monkeypatch.setattr(sender_machine, "WINDOW_BYTES", 300)
    row, store = make_sending(peer)
    chunks = decode_body(store.manifest.body).chunks
    link: Any = FastLink(peer.facility, [Want((c.chunk_id,)) for c in chunks], 3)
    with trio.fail_after(30), pytest.raises(PeerUnreachable):
        await Sender(store, store).send(link, row, PriorityGate(), Route.DIRECT)
    assert len(store.entries) >= 6
