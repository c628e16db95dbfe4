"""Encoding a chunk's plaintext: losslessly, and by what its bytes are.

How this works. The pieces of a chunk are cut into regions: headers, pixels of each kind, and what
is compressed already. Regions of one kind are joined into a group, however many instances they come
from: headers of a series resemble each other, and so do their pixels. Each group is transformed
(`node.codec.planes`) in the way that makes a sample of it smallest, and compressed.

*Measured*, 1,000 CT slices with 10 HU of noise: 42 % of the size at 0.9 GB/s a core.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from node.codec import jpeg_ls, regions, zstd
from node.codec.kinds import Codec
from node.codec.planes import (
    LEAST_ROW,
    Bytes,
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


def encode(
    pieces: Sequence[tuple[Buffer, Pixels | None]], *, is_small: bool = False
) -> tuple[Codec, bytes]:
    """Return how a chunk is encoded, and its encoded bytes, never more than its plaintext.

    Deterministic with one version of zstd, and of CharLS.

    Args:
        pieces: The bytes in it, and where pixels lie in them.
        is_small: Whether JPEG-LS is used where it is smaller: ten times as slow.
    """
    size = sum(len(content) for content, _ in pieces)
    if size >= _LEAST_BYTES:
        encoded = _encode(pieces, is_small=is_small)
        written = regions.write(encoded)
        if len(written) <= size * _WORTH:
            has_jpeg_ls = any(Form.JPEG_LS in group.form for group in encoded.groups)
            return Codec.SMALL if has_jpeg_ls else Codec.REGIONS, written
    return Codec.STORED, _joined([content for content, _ in pieces])


def _encode(pieces: Sequence[tuple[Buffer, Pixels | None]], *, is_small: bool) -> Encoded:
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
        group, mine = _pack(kind, content, is_small=is_small)
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


def _pack(kind: _Kind, content: bytes, *, is_small: bool) -> tuple[Group, list[Buffer]]:
    if kind == _COMPRESSED:
        return Group(Form.PLAIN, 1, 1, 0, len(content)), [content]
    samples = np.frombuffer(content, f"<u{kind.sample_bytes}")
    for form in _ranked(kind, samples, is_small=is_small):
        group = _group(kind, form, samples.nbytes)
        planes = _packed(group, samples)
        if planes is not None:
            return group, planes
    raise AssertionError("zstd takes everything")


def _ranked(kind: _Kind, samples: Samples, *, is_small: bool) -> list[Form]:
    """Return the forms that are possible, from the one that makes a sample smallest on."""
    unit = kind.samples
    count = min(len(samples), max(_SAMPLE_BYTES // kind.sample_bytes, 4 * unit * kind.row))
    start = (len(samples) - count) // 2 // unit * unit
    sample = samples[start : start + count // unit * unit]
    forms = _forms(kind, len(sample))
    if is_small:
        forms += _forms_with_jpeg_ls(kind, len(samples))
    if len(forms) == 1:
        return forms
    sizes = {form: _packed_size(_group(kind, form, sample.nbytes), sample) for form in forms}
    return sorted(forms, key=lambda form: sizes[form])


def _packed_size(group: Group, samples: Samples) -> float:
    planes = _packed(group, samples)
    return math.inf if planes is None else sum(map(len, planes))


def _forms(kind: _Kind, count: int) -> list[Form]:
    forms = [Form.PLAIN]
    if kind.samples > 1:
        forms += (Form.COLOURS, Form.COLOURS | Form.GREEN)
    if kind.row >= LEAST_ROW and count >= 2 * kind.row * kind.samples:
        forms += [Form.ROWS | form for form in forms[1 if kind.samples > 1 else 0 :]]
    return forms


def _forms_with_jpeg_ls(kind: _Kind, count: int) -> list[Form]:
    """Return those that JPEG-LS has for so many samples."""
    is_possible = (
        kind.sample_bytes in jpeg_ls.SAMPLE_BYTES
        and LEAST_ROW <= kind.row <= jpeg_ls.MOST_COLUMNS
        and count <= kind.row * jpeg_ls.MOST_ROWS
    )
    if not is_possible:
        return []
    if kind.samples == 1:
        return [Form.JPEG_LS]
    return [Form.JPEG_LS | Form.COLOURS, Form.JPEG_LS | Form.COLOURS | Form.GREEN]


def _group(kind: _Kind, form: Form, size: int) -> Group:
    samples = kind.samples if Form.COLOURS in form else 1
    row = kind.row if form & (Form.ROWS | Form.JPEG_LS) else 0
    return Group(form, kind.sample_bytes, samples, row, size)


def _packed(group: Group, samples: Samples) -> list[Buffer] | None:
    """Return the planes of a group, or None where JPEG-LS makes it no smaller."""
    if Form.COLOURS in group.form:
        samples = split_colour(samples, is_subtracted=Form.GREEN in group.form)
    if Form.JPEG_LS in group.form:
        rows = np.zeros((group.rows, group.row), samples.dtype)
        rows.reshape(-1)[: len(samples)] = samples
        scan = jpeg_ls.compress(rows)
        return None if scan is None else [scan]
    if Form.ROWS in group.form:
        samples = row_differences(samples, group.row)
    return [_compressed(plane) for plane in split_bytes(samples)]


def _compressed(plane: Bytes) -> Buffer:
    """Return a plane compressed, if that is worth it."""
    packed = zstd.compress(plane.data)
    return packed if len(packed) <= plane.nbytes * _WORTH else plane.data
