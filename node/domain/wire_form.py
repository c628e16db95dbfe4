"""How many fields an encoded protobuf message has, counted before anything is parsed.

*Measured* with protobuf's upb: a body of two-byte fields takes up to 39 times its size once it is
parsed (an empty message in a repeated field). The size alone therefore bounds no memory.
"""

from collections.abc import Mapping
from typing import Any

Form = Mapping[int, Any]
"""The fields of a message that are messages themselves, by number: each with its own form."""

_VARINT, _FIXED64, _LENGTH, _GROUP_START, _GROUP_END, _FIXED32 = range(6)
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT_BYTES = 10


def has_at_most(data: bytes, most: int, form: Form) -> bool:
    """Return whether an encoded message has at most so many fields, those within it included.

    What is no protobuf at all may get either answer: it does not parse afterwards.
    """
    if len(data) <= 2 * most:  # a field takes two bytes at least
        return True
    left = most
    levels = [(0, len(data), form)]
    while levels:
        at, end, known = levels.pop()
        while at < end:
            left -= 1
            if left < 0:
                return False
            tag, at = _varint(data, at, end)
            kind = tag & 7
            if kind == _VARINT:
                _, at = _varint(data, at, end)
            elif kind == _LENGTH:
                size, at = _varint(data, at, end)
                inner = known.get(tag >> 3)
                if inner is not None:
                    levels.append((at, min(at + size, end), inner))
                at += size
            else:
                at += _FIXED_BYTES.get(kind, 0)
    return True


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for i in range(at, min(at + _MOST_VARINT_BYTES, end)):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i + 1
        shift += 7
    return 0, end  # no varint: the message ends here, and does not parse
