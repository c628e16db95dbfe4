"""The receiver's side of a transfer without I/O: frames in, whole chunks and wants out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.digests import digest
from node.documents.messages import Answer, AnswerKind, ChunkFrame
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry, Extent, InstanceEntry, Manifest
from node.errors import ChunkDamaged, RemoteProtocolError
from node.exchange.transfer import sender_machine
from node.exchange.transfer.receiver_machine import MOST_WANTED, Missing, ReceiverMachine
from tests.node.documents.test_documents import make_proof

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def sealed_chunk(n: int, size: int) -> bytes:
    return bytes([n % 256]) * size


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
    machine = ReceiverMachine(Missing(manifest, present, window_bytes=window))
    wanted: list[int] = []
    stored: list[int] = []
    by_id = {c.chunk_id: n for n, c in enumerate(manifest.chunks)}
    while not machine.missing.is_complete:
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
        machine.missing.stored(whole.position)
        open_bytes = sum(sizes[p] for p in wanted if p not in stored)
        assert open_bytes <= window
    assert sorted(stored) == [n for n in range(len(sizes)) if n not in present]


def test_window_takes_chunks_in_the_manifests_order_each_by_its_own_size() -> None:
    machine = ReceiverMachine(Missing(manifest_of([10, 50, 10, 20]), (), window_bytes=60))
    names = [chunk.chunk_id for chunk in manifest_of([10, 50, 10, 20]).chunks]
    want = machine.next_want()
    assert want is not None
    assert want.chunk_ids == tuple(names[:2])
    assert machine.next_want() is None
    assert machine.got_frame(ChunkFrame(names[0], sealed_chunk(0, 10))) is not None
    machine.missing.stored(0)
    want = machine.next_want()
    assert want is not None
    assert want.chunk_ids == (names[2],)
    assert machine.next_want() is None, "the next of 20 bytes has no room beside 50 and 10"


def test_window_is_what_a_sender_may_have_under_way() -> None:
    assert sender_machine.WINDOW_BYTES == 16 * 2**20
    chunks = sender_machine.WINDOW_BYTES // 2**20
    want = ReceiverMachine(Missing(manifest_of([2**20] * (chunks + 1)), ())).next_want()
    assert want is not None
    assert len(want.chunk_ids) == chunks


def test_receiver_refuses_frames_out_of_order() -> None:
    machine = ReceiverMachine(Missing(manifest_of([10, 10]), ()))
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
    machine = ReceiverMachine(Missing(manifest_of([10]), ()))
    want = machine.next_want()
    assert want is not None
    with pytest.raises(ChunkDamaged, match="longer"):
        machine.got_frame(ChunkFrame(want.chunk_ids[0], bytes(11)))


def test_receiver_counts_every_byte_that_came_also_of_a_chunk_that_is_not_whole() -> None:
    machine = ReceiverMachine(Missing(manifest_of([10, 10]), {0}))
    want = machine.next_want()
    assert want is not None
    machine.got_frame(ChunkFrame(want.chunk_ids[0], bytes(7)))
    assert machine.missing.carried_bytes == 7
    assert not machine.missing.is_complete


def test_receiver_wants_nothing_while_what_has_come_is_not_stored() -> None:
    manifest = manifest_of([10, 10, 10])
    machine = ReceiverMachine(Missing(manifest, (), window_bytes=20))
    want = machine.next_want()
    assert want is not None
    assert [c.chunk_id for c in manifest.chunks[:2]] == list(want.chunk_ids)
    whole = [machine.got_frame(ChunkFrame(c, sealed_chunk(0, 10))) for c in want.chunk_ids]
    assert not machine.is_due
    assert machine.next_want() is None
    assert whole[1] is not None
    machine.missing.stored(whole[1].position)
    last = machine.next_want()
    assert last is not None
    assert last.chunk_ids == (manifest.chunks[2].chunk_id,)


def test_receiver_wants_so_many_in_one_message_and_the_others_in_the_next() -> None:
    machine = ReceiverMachine(
        Missing(manifest_of([1 + n // 256 for n in range(MOST_WANTED + 1)]), ())
    )
    counts = [len(want.chunk_ids) for want in iter(machine.next_want, None)]
    assert counts == [MOST_WANTED, 1]


def test_receiver_wants_what_was_here_and_is_lost_and_is_not_complete_without() -> None:
    manifest = manifest_of([10, 10])
    machine = ReceiverMachine(Missing(manifest, {0, 1}))
    assert machine.missing.is_complete
    assert machine.next_want() is None
    machine.missing.lost(1)
    assert not machine.missing.is_complete
    want = machine.next_want()
    assert want is not None
    assert want.chunk_ids == (manifest.chunks[1].chunk_id,)
    assert machine.got_frame(ChunkFrame(want.chunk_ids[0], sealed_chunk(1, 10))) is not None
    machine.missing.stored(1)
    assert machine.missing.is_complete


@given(SIZES, st.integers(1, 4), st.data())
def test_links_share_what_is_missing_and_none_of_it_is_lost_with_one(
    sizes: list[int], count: int, data: st.DataObject
) -> None:
    """Each chunk comes once, whichever links break meanwhile, as long as one is left."""
    manifest = manifest_of(sizes)
    window = data.draw(st.integers(max(sizes), 300))
    missing = Missing(manifest, (), window_bytes=window)
    links = [ReceiverMachine(missing) for _ in range(count)]
    wanted: dict[ReceiverMachine, list[ChunkId]] = {link: [] for link in links}
    by_id = {c.chunk_id: n for n, c in enumerate(manifest.chunks)}
    unstored: list[int] = []
    stored: list[int] = []
    while not missing.is_complete:
        for link in links:
            if want := link.next_want():
                wanted[link] += want.chunk_ids
        under_way = sum(sizes[by_id[c]] for ids in wanted.values() for c in ids)
        assert under_way + sum(sizes[p] for p in unstored) == missing.open_bytes <= window
        due = [link for link in links if link.is_due]
        assert due or unstored
        steps = ["send"] * bool(due) + ["store", "give back"] * bool(unstored)
        steps += ["break", "join"] if len(links) > 1 else ["join"]
        match data.draw(st.sampled_from(steps)):
            case "send":
                link = data.draw(st.sampled_from(due))
                name = wanted[link].pop(0)
                number = by_id[name]
                whole = link.got_frame(ChunkFrame(name, sealed_chunk(number, sizes[number])))
                assert whole is not None
                unstored.append(whole.position)
            case "store":
                stored.append(unstored.pop(data.draw(st.integers(0, len(unstored) - 1))))
                missing.stored(stored[-1])
            case "give back":
                missing.give_back(unstored.pop())
            case "break":
                link = links.pop(data.draw(st.integers(0, len(links) - 1)))
                link.leave()
                del wanted[link]
            case "join" if len(wanted) < 6:
                links.append(ReceiverMachine(missing))
                wanted[links[-1]] = []
    assert sorted(stored) == list(range(len(sizes)))
    assert missing.open_bytes == 0


def test_each_link_wants_its_share_of_the_window() -> None:
    missing = Missing(manifest_of([10] * 20), (), window_bytes=80)
    first, second = ReceiverMachine(missing), ReceiverMachine(missing)
    for link in (first, second):
        want = link.next_want()
        assert want is not None
        assert len(want.chunk_ids) == 4
        assert link.next_want() is None
    second.leave()
    want = first.next_want()
    assert want is not None
    assert want.chunk_ids[0] == missing.chunks[4].chunk_id, "what the other has left comes first"


@given(SIZES, st.data())
def test_sender_by_the_rules_serves_whatever_the_receiver_wants(
    sizes: list[int], data: st.DataObject
) -> None:
    """In whatever order chunks leave, are stored, and are found to be lost."""
    manifest = manifest_of(sizes)
    window = data.draw(st.integers(max(sizes), 200))
    here = data.draw(st.sets(st.integers(0, len(sizes) - 1)))
    lost = data.draw(st.lists(st.sampled_from(sorted(here)), unique=True)) if here else []
    receiver = ReceiverMachine(Missing(manifest, here, window_bytes=window))
    _, delivery, _ = make_proof()
    sender = sender_machine.SenderMachine(delivery, b"", manifest)
    sender.got(Answer(AnswerKind.ACCEPTED))
    leaving: list[ChunkEntry] = []
    unstored: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sender_machine, "WINDOW_BYTES", window)
        while lost or not receiver.missing.is_complete:
            if want := receiver.next_want():
                actions = sender.got(want)
                leaving += [a.entry for a in actions if isinstance(a, sender_machine.SendChunk)]
                assert len(leaving) >= len(want.chunk_ids)
            steps = ["lose"] * bool(lost) + ["send"] * bool(leaving) + ["store"] * bool(unstored)
            match data.draw(st.sampled_from(steps)):
                case "lose":
                    receiver.missing.lost(lost.pop())
                case "send":
                    entry = leaving.pop(0)
                    sender.chunk_sent(entry)
                    content = sealed_chunk(manifest.chunks.index(entry), entry.sealed_bytes)
                    whole = receiver.got_frame(ChunkFrame(entry.chunk_id, content))
                    assert whole is not None
                    unstored.append(whole.position)
                case "store":
                    index = data.draw(st.integers(0, len(unstored) - 1))
                    receiver.missing.stored(unstored.pop(index))
    assert not sender.is_owing
