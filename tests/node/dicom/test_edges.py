"""The edges of the walk: the last that is taken and the first that is not, of each bound."""

import struct
import zlib
from typing import Any

import pytest

from node.dicom import dataset, walker
from node.dicom.dataset import IMPLICIT_LITTLE
from node.dicom.examine import examine, examine_bytes
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.verdicts import Verdict
from tests.node.dicom.test_walker import DEFLATED, IDENTITY, element, part10, uid

MIB = 2**20
_SPLIT = IDENTITY.index(b"\x20\0\x0d\0")
BEFORE, AFTER = IDENTITY[:_SPLIT], IDENTITY[_SPLIT:]
"""What has to stand in a dataset, below group 0010 and above."""


def judged(data: bytes) -> tuple[Verdict, tuple[str, ...]]:
    found = examine_bytes(data)
    return found.verdict, found.reasons


def test_bounds_are_those_that_the_documents_name() -> None:
    assert dataset.MAX_HEADER_VALUE == 16 * MIB == 16_777_216
    assert dataset.MAX_REFERENCE_BYTES == 2_097_152
    assert dataset._MAX_LOOK_AHEAD == 65_536
    assert walker.MAX_DEFLATED_BYTES == 512 * MIB
    assert walker._DEFLATE_STEP == MIB


# -- the file meta --------------------------------------------------------------------------------


def with_meta(length_value: bytes, *more: bytes) -> bytes:
    meta = element(2, 0x10, b"UI", uid("1.2.840.10008.1.2.1")) + b"".join(more)
    return bytes(128) + b"DICM" + element(2, 0, b"UL", length_value) + meta + IDENTITY


def test_group_length_is_held_against_where_the_group_ends() -> None:
    size = len(element(2, 0x10, b"UI", uid("1.2.840.10008.1.2.1")))
    wrong = "file meta group length is wrong"
    assert judged(with_meta(struct.pack("<I", size))) == (Verdict.CARRY, ())
    for value in (size - 1, size + 1, 0, 2**32 - 1):
        assert wrong in judged(with_meta(struct.pack("<I", value)))[1]
    # One of another size says nothing, and one that is not there does not either.
    assert wrong not in judged(with_meta(struct.pack("<Q", size)))[1]
    assert wrong not in judged(with_meta(b"ab"))[1]


@pytest.mark.parametrize(("length", "is_refused"), [(16 * MIB, False), (16 * MIB + 1, True)])
@pytest.mark.parametrize("is_meta", [True, False])
def test_header_value_is_taken_up_to_its_bound(
    length: int, *, is_refused: bool, is_meta: bool
) -> None:
    """The length alone decides: nothing of the value was read yet."""
    long = element(2 if is_meta else 0x10, 0x102, b"UT", b"", length)
    data = with_meta(b"", long) if is_meta else part10(BEFORE + long)
    walk = Walker(len(data) + length)
    if is_refused:
        with pytest.raises(Refused, match="over 16 MiB"):
            walk.feed(data, is_last=False)
    else:
        walk.feed(data, is_last=False)


# -- deflate --------------------------------------------------------------------------------------


def deflated(after: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return part10(made.compress(IDENTITY) + made.flush() + after, syntax=DEFLATED)


@pytest.mark.parametrize("after", [b"", b"\0"])
def test_one_byte_of_padding_may_follow_what_is_deflated(after: bytes) -> None:
    assert judged(deflated(after)) == (Verdict.CARRY, ())


@pytest.mark.parametrize("after", [b"\0\0", b"x" * 70_000])
@pytest.mark.parametrize("window", [1 << 22, 997])
def test_more_than_that_is_odd(after: bytes, window: int) -> None:
    data = deflated(after)
    walk = Walker(len(data))
    for i in range(0, len(data), window):
        walk.feed(data[i : i + window], is_last=i + window >= len(data))
    assert examine(walk).reasons == ("bytes after the deflated dataset",)


# -- what stands for pixels -----------------------------------------------------------------------

IMAGE = (
    element(0x28, 2, b"US", b"\1\0")
    + element(0x28, 0x10, b"US", b"\4\0")
    + element(0x28, 0x11, b"US", b"\4\0")
    + element(0x28, 0x100, b"US", b"\x10\0")
)
SHORT = "less pixel data than its dimensions need"


def image(*pixels: bytes) -> bytes:
    before = [p for p in pixels if struct.unpack("<HH", p[:4]) < (0x28, 0x10)]
    middle = [p for p in pixels if (0x28, 0x11) < struct.unpack("<HH", p[:4]) < (0x7FE0, 0)]
    last = [p for p in pixels if struct.unpack("<HH", p[:4]) >= (0x7FE0, 0)]
    return part10(IDENTITY + b"".join(before) + IMAGE + b"".join(middle + last))


@pytest.mark.parametrize(("size", "is_short"), [(32, False), (31, True), (30, True), (64, False)])
def test_pixels_are_as_many_as_rows_and_columns_need(size: int, *, is_short: bool) -> None:
    found = judged(image(element(0x7FE0, 0x10, b"OW", bytes(size))))[1]
    assert (SHORT in found) is is_short


@pytest.mark.parametrize(
    "tag", [0x7FE00008, 0x7FE00009, 0x56000010, 0x56000020, 0x00287FE0], ids=hex
)
def test_what_stands_for_pixels_makes_an_image_whole(tag: int) -> None:
    vr = b"UR" if tag == 0x00287FE0 else b"OW"
    head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, 4)
    assert SHORT not in judged(image(head + b"http"))[1]
    assert SHORT in judged(image())[1]


