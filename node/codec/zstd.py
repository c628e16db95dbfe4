"""Zstandard, as Python 3.14 has it in its library and a backport brings it to earlier versions."""

import sys

from node.errors import ChunkDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL = 1
# Frames of ours need no larger window: what they hold is at most a chunk.
_BOUND: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


def compress(data: "bytes | memoryview") -> bytes:
    """Return one frame; releases the GIL. Equal for equal input of one version of the library."""
    return zstd.compress(data, _LEVEL)


def expand(frame: "bytes | memoryview", size: int) -> bytes:
    """Return what is in a frame, whose size is known beforehand; releases the GIL.

    Raises:
        ChunkDamaged: it is not one frame of exactly that size. No more than that was expanded.
    """
    expander = zstd.ZstdDecompressor(options=_BOUND)
    try:
        data = expander.decompress(frame, max_length=size)
        if len(data) == size and not expander.eof:  # only the end of the frame is missing
            data += expander.decompress(b"", max_length=1)
    except zstd.ZstdError as exc:
        raise ChunkDamaged("a compressed chunk cannot be decompressed") from exc
    if len(data) != size or not expander.eof or expander.unused_data:
        raise ChunkDamaged("a compressed chunk expands to another length")
    return data
