"""The edges of the walk: the last that is taken and the first that is not, of each bound."""

import struct
import zlib
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword

from node.dicom import dataset, walker
from node.dicom.dataset import IMPLICIT_LITTLE
from node.dicom.examine import (
    _DIGIT_TAGS,
    _NAME_TAGS,
    _NUMBER_TAGS,
    _TEXT_TAGS,
    examine,
    examine_bytes,
)
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


# -- what is looked at ----------------------------------------------------------------------------


def test_values_are_kept_under_the_tags_of_their_keywords() -> None:
    kept = {**_TEXT_TAGS, **_DIGIT_TAGS, **_NUMBER_TAGS, **_NAME_TAGS}
    assert kept == {tag_for_keyword(keyword): keyword for keyword in kept.values()}
    judged_by = "PhotometricInterpretation", "SamplesPerPixel", "SpecificCharacterSet"
    assert {*kept, *map(tag_for_keyword, judged_by)} <= dataset.WANTED


def bare(*elements: bytes) -> bytes:
    """Return an image without SamplesPerPixel, with these elements."""
    return part10(IDENTITY + b"".join(elements))


def us(number: int, value: bytes) -> bytes:
    return element(0x28, number, b"US", value)


def pixels(size: int) -> bytes:
    return element(0x7FE0, 0x10, b"OW", bytes(size))


@pytest.mark.parametrize(("size", "is_short"), [(32, False), (30, True)])
def test_image_that_says_nothing_of_samples_has_one(size: int, *, is_short: bool) -> None:
    image = (us(0x10, b"\4\0"), us(0x11, b"\4\0"), us(0x100, b"\x10\0"))
    assert (SHORT in judged(bare(*image, pixels(size)))[1]) is is_short


def test_bits_that_fill_no_byte_are_not_missed() -> None:
    """Nine of them are one byte and a bit: what a device leaves out there is no image's."""
    image = (us(2, b"\1\0"), us(0x10, b"\3\0"), us(0x11, b"\3\0"), us(0x100, b"\1\0"))
    assert SHORT not in judged(bare(*image, element(0x7FE0, 0x10, b"OB", b"\1")))[1]
    assert SHORT in judged(bare(*image, element(0x7FE0, 0x10, b"OB", b"")))[1]


def test_first_of_several_rows_counts() -> None:
    image = (us(2, b"\1\0"), us(0x10, b"\4\0\4\0"), us(0x11, b"\4\0"), us(0x100, b"\x10\0"))
    assert SHORT not in judged(bare(*image, pixels(32)))[1]
    assert SHORT in judged(bare(*image, pixels(30)))[1]


@pytest.mark.parametrize("frames", [b"A ", b"1\\2", b"12345678901 "])
def test_number_of_frames_that_is_none_is_flagged(frames: bytes) -> None:
    image = (us(2, b"\1\0"), element(0x28, 8, b"IS", frames), us(0x10, b"\4\0"), us(0x11, b"\4\0"))
    assert SHORT in judged(bare(*image, us(0x100, b"\x10\0"), pixels(32)))[1]


def encapsulated(*fragments: bytes, end: bytes = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)) -> bytes:
    head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 2**32 - 1)
    return head + b"".join(map(item, (b"", *fragments))) + end


def test_encapsulated_image_is_not_measured_and_what_follows_it_is_odd() -> None:
    whole = image(encapsulated(b"jpeg"))
    assert judged(whole) == (Verdict.CARRY, ())
    for junk in (bytes(8), bytes(100)):
        assert judged(whole + junk) == (Verdict.FLAG, ("bytes after the dataset",))


def test_last_tag_of_the_groups_before_the_identity_is_junk_behind_pixels() -> None:
    whole = image(element(0x7FE0, 0x10, b"OW", bytes(32)))
    late = element(7, 0xFFFF, b"LO", b"late")
    assert judged(whole + late + b"?" * 40) == (Verdict.FLAG, ("bytes after the dataset",))


@pytest.mark.parametrize(
    ("date", "time", "found"),
    [
        (b"1994.11.05", b"10:15:00.5", ("19941105", "101500.5")),
        (b"1994.11.05", b"10:15 ", ("19941105", "1015")),
        (b"19941105", b"101500", ("19941105", "101500")),
        (b"1994.11.5 ", b"10:5:0", ("1994.11.5", "10:5:0")),
        (b"5.11.1994 ", b"noon", ("5.11.1994", "noon")),
    ],
)
def test_dates_and_times_of_acr_nemas_are_found_like_others(
    date: bytes, time: bytes, found: tuple[str, str]
) -> None:
    """PS3.5 6.2 has readers take them; what is no such date stays as it is."""
    elements = element(8, 0x20, b"DA", date) + element(8, 0x30, b"TM", time)
    at = IDENTITY.index(struct.pack("<HH", 0x20, 0xD))
    index = examine_bytes(part10(IDENTITY[:at] + elements + IDENTITY[at:])).index
    assert (index["StudyDate"], index["StudyTime"]) == found


# -- items, further -------------------------------------------------------------------------------


@pytest.mark.parametrize("vr", [b"OB", b"UT", b"UN"])
def test_long_explicit_element_begins_an_item_inside_implicit_vr(vr: bytes) -> None:
    before = implicit(8, 0x16, uid("1.2.840.1")) + implicit(8, 0x18, uid("1.2.3.4"))
    after = implicit(0x20, 0xD, uid("1.2.3")) + implicit(0x20, 0xE, uid("1.2.3.5"))
    inner = element(8, 0x1150, vr, b"value ") + element(8, 0x1155, b"UI", b"1.3\0")
    odd = before + implicit(8, 0x1111, item(inner)) + after
    assert judged(part10(odd, syntax=IMPLICIT_LITTLE)) == (
        Verdict.FLAG,
        ("items in explicit VR inside implicit VR",),
    )


