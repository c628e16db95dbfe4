"""The sender's side of a transfer without I/O: messages in, actions out."""

import pytest

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
from node.domain.manifest import Manifest
from node.errors import BadReceipt, NotOffered, RemoteProtocolError
from node.exchange.transfer import sender_machine as sm
from tests.node.documents.test_documents import make_proof


def sender() -> tuple[sm.SenderMachine, Manifest, ReceiptMessage]:
    proof, delivery, _ = make_proof()
    manifest, _, _ = proof.verify()
    machine = sm.SenderMachine(delivery, proof.delivery.digest(), manifest)
    return machine, manifest, ReceiptMessage(proof.receipt)


FULL = Problem("store-full", "x", is_final=False)
ACCEPTED = Answer(AnswerKind.ACCEPTED, is_manifest_needed=True)


def test_sender_serves_what_is_wanted_and_keeps_the_receipt() -> None:
    machine, manifest, receipt = sender()
    assert machine.got(ACCEPTED) == [sm.SendManifest()]
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
    with pytest.raises(NotOffered, match="again and again"):
        machine.got(want)


def test_sender_refuses_another_transfers_receipt() -> None:
    machine, _, _ = sender()
    _, _, other = sender()
    machine.got(ACCEPTED)
    with pytest.raises(BadReceipt):
        machine.got(other)
