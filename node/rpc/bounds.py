"""Bounds on messages, checked on the encoded bytes before they are parsed."""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from node.domain.wire_form import Form, has_at_most
from node.errors import RemoteProtocolError

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a message may be.

    Attributes:
        size: In bytes, as encoded.
        fields: Those of messages within it included.
    """

    size: int = 64 * 1024
    fields: int = 4096


SMALL = Bound()
"""For every message for which nothing else is said. Parsed, it takes 1.5 MB at most."""


OWN = Bound(4 * 2**20, fields=2**20)
"""For answers of a process that is as trusted as the caller: its admin socket's."""


def parse(kind: type[M], data: bytes, bound: Bound) -> M:
    """Return the message in `data`.

    Raises:
        RemoteProtocolError: it is larger than the bound, or no such message.
    """
    name = kind.DESCRIPTOR.name
    if len(data) > bound.size:
        raise RemoteProtocolError(
            f"a {name} has {len(data)} bytes; at most {bound.size} are accepted"
        )
    if not has_at_most(data, bound.fields, _form(kind.DESCRIPTOR)):
        raise RemoteProtocolError(f"a {name} has more than {bound.fields} fields")
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise RemoteProtocolError(f"the message is not a valid {name}") from exc


@cache
def _form(descriptor: Descriptor) -> Form:
    """Return a message's form. A message within itself is counted as far as one can look."""
    return _forms(descriptor, {})


def _forms(descriptor: Descriptor, made: dict[str, dict[int, Form]]) -> Form:
    known = made.get(descriptor.full_name)
    if known is not None:
        return known
    found = made[descriptor.full_name] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            found[field.number] = _forms(field.message_type, made)
    return found
