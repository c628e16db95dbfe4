"""Parsing signed bodies: no field that must be understood is silently ignored.

A later version may add fields. Fields from 1 to 999 must be understood: a document with an unknown
one is refused; otherwise an old node would ignore a later restriction. Fields from 1000 on may be
ignored; the exact bytes are kept, so a version that knows them still finds them.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from node.errors import DocumentError

FIRST_TO_IGNORE = 1000
"""Fields of a signed body from this number on may be ignored by whoever does not know them."""

_Body = TypeVar("_Body", bound=Message)


def parse_body(
    kind: type[_Body], body: bytes, what: str, error: type[DocumentError] = DocumentError
) -> _Body:
    """Return the message in signed bytes, without unknown fields that may be ignored.

    Args:
        kind: The message class.
        body: The bytes that were signed; their length was checked.
        what: Its name in an error.
        error: The class of the error.

    Raises:
        DocumentError: it is not such a message, or has a field that this version must understand.
    """
    try:
        message = kind.FromString(body)
    except DecodeError as exc:
        raise error(f"the bytes are not a valid {what}") from exc
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        unknown = min(_unknown(kind.FromString(body)), default=0)
        if unknown < FIRST_TO_IGNORE:
            raise error(
                f"the {what} has field {unknown}, which this version of emix does not know:"
                " upgrade emix"
            )
    return message


def _unknown(message: Message) -> Iterator[int]:
    """Yield the numbers of all fields that are not known, at any depth."""
    fields: Any = UnknownFieldSet(message)  # its stubs know no iterator
    yield from (field.field_number for field in fields)
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for inner in value if descriptor.is_repeated else (value,):
                yield from _unknown(inner)
