"""Encoding a chunk's plaintext: losslessly, and by what its bytes are.

How this works. The pieces of a chunk are cut into regions: headers, pixels of each kind, and what
is compressed already. Regions of one kind are joined into a group, however many instances they come
from: headers of a series resemble each other, and so do their pixels. Each group is transformed
(`node.codec.planes`) in the way that makes a sample of it smallest, and compressed.

*Measured*, 1,000 CT slices with 10 HU of noise: 42 % of the size at 0.9 GB/s a core.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from node.codec import regions, zstd
from node.codec.kinds import Codec
from node.codec.planes import (
    LEAST_ROW,
    Samples,
    row_differences,
    split_bytes,
    split_colour,
)
from node.codec.regions import MOST_GROUPS, MOST_REGIONS, Encoded, Form, Group, Region
from node.domain.pixels import Pixels

Buffer = bytes | memoryview

_LEAST_BYTES = 256  # fewer are stored as they are
# What compression must leave at most, of a plane or a chunk; else it is not worth expanding.
_WORTH = 0.97
_SAMPLE_BYTES = 2**16  # on which the form is chosen


class _Kind(NamedTuple):
    """What regions of one group have in common."""

    sample_bytes: int
    samples: int
    row: int


_PLAIN = _Kind(1, 1, 0)
_COMPRESSED = _Kind(0, 1, 0)


def encode(pieces: Sequence[tuple[Buffer, Pixels | None]]) -> tuple[Codec, bytes]:
    """Return how a chunk is encoded, and its encoded bytes, never more than its plaintext.

    Deterministic with one version of zstd.

    Args:
        pieces: The bytes in it, and where pixels lie in them.
    """
    size = sum(len(content) for content, _ in pieces)
    if size >= _LEAST_BYTES:
        encoded = regions.write(_encode(pieces))
        if len(encoded) <= size * _WORTH:
            return Codec.REGIONS, encoded
    return Codec.STORED, _joined([content for content, _ in pieces])


def _encode(pieces: Sequence[tuple[Buffer, Pixels | None]]) -> Encoded:
    cut: list[tuple[_Kind, Buffer]] = []
    for content, pixels in pieces:
        cut += _cut(memoryview(content), pixels)
    if len(cut) > MOST_REGIONS:
        cut = [(_PLAIN, _joined([content for _, content in cut]))]
    numbers: dict[_Kind, int] = {}
    parts: list[list[Buffer]] = []
    found: list[Region] = []
    for kind, content in cut:
        if kind not in numbers and len(numbers) == MOST_GROUPS - 1:
            kind = _PLAIN
        number = numbers.setdefault(kind, len(numbers))
        if number == len(parts):
            parts.append([])
        parts[number].append(content)
        if found and found[-1].group == number:
            found[-1] = Region(number, found[-1].length + len(content))
        else:
            found.append(Region(number, len(content)))
    groups, planes = [], []
    for kind in numbers:
        content = _joined(parts[numbers[kind]])
        parts[numbers[kind]].clear()
        group, mine = _pack(kind, content)
        groups.append(group)
        planes.append(mine)
    return Encoded(groups, found, planes)


def _joined(parts: Sequence[Buffer]) -> bytes:
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    return b"".join(parts)


def _cut(content: memoryview, pixels: Pixels | None) -> list[tuple[_Kind, Buffer]]:
    """Cut a piece into its regions."""
    pixels = pixels and pixels.within(0, len(content))
    if pixels is None:
        return [(_PLAIN, content)] if content else []
    kind, length = _COMPRESSED, pixels.length
    if not pixels.is_compressed:
        unit = pixels.sample_bytes * pixels.samples
        length -= length % unit
        kind = _Kind(pixels.sample_bytes, pixels.samples, pixels.row_bytes // unit)
    start, end = pixels.offset, pixels.offset + length
    cut = ((_PLAIN, content[:start]), (kind, content[start:end]), (_PLAIN, content[end:]))
    return [(kind, part) for kind, part in cut if part]


def _pack(kind: _Kind, content: bytes) -> tuple[Group, list[Buffer]]:
    if kind == _COMPRESSED:
        return Group(Form.PLAIN, 1, 1, 0, len(content)), [content]
    samples = np.frombuffer(content, f"<u{kind.sample_bytes}")
    group = _choose(kind, samples)
    return group, _compressed(_transformed(group, samples))


def _choose(kind: _Kind, samples: Samples) -> Group:
    """Return the form that makes a sample from the middle smallest."""
    unit = kind.samples
    count = min(len(samples), max(_SAMPLE_BYTES // kind.sample_bytes, 4 * unit * kind.row))
    start = (len(samples) - count) // 2 // unit * unit
    sample = samples[start : start + count // unit * unit]
    groups = [_group(kind, form, samples.nbytes) for form in _forms(kind, len(sample))]
    if len(groups) == 1:
        return groups[0]
    sizes = [sum(map(len, _compressed(_transformed(group, sample)))) for group in groups]
    return groups[sizes.index(min(sizes))]


def _forms(kind: _Kind, count: int) -> list[Form]:
    forms = [Form.PLAIN]
    if kind.samples > 1:
        forms += (Form.COLOURS, Form.COLOURS | Form.GREEN)
    if kind.row >= LEAST_ROW and count >= 2 * kind.row * kind.samples:
        forms += [Form.ROWS | form for form in forms[1 if kind.samples > 1 else 0 :]]
    return forms


def _group(kind: _Kind, form: Form, size: int) -> Group:
    samples = kind.samples if Form.COLOURS in form else 1
    return Group(form, kind.sample_bytes, samples, kind.row if Form.ROWS in form else 0, size)


def _transformed(group: Group, samples: Samples) -> Samples:
    if Form.COLOURS in group.form:
        samples = split_colour(samples, is_subtracted=Form.GREEN in group.form)
    if Form.ROWS in group.form:
        samples = row_differences(samples, group.row)
    return samples


def _compressed(samples: Samples) -> list[Buffer]:
    """Return the planes of samples, each compressed if that is worth it."""
    found: list[Buffer] = []
    for plane in split_bytes(samples):
        packed = zstd.compress(plane.data)
        found.append(packed if len(packed) <= plane.nbytes * _WORTH else plane.data)
    return found
