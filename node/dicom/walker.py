"""An iterative, bounded walk over one DICOM file, before any other parser sees it.

How this works. Bytes are fed in windows of any size (`node.dicom.stream`). This module handles what
surrounds the dataset: the preamble, the file meta, and deflate, whose expansion is bounded.
`node.dicom.dataset` handles the elements.

The walk decides only whether the bytes are one well-formed instance. It notes oddities and collects
the raw values of a few elements; `node.dicom.examine` interprets them.

Sources: PS3.10 §7.1 (preamble, file meta), PS3.5 §A.5 (deflated).
"""

import struct
import zlib
from collections.abc import Generator

from pydicom._dicom_dict import DicomDictionary

from node.dicom.dataset import (
    BULK_VRS,
    EXPLICIT_LITTLE,
    LONG_VRS,
    MAX_ELEMENTS,
    MAX_HEADER_VALUE,
    MAX_WANTED_VALUE,
    SHORT_VRS,
    WANTED,
    DatasetWalk,
)
from node.dicom.identifiers import uid_from_bytes
from node.dicom.stream import Needs, NotDicom, Refused

MAX_DEFLATED_BYTES = 512 * 2**20
"""What a deflated dataset may expand to. Deflate makes at most 1,032 bytes of one, and a mask that
is nearly empty comes close to that: so there is no bound on the ratio."""

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
# PS3.5 §A.5, and the two syntaxes that name pixels elsewhere and deflate the rest (§A.8).
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
# What is not deflated has eight bytes to an element at least; a deflated byte can stand for dozens.
# *Measured*: real files have 0.4 elements to a deflated byte, an enhanced MR of 4,096 frames 1.1.
_DEFLATED_ELEMENTS, _ELEMENTS_A_DEFLATED_BYTE = 1024, 2
_DEFLATE_STEP = 1 << 20
_LONGEST_FIRST_VALUE = 4096  # of a dataset that stands for the whole file