def test_open_sequence_begins_an_item_inside_implicit_vr() -> None:
    before = implicit(8, 0x16, uid("1.2.840.1")) + implicit(8, 0x18, uid("1.2.3.4"))
    after = implicit(0x20, 0xD, uid("1.2.3")) + implicit(0x20, 0xE, uid("1.2.3.5"))
    inner = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 2**32 - 1)
    inner += item(element(8, 0x1150, b"UI", b"1.2\0")) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    odd = before + implicit(8, 0x1111, item(inner)) + after
    assert judged(part10(odd, syntax=IMPLICIT_LITTLE)) == (
        Verdict.FLAG,
        ("items in explicit VR inside implicit VR",),
    )


def test_element_without_a_vr_may_be_the_last_of_its_open_item() -> None:
    inner = element(8, 0x1150, b"UI", b"1.2\0") + struct.pack("<HHI", 8, 0x1155, 4) + b"1.3\0"
    found = judged(part10(BEFORE + sequence(item(inner, is_open=True)) + AFTER))
    assert found == (Verdict.FLAG, ("an element without a VR",))


def test_item_without_its_delimiter_ends_where_the_next_begins() -> None:
    open_item = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
    inner = element(8, 0x1150, b"UI", b"1.2\0")
    for content in (open_item + inner + item(inner), open_item + inner + item(inner, is_open=True)):
        found = judged(part10(BEFORE + sequence(content) + AFTER))
        assert found == (Verdict.FLAG, ("an item without its delimiter",))
    # Where a sequence has a length, what ends one without a length does not end it.
    stray = open_item + inner + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    stray += struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    found = judged(part10(BEFORE + sequence(stray) + AFTER))
    assert found == (Verdict.FLAG, ("a stray delimiter",))


# -- bounds of the walk ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_refused", [False, True])
def test_plain_elements_are_counted_like_others(*, is_refused: bool) -> None:
    """They are stepped over in a loop of their own, which counts them, too."""
    plain = b"".join(element(0x4001, n, b"LO", b"ab") for n in range(50))
    data = part10(IDENTITY + plain + element(0x4001, 0x100, b"UT", b"long"))
    walk = Walker(len(data))
    walk._most_elements = 40 if is_refused else 70
    if is_refused:
        with pytest.raises(Refused, match="more elements than"):
            walk.feed(data, is_last=True)
    else:
        walk.feed(data, is_last=True)


def test_deflated_bytes_may_stand_for_two_elements_each_and_a_thousand() -> None:
    private = b"".join(element(0x4001, 0, b"LO", b"") for _ in range(900))
    made = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    few = part10(made.compress(IDENTITY + private) + made.flush(), syntax=DEFLATED)
    assert judged(few)[0] is Verdict.FLAG  # one tag again and again
    made = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    many = part10(made.compress(IDENTITY + private * 4) + made.flush(), syntax=DEFLATED)
    assert len(many) - len(few) < 100
    assert judged(many) == (
        Verdict.REFUSE,
        ("more elements than a file of its size may have",),
    )


# -- how a file begins ----------------------------------------------------------------------------


@pytest.mark.parametrize(("zeros", "said"), [(132, "because a copy failed"), (131, "not DICOM")])
def test_file_that_begins_with_zeros_is_called_a_copy_that_failed(zeros: int, said: str) -> None:
    found = examine_bytes(bytes(zeros) + b"x" * 100)
    assert said in found.reasons[0]
    assert (found.verdict is Verdict.NOT_DICOM) is (zeros == 131)


@pytest.mark.parametrize(("length", "is_dicom"), [(4096, True), (4097, False)])
def test_bare_dataset_in_implicit_vr_begins_with_a_value_of_four_kibibytes_at_most(
    length: int, *, is_dicom: bool
) -> None:
    start = struct.pack("<HHI", 8, 0x16, length)
    assert walker._begins_like_dataset(start) is is_dicom
    assert walker._begins_like_dataset(start[:7]) is False
    assert not walker._begins_like_dataset(struct.pack("<HHI", 7, 0x16, 4))
    assert not walker._begins_like_dataset(struct.pack("<HHI", 9, 0x16, 4))
    assert walker._begins_like_dataset(struct.pack("<HHI", 8, 0, 4))
    assert not walker._begins_like_dataset(struct.pack("<HHI", 8, 0x9FFF, 4))


def test_header_of_zlib_is_told_from_a_stored_block() -> None:
    assert walker._begins_like_zlib(zlib.compress(b"x")[:8])
    for first in range(256):
        for second in range(0, 256, 5):
            start = bytes((first, second, 1, 2, 3, 4, 5, 6))
            is_header = first % 16 == 8 and (first * 256 + second) % 31 == 0
            assert walker._begins_like_zlib(start) is is_header
    stored = bytes((0x78, 0x01)) + bytes(1) + bytes((0xFE, 0xFF)) + bytes(3)
    assert not walker._begins_like_zlib(stored)
    unlike = bytes((0x78, 0x01)) + bytes(1) + bytes((0xFE, 0xFE)) + bytes(3)
    assert walker._begins_like_zlib(unlike)


def test_meta_element_without_a_vr_and_with_a_long_length_is_refused() -> None:
    for length in (dataset.MAX_WANTED_VALUE, dataset.MAX_WANTED_VALUE + 1):
        odd = struct.pack("<HHI", 2, 0x12, length) + bytes(length)
        verdict, reasons = judged(with_meta(b"", odd))
        if length <= dataset.MAX_WANTED_VALUE:
            assert "file meta in implicit VR" in reasons
        else:
            assert (verdict, reasons) == (
                Verdict.REFUSE,
                ("a file meta element has no valid VR",),
            )
