"""What a message may be is held against its bytes."""

import gc
from pathlib import Path

import pytest
from emix.directory.v1 import admin_pb2, directory_pb2
from emix.exchange.v1 import exchange_pb2
from emix.introduction.v1 import introduction_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from node.errors import RemoteProtocolError
from node.federation.connections.wire import CARRY
from node.rpc.bounds import SMALL, Bound, parse
from node.rpc.methods import methods

_MODULES = (exchange_pb2, introduction_pb2, directory_pb2, admin_pb2)
# Each once, in one order: a set would have another order in each process.
_KINDS: list[type[Message]] = list(
    dict.fromkeys(
        kind
        for module in _MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for m in methods(service)
        for kind in (m.request, m.response)
    )
)


def test_messages_over_the_bound_are_not_parsed() -> None:
    with pytest.raises(RemoteProtocolError, match="at most 3 are accepted"):
        parse(exchange_pb2.GetListRequest, b"\x0a\x02xx", Bound(size=3))
    with pytest.raises(RemoteProtocolError, match="more than 2 fields"):
        parse(exchange_pb2.Want, b"\x0a\x00" * 3, Bound(fields=2))
    with pytest.raises(RemoteProtocolError, match="not a valid Want"):
        parse(exchange_pb2.Want, b"\xff", SMALL)
    assert parse(exchange_pb2.Want, b"\x0a\x00" * 2, Bound(fields=2)).chunk_ids == [b"", b""]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _bodies(kind: type[Message], bound: Bound) -> list[bytes]:
    """Return bodies that swell when parsed, as large as the bound lets through."""
    is_long = FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING
    fields = [f for f in kind.DESCRIPTOR.fields if f.type in is_long]
    units = [bytes([f.number << 3 | 2, n, *[120] * n]) for f in fields for n in (0, 1)]
    return [unit * min(bound.fields, bound.size // len(unit)) for unit in (*units, b"\x78\x01")]


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.DESCRIPTOR.full_name)
def test_a_parsed_small_message_takes_at_most_one_and_a_half_megabytes(kind: type[Message]) -> None:
    for body in _bodies(kind, SMALL):
        gc.collect()
        before = _resident()
        try:
            kept = [parse(kind, body, SMALL) for _ in range(8)]
        except RemoteProtocolError:
            continue
        assert (_resident() - before) / len(kept) < 1.5e6


def test_a_frame_is_parsed_and_a_flood_of_wanted_chunks_is_not() -> None:
    frame = exchange_pb2.CarryMessage(chunk_frame=exchange_pb2.ChunkFrame(data=b"x" * 2**21))
    whole = exchange_pb2.CarryRequest(message=frame)
    assert parse(exchange_pb2.CarryRequest, whole.SerializeToString(), CARRY) == whole
    want = exchange_pb2.CarryMessage(want=exchange_pb2.Want(chunk_ids=[b""] * 5000))
    encoded = exchange_pb2.CarryRequest(message=want).SerializeToString()
    with pytest.raises(RemoteProtocolError, match="more than 4096 fields"):
        parse(exchange_pb2.CarryRequest, encoded, CARRY)