class Walker(DatasetWalk):
    """Walks one file whose bytes are fed in order.

    Attributes:
        preamble: The first 128 bytes; empty where there is none.
        transfer_syntax: As the file meta states it, without padding.
    """

    def __init__(self, size: int | None = None) -> None:
        """Begin a walk; `size` is the file's, if it is known."""
        super().__init__(self._walk(), size)
        self.preamble = b""
        self.transfer_syntax = ""

    def repeated(self, preamble: bytes, values: dict[int, bytes]) -> "Walker":
        """Return a finished walk that went the same way over a file with other values."""
        found = Walker(self._size)
        found.preamble, found.values = preamble, values
        found.transfer_syntax, found.little_endian = self.transfer_syntax, self.little_endian
        found.pixel_bytes, found.pixel_offset = self.pixel_bytes, self.pixel_offset
        found.float_pixels, found.has_other_pixels = self.float_pixels, self.has_other_pixels
        found.is_encapsulated = self.is_encapsulated
        return found

    @property
    def is_directory(self) -> bool:
        """Whether this is a DICOMDIR."""
        return uid_from_bytes(self.values.get(0x00020002, b"")) == MEDIA_DIRECTORY

    def _walk(self) -> Needs:
        if (yield from self._need(132)) and self._bytes(128, 132) == b"DICM":
            self.preamble = yield from self._take(128)
            yield from self._skip(4)
        elif not self._buffer:
            raise Refused("an empty file")
        elif self._bytes(0, 4) == b"DICM":
            self._odd("no preamble")
            yield from self._skip(4)
        elif _begins_like_meta(self._bytes(0, 8)):
            self._odd("no preamble and no DICM prefix")
        elif _begins_like_dataset(self._bytes(0, 8)):
            self._odd("no preamble and no file meta")
            yield from self.walk_dataset("")
            return
        elif not self._bytes(0, 132).strip(b"\0"):
            raise Refused("it begins with zeros, probably because a copy failed")
        else:
            raise NotDicom("not DICOM")
        yield from self._walk_file_meta()
        syntax = self.values.get(0x00020010, b"").rstrip(b"\0 ").decode("ascii", "replace")
        self.transfer_syntax = syntax
        if not syntax:
            self._odd("no transfer syntax in the file meta")
        if self.is_directory:
            self.collect_references()
        if syntax in _DEFLATED:
            yield from self._walk_deflated()
        else:
            yield from self.walk_dataset(syntax)

    def _bytes(self, start: int, end: int) -> bytes:
        return bytes(self._buffer[start:end])

    # -- the file meta ------------------------------------------------------------------------

    def _walk_file_meta(self) -> Needs:
        """Walk group 0002, which is explicit little endian whatever follows (PS3.10 §7.1)."""
        declared_end = None
        while (yield from self._need(8)):
            tag, vr, length, head = yield from self._peek_meta()
            if tag >> 16 != 2:
                break
            if head == 0:
                raise Refused("a file meta element has no valid VR")
            self._count_element()
            if self._traced is not None:
                self._trace_meta(tag, head, length)
            self._position += head
            if length > MAX_HEADER_VALUE and vr not in BULK_VRS:
                raise Refused("a file meta value is over 16 MiB")
            if tag in WANTED and length <= MAX_WANTED_VALUE:
                self.values[tag] = yield from self._take(length)
            elif tag == 0x00020000 and length == 4:
                declared_end = struct.unpack("<I", (yield from self._take(4)))[0] + self._offset()
            else:
                yield from self._skip(length)
        if declared_end is not None and declared_end != self._offset():
            self._odd("file meta group length is wrong")

    def _trace_meta(self, tag: int, head: int, length: int) -> None:
        traced, start = self._traced, self._position + head
        if traced is None:
            return
        traced.heads.append(self._position)
        if head == 12:
            traced.lengths.append(self._position + 8)
        if tag in WANTED and length <= MAX_WANTED_VALUE:
            traced.values[tag] = start, start + length
        elif tag == 0x00020000 and length == 4:
            traced.lengths.append(start)  # it is held against where the file meta ends

    def _peek_meta(self) -> Generator[None, None, tuple[int, bytes, int, int]]:
        """Return tag, VR, value length and header size (0 for an impossible VR)."""
        group, number, vr, length = struct.unpack_from("<HH2sH", self._buffer, self._position)
        tag = group << 16 | number
        if vr in SHORT_VRS:
            return tag, vr, length, 8
        if vr in LONG_VRS:
            if not (yield from self._need(12)):
                raise Refused("truncated: it ends inside an element")
            (length,) = struct.unpack_from("<I", self._buffer, self._position + 8)
            return tag, vr, length, 12
        (length,) = struct.unpack_from("<I", self._buffer, self._position + 4)
        if group == 2 and length <= MAX_WANTED_VALUE:
            self._odd("file meta in implicit VR")
            return tag, b"", length, 8
        return tag, vr, length, 0

    # -- a deflated dataset -------------------------------------------------------------------

    def _walk_deflated(self) -> Needs:
        """Walk a deflated dataset, expanded in steps and thrown away (PS3.5 §A.5)."""
        if self._traced is not None:
            self._traced.is_complete = False
        if not (yield from self._need(8)):
            raise Refused("no dataset after the file meta")
        start = bytes(self._buffer[self._position : self._position + 8])
        if _begins_like_dataset(start):
            self._odd("deflated stated, a plain dataset found")
            yield from self.walk_dataset(EXPLICIT_LITTLE)
            return
        bits = -zlib.MAX_WBITS
        if _begins_like_zlib(start):
            self._odd("deflated with a header of zlib")
            bits = zlib.MAX_WBITS
        inner = _Inner(self)
        if self.is_directory:
            inner.collect_references()
        expander = zlib.decompressobj(bits)
        taken = made = 0
        while not expander.eof:
            if not (yield from self._need(1)):
                raise Refused("truncated: the deflated dataset does not end")
            data = bytes(self._buffer[self._position :])
            self._position = len(self._buffer)
            taken += len(data)
            while not expander.eof:
                try:
                    step = expander.decompress(data, _DEFLATE_STEP)
                except zlib.error:
                    raise Refused("the deflated dataset cannot be decompressed") from None
                data = expander.unconsumed_tail
                if not step and not data:
                    break
                made += len(step)
                if made > MAX_DEFLATED_BYTES:
                    raise Refused("the deflated dataset expands too much")
                inner.bound_elements(_DEFLATED_ELEMENTS + _ELEMENTS_A_DEFLATED_BYTE * taken)
                inner.feed(step, is_last=expander.eof)
        inner.finish_if_open()
        self.pixel_bytes, self.is_encapsulated = inner.pixel_bytes, inner.is_encapsulated
        self.has_other_pixels = inner.has_other_pixels
        self.names_more = inner.names_more
        # A null byte of padding may follow (PS3.5 §A.5); anything else is odd.
        left = len(expander.unused_data) + (yield from self._drain())
        if left > 1:
            self._odd("bytes after the deflated dataset")


class _Inner(DatasetWalk):
    """The walk over what a deflated dataset expands to; it notes what it finds with the file's."""

    def __init__(self, outer: DatasetWalk) -> None:
        super().__init__(self.walk_dataset(EXPLICIT_LITTLE))
        self.values, self.oddities = outer.values, outer.oddities
        self.references = outer.references

    def bound_elements(self, most: int) -> None:
        """Bound the number of elements."""
        self._most_elements = min(MAX_ELEMENTS, most)


def _begins_like_meta(start: bytes) -> bool:
    """Return whether these are the first bytes of a File Meta Information Group Length."""
    return start in (b"\2\0\0\0UL\4\0", b"\2\0\0\0\4\0\0\0")


def _begins_like_dataset(start: bytes) -> bool:
    """Return whether these are the first bytes of a dataset in little endian: of group 0008."""
    if len(start) < 8:
        return False
    group, number, length = struct.unpack("<HHI", start)
    if group != 8 or (group << 16 | number not in DicomDictionary and number):
        return False
    return start[4:6] in SHORT_VRS or start[4:6] in LONG_VRS or length <= _LONGEST_FIRST_VALUE


def _begins_like_zlib(start: bytes) -> bool:
    """Return whether this is a header of RFC 1950, and no stored block of deflate's (RFC 1951)."""
    first, second = start[0], start[1]
    length, complement = struct.unpack_from("<HH", start, 1)
    return first & 0xF == 8 and (first << 8 | second) % 31 == 0 and length ^ complement != 0xFFFF
