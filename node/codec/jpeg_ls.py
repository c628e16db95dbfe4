"""JPEG-LS for rows of samples, without its header: ITU-T T.87, lossless, one component.

Decoders of JPEG-LS have failed at what headers claim, such as sizes. So no header is kept: its
marker segments follow from the size that the signed manifest gives, and both ends write them
themselves. What comes from elsewhere is the entropy-coded scan, and nothing in it says a size.

The library is an extra: `pip install 'emix[small]'`. Only confined workers expand.
"""

import importlib.util
import struct

import numpy as np
from numpy.typing import NDArray

from node.errors import ChunkDamaged

MOST_ROWS = MOST_COLUMNS = 2**16 - 1  # of what a frame header can say (T.87 C.2.2)
SAMPLE_BYTES = (1, 2)

Rows = NDArray[np.unsignedinteger]
"""Samples of one or two bytes, in rows."""

_START, _FRAME, _SCAN, _END = b"\xff\xd8", b"\xff\xf7", b"\xff\xda", b"\xff\xd9"
_FRAME_HEADER = struct.Struct(">HBHHBBBB")
# One component, by the preset parameters, no near-lossless, no interleaving, no point transform.
_SCAN_HEADER = _SCAN + bytes.fromhex("0008 01 01 00 00 00 00")


def is_available() -> bool:
    """Return whether the library is installed."""
    return importlib.util.find_spec("imagecodecs") is not None


def load() -> None:
    """Load the library, if it is installed: a confined worker cannot do so later."""
    if is_available():
        expand(compress(np.zeros((2, 16), np.uint16)) or b"", np.empty((2, 16), np.uint16))


def compress(rows: Rows) -> bytes | None:
    """Return the scan that holds rows of samples, or None if it would be no smaller than they are.

    Lossless for any samples; deterministic with one version of CharLS. Releases the GIL.
    """
    from imagecodecs import JpeglsError, jpegls_encode  # an extra, and slow to load

    try:
        encoded = bytes(jpegls_encode(rows))
    except JpeglsError:  # it has room for as much as the samples take
        return None
    scan = encoded[encoded.index(_SCAN_HEADER) + len(_SCAN_HEADER) : -len(_END)]
    return scan if len(scan) < rows.nbytes else None


def expand(scan: bytes | memoryview, out: Rows) -> None:
    """Write the rows that a scan holds; releases the GIL.

    Args:
        scan: What `compress` returned, or anything else.
        out: As many rows as it is to hold; what is in them after an error means nothing.

    Raises:
        ChunkDamaged: it does not hold them.
    """
    from imagecodecs import JpeglsError, jpegls_decode

    rows, columns = out.shape
    frame = _FRAME_HEADER.pack(11, 8 * out.itemsize, rows, columns, 1, 1, 0x11, 0)
    encoded = b"".join((_START, _FRAME, frame, _SCAN_HEADER, scan, _END))
    try:
        jpegls_decode(encoded, out=out)
    except (JpeglsError, ValueError) as exc:
        raise ChunkDamaged("a compressed chunk cannot be decompressed") from exc
