"""Decoding a chunk. Only confined workers do: what is decoded comes from other facilities.

Everything that encoded bytes claim is checked before anything is expanded, and no more than the
size in the signed manifest ever is.
"""

from collections.abc import Sequence

import numpy as np

from node.codec import regions, shuffled, zstd
from node.codec.kinds import Codec
from node.codec.planes import Samples, join_bytes, join_colour, undo_row_differences
from node.codec.regions import Form, Group
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
        case Codec.REGIONS:
            return _decode_regions(encoded, plaintext_bytes)


def _decode_regions(encoded: bytes | memoryview, plaintext_bytes: int) -> memoryview:
    found = regions.read(encoded, plaintext_bytes)
    contents = [
        _unpack(group, planes) for group, planes in zip(found.groups, found.planes, strict=True)
    ]
    if len(found.regions) == 1:
        return memoryview(contents[0])
    plaintext = np.empty(plaintext_bytes, np.uint8).data
    positions, start = [0] * len(contents), 0
    for region in found.regions:
        position, end = positions[region.group], start + region.length
        plaintext[start:end] = contents[region.group][position : position + region.length]
        positions[region.group] += region.length
        start = end
    return plaintext


def _unpack(group: Group, planes: Sequence[bytes | memoryview]) -> memoryview:
    size = group.plaintext_bytes // group.sample_bytes
    samples: Samples = join_bytes(
        [np.frombuffer(_plane(plane, size), np.uint8) for plane in planes], group.sample_bytes
    )
    if Form.ROWS in group.form:
        undo_row_differences(samples, group.row)
    if Form.COLOURS in group.form:
        samples = join_colour(samples, is_subtracted=Form.GREEN in group.form)
    return samples.view(np.uint8).data


def _plane(plane: bytes | memoryview, size: int) -> bytes | memoryview:
    return plane if len(plane) == size else zstd.expand(plane, size)
