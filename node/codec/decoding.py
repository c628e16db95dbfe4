"""Decoding a chunk. Only confined workers do: what is decoded comes from other facilities.

Everything that encoded bytes claim is checked before anything is expanded, and no more than the
size in the signed manifest ever is.
"""

from collections.abc import Sequence

import numpy as np

from node.codec import jpeg_ls, regions, shuffled, zstd
from node.codec.kinds import Codec
from node.codec.planes import Samples, join_bytes, join_colour, undo_row_differences
from node.codec.regions import Encoded, Form, Group
from node.errors import ChunkDamaged


def decode(codec: Codec, encoded: bytes | memoryview, plaintext_bytes: int) -> memoryview:
    """Return the plaintext, whose length is known beforehand.

    Raises:
        ChunkDamaged: the encoded bytes are not what that codec makes for this length.
    """
    match codec:
        case Codec.STORED:
            if len(encoded) != plaintext_bytes:
                raise ChunkDamaged("a stored chunk has another length than its manifest says")
            return memoryview(encoded)
        case Codec.SHUFFLED:
            return shuffled.decode(encoded, plaintext_bytes)
        case Codec.REGIONS | Codec.SMALL:
            has_jpeg_ls = codec == Codec.SMALL
            return _expanded(regions.read(encoded, plaintext_bytes, has_jpeg_ls=has_jpeg_ls))


def _expanded(found: Encoded) -> memoryview:
    contents = [
        _unpack(group, planes) for group, planes in zip(found.groups, found.planes, strict=True)
    ]
    if len(found.regions) == 1:
        return memoryview(contents[0])
    plaintext = np.empty(sum(region.length for region in found.regions), np.uint8).data
    positions, start = [0] * len(contents), 0
    for region in found.regions:
        position, end = positions[region.group], start + region.length
        plaintext[start:end] = contents[region.group][position : position + region.length]
        positions[region.group] += region.length
        start = end
    return plaintext


def _unpack(group: Group, planes: Sequence[bytes | memoryview]) -> memoryview:
    samples = _samples(group, planes)
    if Form.ROWS in group.form:
        undo_row_differences(samples, group.row)
    if Form.COLOURS in group.form:
        samples = join_colour(samples, is_subtracted=Form.GREEN in group.form)
    return samples.view(np.uint8).data


def _samples(group: Group, planes: Sequence[bytes | memoryview]) -> Samples:
    if Form.JPEG_LS in group.form:
        rows: Samples = np.empty((group.rows, group.row), f"<u{group.sample_bytes}")
        jpeg_ls.expand(planes[0], rows)
        return rows.reshape(-1)[: group.length]
    parts = [np.frombuffer(_plane(plane, group.length), np.uint8) for plane in planes]
    return join_bytes(parts, group.sample_bytes)


def _plane(plane: bytes | memoryview, size: int) -> bytes | memoryview:
    return plane if len(plane) == size else zstd.expand(plane, size)
