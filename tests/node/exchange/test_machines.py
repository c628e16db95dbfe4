"""Both sides of a transfer without I/O: events in, actions out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.digests import digest
from node.documents.messages import (
    Answer,
    AnswerKind,
    ChunkFrame,
    ManifestFrame,
    Problem,
    Progress,
    ReceiptMessage,
    Want,
)
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry, Extent, InstanceEntry, Manifest
from node.errors import BadReceipt, ChunkDamaged, NotOffered, RemoteProtocolError
from node.exchange.transfer import sender_machine as sm
from node.exchange.transfer.receiver_machine import ReceiverMachine
from tests.node.documents.test_documents import make_proof

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def sealed_chunk(n: int, size: int) -> bytes:
    return bytes([n]) * size


def manifest_of(sizes: list[int]) -> Manifest:
    chunks = tuple(
        ChunkEntry(n, ChunkId(digest(sealed_chunk(n, s))), 10, s, bytes(32))
        for n, s in enumerate(sizes)
    )
    extents = tuple(Extent(n, 0, 10) for n in range(len(sizes)))
    instance = InstanceEntry("1.2", "1.2", "1.2", "1.2", 10 * len(sizes), bytes(32), extents)  # type: ignore[arg-type]
    proof, _, _ = make_proof()
    base, _, _ = proof.verify()
    return Manifest(base.package_id, base.origin, base.study_instance_uid, 1.0, (instance,), chunks)


@given(SIZES, st.data())
def test_receiver_carries_each_missing_chunk_once_whatever_the_frames(
    sizes: list[int], data: st.DataObject
) -> None:
    manifest = manifest_of(sizes)
    present = data.draw(st.sets(st.integers(0, len(sizes) - 1)))
    window = data.draw(st.integers(60, 300))
    machine = ReceiverMachine(manifest, present, window_bytes=window)
    wanted: list[int] = []
    stored: list[int] = []
    by_id = {c.chunk_id: n for n, c in enumerate(manifest.chunks)}
    while not machine.is_complete:
        want = machine.next_want()
        if want:
            wanted += [by_id[c] for c in want.chunk_ids]
        position = wanted[len(stored)]
        whole = None
        bytes_left = sealed_chunk(position, sizes[position])
        name: ChunkId | None = manifest.chunks[position].chunk_id
        while bytes_left:
            size = data.draw(st.integers(1, len(bytes_left)))
            assert whole is None
            whole = machine.got_frame(ChunkFrame(name, bytes_left[:size]))
            bytes_left, name = bytes_left[size:], None
        assert whole is not None
        assert digest(whole.sealed) == whole.entry.chunk_id.digest
        stored.append(whole.position)
        machine.stored(whole.position)
        open_bytes = sum(sizes[p] for p in wanted if p not in stored)
        assert open_bytes <= window
    assert sorted(stored) == [n for n in range(len(sizes)) if n not in present]


def test_receiver_refuses_frames_out_of_order() -> None:
    machine = ReceiverMachine(manifest_of([10, 10]), ())
    with pytest.raises(RemoteProtocolError, match="not wanted"):
        machine.got_frame(ChunkFrame(None, b"x"))
    want = machine.next_want()
    assert want is not None
    first, second = want.chunk_ids
    for frame in (ChunkFrame(second, b"x"), ChunkFrame(None, b"x"), ChunkFrame(first, b"")):
        with pytest.raises(RemoteProtocolError):
            machine.got_frame(frame)
    assert machine.got_frame(ChunkFrame(first, b"123")) is None
    with pytest.raises(RemoteProtocolError):
        machine.got_frame(ChunkFrame(first, b"123"))


def test_receiver_refuses_a_byte_too_many() -> None:
    machine = ReceiverMachine(manifest_of([10]), ())
    want = machine.next_want()
    assert want is not None
    with pytest.raises(ChunkDamaged, match="longer"):
        machine.got_frame(ChunkFrame(want.chunk_ids[0], bytes(11)))


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
