"""The sender's side of a transfer without I/O: messages in, actions out."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.documents.messages import (
    Answer,
    AnswerKind,
    ManifestFrame,
    Problem,
    Progress,
    ReceiptMessage,
    Want,
)
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry, Extent, Manifest
from node.errors import BadReceipt, NotOffered, RemoteProtocolError
from node.exchange.transfer import sender_machine as sm
from tests.node.documents.test_documents import make_proof

MIB = 2**20
PROOF, DELIVERY, _ = make_proof()
MANIFEST = PROOF.verify()[0]


def sender(
    *, is_manifest_offered: bool = False
) -> tuple[sm.SenderMachine, Manifest, ReceiptMessage]:
    proof, delivery, _ = make_proof()
    manifest, _, _ = proof.verify()
    machine = sm.SenderMachine(
        delivery, proof.delivery.digest(), manifest, is_manifest_offered=is_manifest_offered
    )
    return machine, manifest, ReceiptMessage(proof.receipt)


FULL = Problem("store-full", "x", is_final=False)
ACCEPTED = Answer(AnswerKind.ACCEPTED, is_manifest_needed=True)


def test_sender_serves_what_is_wanted_and_keeps_the_receipt() -> None:
    machine, manifest, receipt = sender()
    assert machine.got(ACCEPTED) == [sm.Begin(), sm.SendManifest()]
    want = Want(tuple(c.chunk_id for c in manifest.chunks))
    assert machine.got(want) == [sm.SendChunk(c) for c in manifest.chunks]
    for chunk in manifest.chunks:
        machine.chunk_sent(chunk)
    assert machine.got(Progress(80, 160)) == [sm.NoteProgress(80)]
    assert machine.got(receipt) == [sm.KeepReceipt(receipt.receipt)]


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (Answer(AnswerKind.HELD), sm.Held()),
        (Answer(AnswerKind.LATER, retry_seconds=7), sm.ComeLater(7)),
        (Answer(AnswerKind.LATER, retry_seconds=10**9), sm.ComeLater(10**9)),
        (Answer(AnswerKind.LATER, retry_seconds=7, reason="no room"), sm.ComeLater(7, "no room")),
        (Answer(AnswerKind.DECLINED, reason="no"), sm.Declined("no")),
        (
            Problem("store-full", "x", is_final=False),
            sm.Broken(Problem("store-full", "x", is_final=False)),
        ),
    ],
)
def test_sender_does_as_it_is_answered(answer: Answer | Problem, action: sm.Action) -> None:
    machine, _, _ = sender()
    assert machine.got(answer) == [action]


def test_sender_refuses_a_chunk_that_is_not_in_the_delivery() -> None:
    machine, _, _ = sender()
    machine.got(ACCEPTED)
    with pytest.raises(NotOffered):
        machine.got(Want((ChunkId(bytes(32)),)))


@pytest.mark.parametrize("message", [Want(()), Progress(1, 1), ManifestFrame(b"x")])
def test_sender_refuses_what_may_not_come_before_the_answer(message: Want) -> None:
    machine, _, _ = sender()
    with pytest.raises(RemoteProtocolError):
        machine.got(message)


def test_sender_refuses_wants_beyond_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, manifest, _ = sender()
    machine.got(ACCEPTED)
    monkeypatch.setattr(sm, "WINDOW_BYTES", 100)
    both = tuple(chunk.chunk_id for chunk in manifest.chunks)
    with pytest.raises(RemoteProtocolError, match="window"):
        machine.got(Want(both))


def test_sender_serves_a_chunk_again_a_few_times_and_not_for_ever() -> None:
    machine, manifest, _ = sender()
    machine.got(ACCEPTED)
    want = Want((manifest.chunks[0].chunk_id,))
    for _ in range(sm.MAX_WANTS):
        assert machine.got(want) == [sm.SendChunk(manifest.chunks[0])]
        machine.chunk_sent(manifest.chunks[0])
    with pytest.raises(NotOffered, match="requested too often"):
        machine.got(want)


def test_sender_refuses_another_transfers_receipt() -> None:
    machine, _, _ = sender()
    _, _, other = sender()
    machine.got(ACCEPTED)
    with pytest.raises(BadReceipt):
        machine.got(other)


def carrying(sizes: list[int]) -> tuple[sm.SenderMachine, tuple[ChunkEntry, ...]]:
    """Return a machine whose offer was accepted, and its chunks, of these sizes."""
    chunks = tuple(
        ChunkEntry(n, ChunkId(bytes([n]) * 32), 10, size, bytes(32)) for n, size in enumerate(sizes)
    )
    extents = tuple(Extent(n, 0, 10) for n in range(len(sizes)))
    instance = replace(MANIFEST.instances[0], size_bytes=10 * len(sizes), extents=extents)
    manifest = replace(MANIFEST, instances=(instance,), chunks=chunks)
    machine = sm.SenderMachine(DELIVERY, PROOF.delivery.digest(), manifest)
    machine.got(ACCEPTED)
    return machine, chunks


def wanted(*chunks: ChunkEntry) -> Want:
    return Want(tuple(chunk.chunk_id for chunk in chunks))


@given(st.lists(st.integers(1, 4 * MIB), min_size=1, max_size=5), st.data())
def test_sender_serves_what_the_rules_allow_and_nothing_else(
    sizes: list[int], data: st.DataObject
) -> None:
    machine, chunks = carrying(sizes)
    owed: list[ChunkEntry] = []
    times: Counter[ChunkEntry] = Counter()
    for _ in range(20):
        if data.draw(st.booleans()) and owed:
            machine.chunk_sent(owed.pop(0))
        else:
            some = data.draw(st.lists(st.sampled_from(chunks), min_size=1, max_size=3))
            times.update(some)
            is_too_often = max(times.values()) > sm.MAX_WANTS
            if is_too_often or sum(c.sealed_bytes for c in owed + some) > sm.WINDOW_BYTES:
                with pytest.raises(NotOffered if is_too_often else RemoteProtocolError):
                    machine.got(wanted(*some))
                return
            assert machine.got(wanted(*some)) == [sm.SendChunk(chunk) for chunk in some]
            owed += some
        assert machine.is_owing == bool(owed)


def test_sender_lets_the_window_be_filled_to_its_last_byte() -> None:
    assert sm.WINDOW_BYTES == 16 * MIB
    machine, chunks = carrying([4 * MIB] * 4 + [1])
    assert len(machine.got(wanted(*chunks[:4]))) == 4
    with pytest.raises(RemoteProtocolError, match="window"):
        machine.got(wanted(chunks[4]))


@pytest.mark.parametrize(("said", "noted"), [(-1, 0), (0, 0), (160, 160), (10**12, 160)])
def test_sender_believes_no_progress_beyond_the_package(said: int, noted: int) -> None:
    machine, _, _ = sender()
    machine.got(ACCEPTED)
    assert machine.got(Progress(said, 10**12)) == [sm.NoteProgress(noted)]


def test_sender_is_answered_once() -> None:
    for again in (ACCEPTED, Answer(AnswerKind.DECLINED, reason="no")):
        machine, _, _ = sender()
        machine.got(ACCEPTED)
        with pytest.raises(RemoteProtocolError, match="Answer"):
            machine.got(again)


def test_sender_shows_no_manifest_that_the_receiver_has() -> None:
    machine, _, _ = sender()
    assert machine.got(Answer(AnswerKind.ACCEPTED, is_manifest_needed=False)) == [sm.Begin()]


def test_who_was_offered_the_manifest_accepts_by_what_it_wants() -> None:
    machine, manifest, _ = sender(is_manifest_offered=True)
    first, second, *_ = manifest.chunks
    assert machine.got(Want((first.chunk_id,))) == [sm.Begin(), sm.SendChunk(first)]
    assert machine.got(Want((second.chunk_id,))) == [sm.SendChunk(second)]
    with pytest.raises(RemoteProtocolError, match="Answer"):
        machine.got(ACCEPTED)
    plain, _, _ = sender()
    with pytest.raises(RemoteProtocolError, match="Want"):
        plain.got(Want((first.chunk_id,)))


@pytest.mark.parametrize("kind", [AnswerKind.HELD, AnswerKind.LATER, AnswerKind.DECLINED])
def test_who_was_offered_the_manifest_may_answer_all_the_same(kind: AnswerKind) -> None:
    machine, _, _ = sender(is_manifest_offered=True)
    (action,) = machine.got(Answer(kind))
    assert isinstance(action, sm.Held | sm.ComeLater | sm.Declined)
    machine, _, _ = sender(is_manifest_offered=True)
    assert machine.got(ACCEPTED) == [sm.Begin(), sm.SendManifest()]


def test_sender_keeps_the_receipt_of_who_has_the_package_already() -> None:
    machine, _, receipt = sender()
    assert machine.got(receipt) == [sm.KeepReceipt(receipt.receipt)]


def test_links_of_one_transfer_share_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    first, chunks = carrying([10] * 6)
    monkeypatch.setattr(sm, "WINDOW_BYTES", 30)
    further = first.beside()
    assert further.got(Want((chunks[0].chunk_id,))) == [sm.Begin(), sm.SendChunk(chunks[0])]
    first.got(Want((chunks[1].chunk_id, chunks[2].chunk_id)))
    with pytest.raises(RemoteProtocolError, match="window"):
        first.got(Want((chunks[3].chunk_id,)))
    again, chunks = carrying([10] * 6)
    further = again.beside()
    further.got(Want((chunks[0].chunk_id, chunks[1].chunk_id)))
    further.chunk_sent(chunks[0])
    further.leave()  # what it has not sent is wanted on the first
    again.got(Want(tuple(chunk.chunk_id for chunk in chunks[1:4])))
