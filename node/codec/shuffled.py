"""Codec 1, which earlier versions made: a blosc2 chunk of zstd frames with shuffled bytes.

Only what those versions wrote is read: one header, zstd, and shuffle or no filter. c-blosc2, which
wrote it, has open reports of overflows in its decoder, so it is not used.

Source: README_CHUNK_FORMAT.rst of c-blosc2.
"""

import struct

import numpy as np

from node.codec import zstd
from node.codec.planes import Bytes
from node.errors import ChunkDamaged

# Version, codec version, flags, type size, plaintext bytes, block bytes, compressed bytes; then six
# filters, the compressor, its meta byte, six filter metas, a reserved byte and the second flags.
_HEADER = struct.Struct("<BBBBiii6sBB6sBB")
_VERSION, _ZSTD_FORMAT, _ZSTD = 5, 4, 5
_NO_FILTER, _SHUFFLE = bytes(6), b"\1" + bytes(5)
_IS_STORED, _IS_WHOLE = 0x2, 0x10  # flags: nothing compressed; blocks are not split by byte
_SPECIAL_VALUES = 0x70  # of the second flags
_ZEROS = 0x10
_START = struct.Struct("<i")
_MOST_BLOCKS = 2**16


def decode(encoded: bytes | memoryview, plaintext_bytes: int) -> memoryview:
    """Return the plaintext, whose length is known beforehand.

    Raises:
        ChunkDamaged: it is no such chunk, or of another length.
    """
    try:
        return _decode(memoryview(encoded), plaintext_bytes)
    except (struct.error, ValueError, IndexError) as exc:
        raise ChunkDamaged("a compressed chunk is malformed") from exc


def _decode(encoded: memoryview, plaintext_bytes: int) -> memoryview:
    version, _, flags, typesize, size, block_bytes, compressed, *rest = _HEADER.unpack_from(encoded)
    filters, compressor, special = rest[0], rest[1], rest[-1]
    ok = (
        version == _VERSION
        and typesize in (1, 2, 4)
        and size == plaintext_bytes
        and compressed == len(encoded)
        and block_bytes > 0
        and size <= block_bytes * _MOST_BLOCKS
        and flags >> 5 == _ZSTD_FORMAT
        and filters in (_NO_FILTER, _SHUFFLE)
        and compressor == _ZSTD
        and special in (0, _ZEROS)
    )
    if not ok:
        raise ValueError("another header")
    if special == _ZEROS:
        return memoryview(bytes(size))
    if flags & _IS_STORED:
        plain = encoded[_HEADER.size :]
        if len(plain) != size:
            raise ValueError("another size")
        return plain
    plaintext = np.empty(size, np.uint8)
    for number, start in enumerate(range(0, size, block_bytes)):
        here = min(block_bytes, size - start)
        is_split = not flags & _IS_WHOLE and here == block_bytes
        (position,) = _START.unpack_from(encoded, _HEADER.size + number * _START.size)
        block = _block(encoded, position, here, typesize if is_split else 1)
        if filters == _SHUFFLE:
            block = _unshuffled(block, typesize)
        plaintext[start : start + here] = block
    return plaintext.data


def _block(encoded: memoryview, position: int, size: int, streams: int) -> Bytes:
    """Return the bytes of a block, still shuffled: one stream, or one for each byte of a sample."""
    if position < _HEADER.size or size % streams:
        raise ValueError("an impossible block")
    block, each = np.empty(size, np.uint8), size // streams
    for i in range(streams):
        out = block[i * each : (i + 1) * each]
        (length,) = _START.unpack_from(encoded, position)
        position += _START.size
        if length <= 0:  # one byte repeated; zero if it is not named
            out[:] = -length & 0xFF
            position += length < 0
            continue
        stream = encoded[position : position + length]
        if len(stream) != length:
            raise ValueError("it ends too early")
        plain = stream if length == each else zstd.expand(stream, each)
        out[:] = np.frombuffer(plain, np.uint8)
        position += length
    return block


def _unshuffled(block: Bytes, typesize: int) -> Bytes:
    """Put the bytes of each sample together again; what is left over at the end stays."""
    whole = len(block) // typesize * typesize
    found = block.copy()
    found[:whole] = block[:whole].reshape(typesize, -1).T.reshape(-1)
    return found
