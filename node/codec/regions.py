"""The form of codecs 2 and 3: which regions of a chunk belong together, and how they are kept.

```
1  groups (n)    1  zero    2  regions (m)    4  bytes of the table
n times:
    1  form      what was done (Form)
    1  bytes of a sample
    1  samples of a pixel
    1  zero
    4  samples of a row; 0 without differences of rows
    4  plaintext bytes
table            m times the number of its group (1), then m times its length (4), as one zstd frame
for each group, for each byte of a sample, lowest first (one time for JPEG-LS):
    4  length, and so many bytes: a zstd frame, or the bytes themselves where it is no shorter;
       or a scan of JPEG-LS (node.codec.jpeg_ls)
```

Numbers are little-endian. Regions tile the plaintext in the order of the table; a group is what its
regions hold, joined. This module has no transform in it: it writes and checks the form alone.
"""

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from node.codec import jpeg_ls, zstd
from node.codec.planes import LEAST_ROW
from node.domain.pixels import MOST_SAMPLES, SAMPLE_BYTES
from node.errors import ChunkDamaged

MOST_GROUPS, MOST_REGIONS = 64, 2**16 - 1

_HEAD = struct.Struct("<BxHI")
_GROUP = struct.Struct("<BBBxII")
_LENGTH = struct.Struct("<I")


class Form(enum.IntFlag):
    """What was done with a group's samples before its bytes were put apart."""

    PLAIN = 0
    ROWS = 1  # differences of rows
    COLOURS = 2  # samples of a pixel apart
    GREEN = 4  # with green subtracted from red and blue
    JPEG_LS = 8  # instead of zstd, in rows: codec 3 alone has it


@dataclass(frozen=True, slots=True)
class Group:
    """How a group was encoded.

    Attributes:
        form: What was done.
        sample_bytes: 1, 2, 4 or 8.
        samples: Samples of a pixel: 1 or 3.
        row: Samples of a row; 0 where rows do not matter.
        plaintext_bytes: Its size.
    """

    form: Form
    sample_bytes: int
    samples: int
    row: int
    plaintext_bytes: int

    @property
    def length(self) -> int:
        """How many samples it has."""
        return self.plaintext_bytes // self.sample_bytes

    @property
    def planes(self) -> int:
        """How many planes its samples are kept in."""
        return 1 if Form.JPEG_LS in self.form else self.sample_bytes

    @property
    def rows(self) -> int:
        """How many rows JPEG-LS has of it; the last one may be filled up."""
        return -(-self.length // self.row)


@dataclass(frozen=True, slots=True)
class Region:
    """A run of the plaintext, and the number of its group."""

    group: int
    length: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded chunk, taken apart but not expanded: `planes` has the bytes of each group."""

    groups: Sequence[Group]
    regions: Sequence[Region]
    planes: Sequence[Sequence[bytes | memoryview]]


def write(encoded: Encoded) -> bytes:
    """Return an encoded chunk's bytes."""
    regions = encoded.regions
    owners = np.array([region.group for region in regions], np.uint8).tobytes()
    lengths = np.array([region.length for region in regions], "<u4").tobytes()
    table = zstd.compress(owners + lengths)
    parts: list[bytes | memoryview] = [_HEAD.pack(len(encoded.groups), len(regions), len(table))]
    parts += (
        _GROUP.pack(g.form, g.sample_bytes, g.samples, g.row, g.plaintext_bytes)
        for g in encoded.groups
    )
    parts.append(table)
    for planes in encoded.planes:
        for plane in planes:
            parts += (_LENGTH.pack(len(plane)), plane)
    return b"".join(parts)


def read(data: bytes | memoryview, plaintext_bytes: int, *, has_jpeg_ls: bool = False) -> Encoded:
    """Take an encoded chunk apart, and check all that it says; nothing large is expanded.

    Args:
        data: As `write` makes it, or anything else.
        plaintext_bytes: How much it is to expand to.
        has_jpeg_ls: Whether its codec has that form.

    Raises:
        ChunkDamaged: it contradicts itself, or that size.
    """
    try:
        found = _read(memoryview(data), plaintext_bytes)
    except (struct.error, ValueError) as exc:
        raise ChunkDamaged("a compressed chunk is malformed") from exc
    if not has_jpeg_ls and any(Form.JPEG_LS in group.form for group in found.groups):
        raise ChunkDamaged("a compressed chunk has a form that its codec has not")
    return found


def _read(data: memoryview, plaintext_bytes: int) -> Encoded:
    count, regions, table_bytes = _HEAD.unpack_from(data)
    if not 0 < count <= MOST_GROUPS or not 0 < regions <= MOST_REGIONS:
        raise ValueError("too many groups or regions, or none")
    position = _HEAD.size
    groups = []
    for _ in range(count):
        groups.append(_group(*_GROUP.unpack_from(data, position)))
        position += _GROUP.size
    if sum(group.plaintext_bytes for group in groups) != plaintext_bytes:
        raise ValueError("another size")
    table = _slice(data, position, table_bytes)
    found = _table(table, regions, groups)
    position += table_bytes
    planes = []
    for group in groups:
        mine = []
        for _ in range(group.planes):
            (length,) = _LENGTH.unpack_from(data, position)
            mine.append(_slice(data, position + _LENGTH.size, length))
            position += _LENGTH.size + length
        planes.append(mine)
    if position != len(data):
        raise ValueError("bytes follow the last plane")
    return Encoded(groups, found, planes)


def _group(form: int, sample_bytes: int, samples: int, row: int, size: int) -> Group:
    group = Group(Form(form), sample_bytes, samples, row, size)
    is_colour = Form.COLOURS in group.form
    ok = (
        0 <= form < 2 * Form.JPEG_LS
        and sample_bytes in SAMPLE_BYTES
        and samples == (MOST_SAMPLES if is_colour else 1)
        and (is_colour or Form.GREEN not in group.form)
        and size > 0
        and size % (sample_bytes * samples) == 0
    )
    if not ok:
        raise ValueError("a group in an impossible form")
    if Form.JPEG_LS in group.form:
        ok = (
            Form.ROWS not in group.form
            and sample_bytes in jpeg_ls.SAMPLE_BYTES
            and LEAST_ROW <= row <= jpeg_ls.MOST_COLUMNS
            and group.rows <= jpeg_ls.MOST_ROWS
        )
    elif Form.ROWS in group.form:
        ok = LEAST_ROW <= row < group.length
    elif row:
        ok = False
    if not ok:
        raise ValueError("an impossible row")
    return group


def _table(table: memoryview, count: int, groups: Sequence[Group]) -> list[Region]:
    plain = zstd.expand(table, 5 * count)
    owners = np.frombuffer(plain, np.uint8, count)
    lengths = np.frombuffer(plain, "<u4", count, offset=count)
    if owners.max() >= len(groups) or not lengths.all():
        raise ValueError("a region of no group, or of no length")
    totals = np.bincount(owners, weights=lengths, minlength=len(groups))
    if any(int(t) != g.plaintext_bytes for t, g in zip(totals, groups, strict=True)):
        raise ValueError("a group has another size than its regions")
    return [Region(int(g), int(n)) for g, n in zip(owners, lengths, strict=True)]


def _slice(data: memoryview, start: int, length: int) -> memoryview:
    if start + length > len(data):
        raise ValueError("it ends too early")
    return data[start : start + length]