# -- elements without a VR ------------------------------------------------------------------------

NEXT = element(0x10, 0x20, b"LO", b"P1")


@pytest.mark.parametrize("kind", ["long", "implicit", "short"])
def test_element_without_a_vr_is_read_where_one_length_leads_on(kind: str) -> None:
    value = b"abcdef"
    head = struct.pack("<HH", 0x10, 0x10)
    head += {
        "long": struct.pack("<2sHI", b"\0\0", 0, len(value)),
        "implicit": struct.pack("<I", len(value)),
        "short": struct.pack("<2sH", b"\1\1", len(value)),
    }[kind]
    found = examine_bytes(part10(BEFORE + head + value + NEXT + AFTER))
    assert (found.verdict, found.reasons) == (Verdict.FLAG, ("an element without a VR",))
    assert found.index["PatientID"] == "P1"
    # Where no length leads to an element, nothing says what it is.
    refused = examine_bytes(part10(BEFORE + head + value + b"??" + NEXT + AFTER))
    assert (refused.verdict, refused.reasons) == (
        Verdict.REFUSE,
        ("element (0010,0010) has no valid VR",),
    )


def test_element_without_a_vr_may_be_the_last() -> None:
    last = struct.pack("<HHI", 0x20, 0x4000, 4) + b"last"
    assert judged(part10(IDENTITY + last)) == (Verdict.FLAG, ("an element without a VR",))
    assert judged(part10(IDENTITY + last[:-1]))[0] is Verdict.REFUSE


# -- items ----------------------------------------------------------------------------------------


def item(content: bytes, *, is_open: bool = False) -> bytes:
    if is_open:
        return (
            struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
            + content
            + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        )
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def sequence(content: bytes) -> bytes:
    return element(8, 0x1111, b"SQ", content)


IMPLICIT_ELEMENT = struct.pack("<HHI", 8, 0x1150, 4) + b"1.2\0"


@pytest.mark.parametrize("is_open", [True, False])
def test_items_in_implicit_vr_inside_explicit_vr_are_odd(*, is_open: bool) -> None:
    inside = IMPLICIT_ELEMENT + struct.pack("<HHI", 8, 0x1155, 4) + b"1.3\0"
    found = judged(part10(BEFORE + sequence(item(inside, is_open=is_open)) + AFTER))
    assert found == (Verdict.FLAG, ("items in implicit VR inside explicit VR",))
    explicit = element(8, 0x1150, b"UI", b"1.2\0")
    found = judged(part10(BEFORE + sequence(item(explicit, is_open=is_open)) + AFTER))
    assert found == (Verdict.CARRY, ())


def implicit(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def test_items_in_explicit_vr_inside_implicit_vr_are_odd() -> None:
    before = implicit(8, 0x16, uid("1.2.840.1")) + implicit(8, 0x18, uid("1.2.3.4"))
    after = implicit(0x20, 0xD, uid("1.2.3")) + implicit(0x20, 0xE, uid("1.2.3.5"))
    inner = element(8, 0x1150, b"UI", b"1.2\0") + element(8, 0x1155, b"UI", b"1.3\0")
    odd = before + implicit(8, 0x1111, item(inner)) + after
    assert judged(part10(odd, syntax=IMPLICIT_LITTLE)) == (
        Verdict.FLAG,
        ("items in explicit VR inside implicit VR",),
    )
    sound = before + implicit(8, 0x1111, item(IMPLICIT_ELEMENT)) + after
    assert judged(part10(sound, syntax=IMPLICIT_LITTLE)) == (Verdict.CARRY, ())


def test_what_follows_pixels_is_padding_or_junk_and_flagged() -> None:
    whole = image(element(0x7FE0, 0x10, b"OW", bytes(32)))
    assert judged(whole) == (Verdict.CARRY, ())
    for junk in (bytes(8), b"\4\0\1\0UL\4\0abcd", bytes(100)):
        assert judged(whole + junk) == (Verdict.FLAG, ("bytes after the dataset",))
    # A later group is no junk.
    assert judged(whole + element(0xFFFC, 0xFFFC, b"OB", bytes(4))) == (Verdict.CARRY, ())


def test_directory_says_what_it_names_once_it_is_whole() -> None:
    def record(name: bytes) -> bytes:
        return item(element(4, 0x1430, b"CS", b"IMAGE ") + element(4, 0x1500, b"CS", name))

    meta: Any = element(2, 2, b"UI", uid("1.2.840.10008.1.3.10"))
    meta += element(2, 0x10, b"UI", uid("1.2.840.10008.1.2.1"))
    records = element(4, 0x1220, b"SQ", record(b"DIR\\IM1 ") + record(b"DIR\\IM2 "))
    data = bytes(128) + b"DICM" + meta + records
    found = examine_bytes(data)
    assert (found.verdict, found.references) == (Verdict.DIRECTORY, ("DIR/IM1", "DIR/IM2"))
    walk = Walker(len(data))
    walk.feed(data[:-4], is_last=False)
    partial = examine(walk, is_whole=False)
    assert (partial.verdict, partial.references) == (Verdict.DIRECTORY, ())
