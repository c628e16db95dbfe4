"""Messages of a transfer over protobuf, and what is not one."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from emix.exchange.v1 import exchange_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from node.documents.messages import (
    FRAME_BYTES,
    MOST_FURTHER_LINKS,
    MOST_OFFERED_BYTES,
    Answer,
    AnswerKind,
    ChunkFrame,
    Collect,
    ManifestFrame,
    Message,
    Offer,
    Problem,
    Progress,
    ReceiptKept,
    ReceiptMessage,
    Want,
    Withdraw,
)
from node.documents.signed import Document, Signer
from node.domain.ids import ChunkId, TransferId
from node.errors import NodeError, RemoteProtocolError
from node.federation.connections.wire import CARRY, decode, encode, from_wire, heartbeat, to_wire
from node.rpc.bounds import parse

small = st.binary(max_size=100)
printable = st.text(st.characters(categories=("L", "N")), max_size=100)
chunk_ids = st.binary(min_size=32, max_size=32).map(ChunkId)
transfer_ids = st.binary(min_size=16, max_size=16).map(TransferId)
documents = st.builds(Document, printable, small, small, st.builds(Signer, small, small, small))
numbers = st.integers(0, 2**53)
messages = st.one_of(
    st.builds(Collect, transfer_ids),
    st.builds(Withdraw, transfer_ids),
    st.builds(
        Offer,
        documents,
        small,
        st.none() | documents,
        st.integers(0, MOST_FURTHER_LINKS),
        st.booleans(),
    ),
    st.builds(Answer, st.sampled_from(AnswerKind), st.integers(0, 3600), printable, st.booleans()),
    st.builds(ManifestFrame, small),
    st.builds(Want, st.lists(chunk_ids, max_size=5).map(tuple)),
    st.builds(ChunkFrame, st.none() | chunk_ids, small),
    st.builds(Progress, numbers, numbers),
    st.builds(ReceiptMessage, documents),
    st.builds(ReceiptKept),
    st.builds(Problem, printable, printable, st.booleans()),
)


@given(messages)
def test_message_comes_out_as_it_went_in(message: Message) -> None:
    encoded = to_wire(message).SerializeToString()
    assert from_wire(pb.CarryMessage.FromString(encoded)) == message


def as_bytes(message: Message | None) -> Message | None:
    """Return a message whose data are bytes, to compare it."""
    if isinstance(message, ChunkFrame):
        return ChunkFrame(message.chunk_id, bytes(message.data))
    return message


@given(messages)
def test_bytes_are_those_of_protobuf(message: Message) -> None:
    """Whoever carries, whichever way."""
    encoded = encode(message)
    for kind in (pb.CarryRequest, pb.CarryResponse):
        assert encoded == kind(message=to_wire(message)).SerializeToString()
    assert as_bytes(decode(encoded)) == message


@given(st.none() | chunk_ids, st.sampled_from([0, 1, 127, 128, 16_383, 16_384, FRAME_BYTES]))
def test_frames_of_every_length_are_those_of_protobuf(name: ChunkId | None, size: int) -> None:
    frame = ChunkFrame(name, bytes(size))
    encoded = encode(ChunkFrame(name, memoryview(bytes(size))))
    assert encoded == pb.CarryRequest(message=to_wire(frame)).SerializeToString()
    assert as_bytes(decode(encoded)) == frame


@given(st.none() | chunk_ids, st.binary(min_size=1, max_size=200), st.data())
def test_changed_frame_is_read_as_protobuf_reads_it(
    name: ChunkId | None, content: bytes, data: st.DataObject
) -> None:
    """What is taken apart by hand means nothing else than what protobuf takes it for."""
    changed = bytearray(encode(ChunkFrame(name, content)))
    at = data.draw(st.integers(0, min(len(changed), 48) - 1))
    match data.draw(st.sampled_from(["set", "cut", "put", "end"])):
        case "set":
            changed[at] = data.draw(st.integers(0, 255))
        case "cut":
            del changed[at : at + data.draw(st.integers(1, 40))]
        case "put":
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=5))
        case _:
            changed += data.draw(st.binary(min_size=1, max_size=9))
    assert said(decode, bytes(changed)) == said(by_protobuf, bytes(changed))


def by_protobuf(data: bytes) -> Message | None:
    return from_wire(parse(pb.CarryRequest, data, CARRY).message)


def said(read: Callable[[bytes], Message | None], data: bytes) -> object:
    try:
        return as_bytes(read(data))
    except RemoteProtocolError:
        return None


def test_frame_that_is_too_large_is_refused_unread() -> None:
    frame = encode(ChunkFrame(None, bytes(CARRY.size)))
    with pytest.raises(RemoteProtocolError, match="bytes; at most"):
        decode(frame)


def test_heartbeat_says_nothing() -> None:
    assert decode(heartbeat()) is None


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_message_or_an_error_of_ours(data: bytes) -> None:
    try:
        wire = pb.CarryMessage.FromString(data)
    except Exception:  # protobuf refuses it before us
        return
    with suppress(NodeError):
        from_wire(wire)


@pytest.mark.parametrize(
    "wire",
    [
        pb.CarryMessage(),
        pb.CarryMessage(want=pb.Want(chunk_ids=[b"short"])),
        pb.CarryMessage(chunk_frame=pb.ChunkFrame(chunk_id=b"x" * 31, data=b"x")),
        pb.CarryMessage(collect=pb.Collect(transfer_id=b"")),
        pb.CarryMessage(answer=pb.Answer()),
        pb.CarryMessage(offer=pb.Offer(sealed_key=bytes(1000))),
    ],
    ids=["nothing", "chunk id", "frame's id", "transfer id", "answer", "sealed key"],
)
def test_what_is_malformed_is_refused(wire: pb.CarryMessage) -> None:
    with pytest.raises(NodeError):
        from_wire(wire)


def test_manifest_in_an_offer_is_short() -> None:
    def offer(size: int) -> Offer:
        signer = Signer(b"1" * 32, b"c", b"s")
        return Offer(
            Document("delivery", b"d", b"s", signer),
            b"k",
            Document("manifest", bytes(size), b"s", signer),
        )

    assert from_wire(to_wire(offer(MOST_OFFERED_BYTES - 200))) == offer(MOST_OFFERED_BYTES - 200)
    with pytest.raises(RemoteProtocolError):
        from_wire(to_wire(offer(MOST_OFFERED_BYTES)))


def test_problem_of_a_peer_cannot_fool_a_terminal() -> None:
    wire = pb.CarryMessage(problem=pb.Problem(code="x", message="a\x1b[2Jb\n" + "c" * 9999))
    found = from_wire(wire)
    assert isinstance(found, Problem)
    assert found.message.isprintable()
    assert len(found.message) <= 500


@pytest.mark.parametrize("name", ["announce", "entries", "closed"])
def test_messages_of_a_later_version_have_their_place_and_are_refused_here(name: str) -> None:
    """A version that knows them sends them to peers that say so; another must not go on."""
    kept = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(kept)
    (carried,) = (message for message in kept.message_type if message.name == "CarryMessage")
    assert name in carried.reserved_name
    (numbers,) = carried.reserved_range
    for number in range(numbers.start, numbers.end):
        sent = bytes([number << 3 | 2, 2]) + b"xx"
        with pytest.raises(RemoteProtocolError, match="malformed"):
            from_wire(pb.CarryMessage.FromString(sent))
