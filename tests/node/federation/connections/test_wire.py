"""Messages of a transfer over protobuf, and what is not one."""

from contextlib import suppress

import pytest
from emix.exchange.v1 import exchange_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from node.documents.messages import (
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
from node.federation.connections.wire import from_wire, heartbeat, to_wire

small = st.binary(max_size=100)
printable = st.text(st.characters(categories=("L", "N")), max_size=100)
chunk_ids = st.binary(min_size=32, max_size=32).map(ChunkId)
transfer_ids = st.binary(min_size=16, max_size=16).map(TransferId)
documents = st.builds(Document, printable, small, small, st.builds(Signer, small, small, small))
numbers = st.integers(0, 2**53)
messages = st.one_of(
    st.builds(Collect, transfer_ids),
    st.builds(Withdraw, transfer_ids),
    st.builds(Offer, documents, small),
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


def test_heartbeat_says_nothing() -> None:
    assert from_wire(heartbeat()) is None


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
