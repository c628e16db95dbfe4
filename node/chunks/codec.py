"""Lossless, layout-aware compression of a chunk's plaintext.

blosc2's byte shuffle puts the high bytes of 16- or 32-bit samples together, and zstd at its
fastest level takes the redundancy out. *Measured* on CT with 10 HU of noise: 45 % of the size
at 1.2 GB/s a core, where bitshuffle with LZ4 gives 52 to 54 % at 2 GB/s; disks and lines are
slower than either, so the smaller one wins on every path.

One blosc2 thread per chunk: with two, equal input gives unequal output.
"""

import enum
import struct
from functools import partial

import blosc2

from node.domain.manifest import MAX_CHUNK_BYTES
from node.domain.verdicts import PixelLayout
from node.errors import ChunkDamaged

# Without this blosc2 holds the GIL while it works, and threads only take turns. *Measured*: two
# threads then do 1.8 to 2.0 times the work of one, and 1.0 times before.
blosc2.set_releasegil(True)

# The compressed size must be at most this fraction of the plaintext; else it is not used.
_WORTH = 0.97


class Codec(enum.IntEnum):
    """How a chunk's plaintext was encoded; the number is in every chunk's header."""

    STORED = 0
    BLOSC2 = 1


_TYPE_SIZES = {PixelLayout.PLAIN: 1, PixelLayout.WORDS: 2, PixelLayout.LONGS: 4}

# Fields of a blosc2 chunk header (README_CHUNK_FORMAT.rst of c-blosc2): version, codec version,
# flags, type size, plaintext bytes, block bytes, compressed bytes; then six filters, the
# codec, its meta byte, six filter metas, a reserved byte and the second flags.
_HEADER = struct.Struct("<BBBBiii6sBB6sBB")
_FORMAT_VERSION = 5
_ZSTD_FORMAT = 4  # the compressor's number, in the upper three bits of the flags
_ZSTD_CODEC = 5
_FILTERS = (bytes(6), b"\1" + bytes(5))  # none, or shuffle first
_SPECIAL_VALUE = 0x70  # in the second flags: a run of zeroes or one value


def encode(plaintext: bytes, layout: PixelLayout) -> tuple[Codec, bytes]:
    """Return the smaller of the plaintext and its compressed form, and which it is."""
    if layout is PixelLayout.PACKED or len(plaintext) < 256:
        return Codec.STORED, plaintext
    type_size = _TYPE_SIZES[layout]
    compressed = _compress(
        plaintext,
        typesize=type_size,
        filters=[blosc2.Filter.SHUFFLE if type_size > 1 else blosc2.Filter.NOFILTER],
    )
    if len(compressed) > len(plaintext) * _WORTH:
        return Codec.STORED, plaintext
    return Codec.BLOSC2, compressed


_compress = partial(
    blosc2.compress2, codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1, filters_meta=[0]
)


def decode(codec: Codec, encoded: bytes, plaintext_bytes: int) -> bytes:
    """Return the plaintext, whose length is known beforehand.

    Nothing is expanded before the header has been held against that length: 32 bytes of
    blosc2 can claim a gigabyte.

    Raises:
        ChunkDamaged: the encoded bytes are not what `encode` makes for this length.
    """
    if codec is Codec.STORED:
        if len(encoded) != plaintext_bytes:
            raise ChunkDamaged("a stored chunk has another length than its manifest says")
        return encoded
    _check_header(encoded, plaintext_bytes)
    try:
        plaintext = blosc2.decompress2(encoded, nthreads=1)
    except (RuntimeError, ValueError, TypeError) as exc:
        raise ChunkDamaged("a compressed chunk cannot be decompressed") from exc
    if not isinstance(plaintext, bytes) or len(plaintext) != plaintext_bytes:
        raise ChunkDamaged("a compressed chunk expands to another length")
    return plaintext


def _check_header(encoded: bytes, plaintext_bytes: int) -> None:
    """Check that this is a chunk as `encode` makes them, so that the decoder sees no other."""
    if len(encoded) < _HEADER.size:
        raise ChunkDamaged("a compressed chunk is shorter than its header")
    fields = _HEADER.unpack_from(encoded)
    version, _, flags, type_size, nbytes, blocksize, cbytes, filters, compressor = fields[:9]
    ok = (
        version == _FORMAT_VERSION
        and type_size in _TYPE_SIZES.values()
        and nbytes == plaintext_bytes
        and cbytes == len(encoded)
        and 0 < blocksize <= MAX_CHUNK_BYTES
        and flags >> 5 == _ZSTD_FORMAT
        and filters in _FILTERS
        and compressor == _ZSTD_CODEC
        and fields[-1] & ~_SPECIAL_VALUE == 0
    )
    if not ok:
        raise ChunkDamaged("a compressed chunk has an invalid header")
