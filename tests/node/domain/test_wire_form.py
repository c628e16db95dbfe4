"""Fields are counted as protobuf counts them, before it parses."""

import pytest
from emix.directory.v1 import directory_pb2 as dpb
from emix.exchange.v1 import exchange_pb2 as pb
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from node.domain.wire_form import Form, has_at_most

_CARRY: Form = {1: {1: {}, 5: {}, 6: {}, 11: {}}}


def count(message: Message) -> int:
    """Return how many fields a message has, those of messages in it included."""
    found = 0
    for field, value in message.ListFields():
        values = list(value) if field.is_repeated else [value]
        inner = field.message_type is not None
        found += len(values) + sum(count(v) for v in values if inner)
    return found


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 80))
def test_nested_fields_count(ids: list[bytes], most: int) -> None:
    message = pb.CarryRequest(message=pb.CarryMessage(want=pb.Want(chunk_ids=ids)))
    data = message.SerializeToString()
    assert has_at_most(data, most, _CARRY) is (count(message) <= most)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(0, 60))
def test_fields_of_numbers_count(numbers: list[int], most: int) -> None:
    lists = [pb.KnownList(network_id=b"x", number=number) for number in numbers]
    message = pb.HelloRequest(lists=lists, software="s")
    data = message.SerializeToString()
    assert has_at_most(data, most, {6: {}}) is (count(message) <= most)


@given(st.binary(max_size=200), st.integers(0, 20))
def test_any_bytes_have_an_answer(data: bytes, most: int) -> None:
    has_at_most(data, most, _CARRY)


@given(st.binary(max_size=300))
def test_what_parses_never_has_more_fields_than_were_counted(data: bytes) -> None:
    try:
        message = dpb.FindResponse.FromString(data)
    except Exception:  # it is no message
        return
    known = count(message)
    if known:
        assert not has_at_most(data, known - 1, {1: {}}) or len(data) <= 2 * (known - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"\xfa\x01\x00" * 100,  # an unknown field
        b"\x0b\x0c" * 100,  # groups
        b"\x0d1234" * 100,
        b"\x0912345678" * 100,
    ],
)
def test_unknown_fields_and_groups_count(data: bytes) -> None:
    assert has_at_most(data, 200, {})
    assert not has_at_most(data, 50, {})
