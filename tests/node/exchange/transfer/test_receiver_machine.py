"""The receiver's side of a transfer without I/O: frames in, whole chunks and wants out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.digests import digest
from node.documents.messages import ChunkFrame
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry, Extent, InstanceEntry, Manifest
from node.errors import ChunkDamaged, RemoteProtocolError
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
