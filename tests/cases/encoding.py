"""Encoding odd DICOM files byte by byte, as no library would write them (PS3.5 §7, PS3.10 §7)."""

import hashlib
import struct
import zlib
from collections.abc import Iterable

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010

_ROOT = "1.2.826.0.1.3680043.10.1338.9"
_WITH_LONG_LENGTH = ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]

Value = str | int | bytes
Elements = dict[int, tuple[str, Value]]


def made_uid(*words: object) -> str:
    """Return a UID that is the same for the same words."""
    digest = hashlib.sha256(repr(words).encode()).digest()
    return f"{_ROOT}.{int.from_bytes(digest[:9], 'big')}"


def element(
    tag: int,
    vr: str,
    value: Value = b"",
    *,
    is_implicit: bool = False,
    order: str = "<",
    length: int | None = None,
) -> bytes:
    """Return one element; `length` is what it says of itself, if that is not the truth."""
    if isinstance(value, int):
        value = struct.pack(order + ("H" if vr == "US" else "I"), value)
    elif isinstance(value, str):
        value = value.encode("latin-1")
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    said = len(value) if length is None else length
    name = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if is_implicit:
        return name + struct.pack(order + "I", said) + value
    if vr in _WITH_LONG_LENGTH:
        return name + vr.encode() + struct.pack(order + "HI", 0, said) + value
    return name + vr.encode() + struct.pack(order + "H", said) + value


def item(content: bytes = b"", *, is_open: bool = False) -> bytes:
    """Return an item: of defined length, or the beginning of one of undefined length."""
    return marker(ITEM, UNDEFINED if is_open else len(content)) + content


def marker(tag: int, length: int = 0) -> bytes:
    """Return an item's or delimiter's eight bytes."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length)


def image(case: str, number: int = 1, *, rows: int = 32, columns: int = 32) -> Elements:
    """Return the elements of a small CT image, one of its case's single series."""
    samples = range(number, number + 11 * rows * columns, 11)
    return {
        0x00080005: ("CS", "ISO_IR 100"),
        0x00080016: ("UI", CT),
        0x00080018: ("UI", made_uid(case, "instance", number)),
        0x00080020: ("DA", "20260115"),
        0x00080030: ("TM", "101500"),
        0x00080050: ("SH", f"A{len(case)}"),
        0x00080060: ("CS", "CT"),
        0x00081030: ("LO", case),
        0x00100010: ("PN", "Odd^Input"),
        0x00100020: ("LO", "ODD1"),
        0x00100030: ("DA", "19700101"),
        0x00100040: ("CS", "O"),
        0x0020000D: ("UI", made_uid(case, "study")),
        0x0020000E: ("UI", made_uid(case, "series")),
        0x00200010: ("SH", "1"),
        0x00200011: ("IS", "1"),
        0x00200013: ("IS", str(number)),
        0x00280002: ("US", 1),
        0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", rows),
        0x00280011: ("US", columns),
        0x00280100: ("US", 16),
        0x00280101: ("US", 12),
        0x00280102: ("US", 11),
        0x00280103: ("US", 0),
        PIXEL_DATA: ("OW", b"".join(struct.pack("<H", x & 0xFFF) for x in samples)),
    }


def document(case: str, number: int, sop_class: str, modality: str) -> Elements:
    """Return the elements of an instance without pixels, in a series of its own."""
    kept = {tag: value for tag, value in image(case, number).items() if tag < 0x00280000}
    return kept | {
        0x00080016: ("UI", sop_class),
        0x00080023: ("DA", "20260115"),
        0x00080033: ("TM", "101500"),
        0x00080060: ("CS", modality),
        0x0020000E: ("UI", made_uid(case, modality, number)),
    }


def dataset(
    elements: Elements,
    raw: Iterable[tuple[int, bytes]] = (),
    *,
    is_implicit: bool = False,
    order: str = "<",
) -> bytes:
    """Return a dataset; `raw` elements stand, as they are, where their tags belong."""
    parts = [
        (tag, element(tag, vr, value, is_implicit=is_implicit, order=order))
        for tag, (vr, value) in elements.items()
    ]
    return b"".join(encoded for _, encoded in sorted([*parts, *raw], key=lambda part: part[0]))


def file_meta(syntax: str, sop_class: str, instance: str, *, is_implicit: bool = False) -> bytes:
    """Return file meta information, with its group length."""
    group = b"".join(
        element(tag, vr, value, is_implicit=is_implicit)
        for tag, vr, value in (
            (0x00020001, "OB", b"\0\1"),
            (0x00020002, "UI", sop_class),
            (0x00020003, "UI", instance),
            (0x00020010, "UI", syntax),
            (0x00020012, "UI", _ROOT),
        )
    )
    return element(0x00020000, "UL", len(group), is_implicit=is_implicit) + group


def directory(names: Iterable[str], *, syntax: str = EXPLICIT) -> bytes:
    """Return a DICOMDIR that names files, their components joined by backslashes."""
    records = b"".join(
        item(
            element(0x00041430, "CS", "IMAGE")
            + element(0x00041500, "CS", name)
            + element(0x00041511, "UI", made_uid("directory", name))
        )
        for name in names
    )
    body = element(0x00041130, "CS", "DISC") + element(0x00041220, "SQ", records)
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    meta = file_meta(syntax, MEDIA_DIRECTORY, made_uid("directory"))
    return bytes(128) + b"DICM" + meta + body


def without_item(made: bytes, number: int) -> bytes:
    """Return a file in which one item does not begin as items do."""
    begins, at = marker(ITEM)[:4], -1
    for _ in range(number):
        at = made.index(begins, at + 1)
    return made[:at] + b"\xfe\xff\0\xe1" + made[at + 4 :]


def part10(
    elements: Elements,
    syntax: str = EXPLICIT,
    raw: Iterable[tuple[int, bytes]] = (),
    body: bytes | None = None,
) -> bytes:
    """Return a whole file; `body` stands for the dataset, if it is not encoded as stated."""
    if body is None:
        order = ">" if syntax == BIG_ENDIAN else "<"
        body = dataset(elements, raw, is_implicit=syntax == IMPLICIT, order=order)
    sop_class, instance = str(elements[0x00080016][1]), str(elements[0x00080018][1])
    return bytes(128) + b"DICM" + file_meta(syntax, sop_class, instance) + body
