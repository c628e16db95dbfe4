"""Files that are small, well-formed, and as slow to walk over as they can be made."""

import random
import struct
import zlib

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0"
# Out of order, so that each has to be looked at; eight bytes are the least there can be.
_TINY = struct.pack("<HH2sH", 0x21, 5, b"LO", 0)


def _element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"OB":
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def _file(syntax: bytes, dataset: bytes) -> bytes:
    return bytes(128) + b"DICM" + _element(2, 0x10, b"UI", syntax) + dataset


def _identity(number: int) -> bytes:
    return b"".join(
        _element(group, element, b"UI", value + b"\0" * (len(value) % 2))
        for group, element, value in (
            (8, 0x16, b"1.2.840.10008.5.1.4.1.1.2"),
            (8, 0x18, b"1.2.3.4.%d" % number),
            (0x20, 0xD, b"1.2.3"),
            (0x20, 0xE, b"1.2.3.5"),
        )
    )


def many_elements(size: int, number: int = 1) -> bytes:
    """Return a file that is full of the smallest elements; nothing in it is compressed."""
    return _file(_EXPLICIT, _identity(number) + _TINY * (size // len(_TINY)))


def deflated_elements(size: int, number: int = 1) -> bytes:
    """Return a deflated file of about a size: nearly 200 times as much when expanded.

    What cannot be compressed makes it large enough for that.
    """
    tiny = _TINY * (190 * size // len(_TINY))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    filler = size - len(deflater.compress(tiny) + deflater.flush())
    noise = _element(0x7FE1, 0x1010, b"OB", random.Random(1).randbytes(filler // 2 * 2))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    dataset = _identity(number) + tiny + noise
    return _file(_DEFLATED, deflater.compress(dataset) + deflater.flush())
