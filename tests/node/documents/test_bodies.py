"""What a later version adds to a signed document is refused or ignored, as its number says."""

import pytest
from emix.documents.v1 import documents_pb2, network_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from node.documents.bodies import FIRST_TO_IGNORE, parse_body
from node.errors import BadManifest, DocumentError

LARGEST = 2**29 - 1
MESSAGES: list[Descriptor] = [
    message
    for module in (documents_pb2, network_pb2)
    for message in module.DESCRIPTOR.message_types_by_name.values()
]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def unknown(number: int) -> bytes:
    """Return a field of a later version, encoded."""
    return varint(number << 3) + b"\1"


def kind(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)


@pytest.mark.parametrize("descriptor", MESSAGES, ids=lambda d: d.name)
def test_field_that_must_be_understood_is_refused_and_one_that_may_be_ignored_is_not(
    descriptor: Descriptor,
) -> None:
    numbers = {field.number for field in descriptor.fields}
    assert max(numbers) < FIRST_TO_IGNORE
    for number in (max(numbers) + 1, FIRST_TO_IGNORE - 1):
        with pytest.raises(BadManifest, match=rf"has field {number}, .* upgrade emix"):
            parse_body(kind(descriptor), unknown(number), "manifest", BadManifest)
    for number in (FIRST_TO_IGNORE, LARGEST):
        assert not parse_body(kind(descriptor), unknown(number), "manifest").ByteSize()


def test_field_of_an_entry_is_held_to_the_same_rule() -> None:
    """An instance of a manifest that says something new, however deep."""
    extent = documents_pb2.Extent(chunk_index=1).SerializeToString()
    for number, is_taken in ((9, False), (FIRST_TO_IGNORE, True)):
        more = extent + unknown(number)
        instance = documents_pb2.Instance(digest=b"d").SerializeToString()
        instance += b"\x3a" + varint(len(more)) + more  # extents = 7
        body = b"\x2a" + varint(len(instance)) + instance  # instances = 5
        if is_taken:
            found = parse_body(documents_pb2.Manifest, body, "manifest")
            assert found.instances[0].extents[0].chunk_index == 1
        else:
            with pytest.raises(DocumentError, match="upgrade"):
                parse_body(documents_pb2.Manifest, body, "manifest")


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_a_document_error(data: bytes) -> None:
    for descriptor in MESSAGES:
        try:
            parse_body(kind(descriptor), data, "thing")
        except DocumentError:
            continue
