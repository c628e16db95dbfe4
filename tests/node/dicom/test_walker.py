"""The walk over hostile and odd files: bounds first, whatever the bytes say."""

import struct
import zlib
from io import BytesIO

import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.dicom.dataset import EXPLICIT_BIG, MAX_DEPTH
from node.dicom.examine import active_preamble, examine, examine_bytes
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.pixels import TO_THE_END, Pixels
from node.domain.verdicts import Examined, Verdict
from tests.support.dicom_files import encode, make_dataset, make_instance, part10_files

# pydicom warns about odd text; the parser process ignores its warnings, and so do these tests.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DEFLATED = "1.2.840.10008.1.2.1.99"
SOUND = make_instance(1, 1)


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, size) + value
    return struct.pack("<HH2sH", group, number, vr, size) + value


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def part10(
    dataset: bytes, *, preamble: bytes = bytes(128), syntax: str = "1.2.840.10008.1.2.1"
) -> bytes:
    meta = element(2, 0x10, b"UI", uid(syntax))
    return preamble + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + dataset


IDENTITY = (
    element(8, 0x16, b"UI", uid("1.2.840.10008.5.1.4.1.1.2"))
    + element(8, 0x18, b"UI", uid("1.2.3.4"))
    + element(0x20, 0xD, b"UI", uid("1.2.3"))
    + element(0x20, 0xE, b"UI", uid("1.2.3.5"))
)


def test_sound_file_is_carried_with_its_identifiers() -> None:
    found = examine_bytes(SOUND)
    assert found.verdict is Verdict.CARRY
    assert found.index["PatientName"] == "Synthetic^Person"


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_verdict_is_the_same_however_the_bytes_come(size: int) -> None:
    walker = Walker(len(SOUND))
    for i in range(0, len(SOUND), size):
        walker.feed(SOUND[i : i + size], is_last=i + size >= len(SOUND))
    assert examine(walker) == examine_bytes(SOUND)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_real_files_in_random_windows_give_the_same_verdict(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(REAL))
    content = path.read_bytes()
    walker, start = Walker(len(content)), 0
    is_skipping = data.draw(st.booleans())
    try:
        while start < len(content):
            size = data.draw(st.integers(1, max(len(content) // 4, 1)))
            is_last = start + size >= len(content)
            if is_skipping and size <= walker.skippable_bytes and not is_last:
                walker.pass_over(size)
            else:
                walker.feed(content[start : start + size], is_last=is_last)
            start += size
        found = examine(walker)
    except Refused as exc:
        found = Examined(Verdict.REFUSE, (str(exc),))
    whole = examine_bytes(content)
    assert (found.verdict, found.reasons) == (whole.verdict, whole.reasons)


def test_nothing_that_must_be_looked_at_is_passed_over() -> None:
    walker = Walker(len(SOUND))
    walker.feed(SOUND[:140], is_last=False)
    with pytest.raises(ValueError, match="looked at"):
        walker.pass_over(walker.skippable_bytes + 1)


def test_file_that_ends_while_it_is_passed_over_is_truncated() -> None:
    walker = Walker()
    walker.feed(SOUND[: len(SOUND) - 500], is_last=False)
    walker.pass_over(100)
    with pytest.raises(Refused, match="truncated"):
        walker.feed(SOUND[-300:], is_last=True)


REAL = [p for p in part10_files() if p.stat().st_size < 300_000][::4]


@given(st.binary(max_size=400))
@example(b"")
@example(SOUND[:132])
def test_junk_never_raises(junk: bytes) -> None:
    assert not examine_bytes(junk).is_instance
    examine_bytes(part10(IDENTITY + junk))


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_one_changed_byte_never_raises(place: int, change: int) -> None:
    data = bytearray(SOUND)
    data[place] ^= change
    examine_bytes(bytes(data))


@given(st.integers(0, len(SOUND) - 1))
def test_truncated_anywhere_is_refused_or_flagged_or_ends_between_elements(end: int) -> None:
    found = examine_bytes(SOUND[:end])
    if found.verdict is Verdict.CARRY:
        whole, part = pydicom.dcmread(BytesIO(SOUND)), pydicom.dcmread(BytesIO(SOUND[:end]))
        assert all(element == whole[element.tag] for element in part)
        assert "Rows" not in part


def nested(depth: int) -> bytes:
    opening = element(8, 0x1140, b"SQ", b"", 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 2**32 - 1
    )
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 200, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    found = examine_bytes(part10(nested(depth) + IDENTITY))
    assert found.reasons == (f"sequences nested deeper than {MAX_DEPTH}",)


def test_nesting_up_to_the_bound_is_walked() -> None:
    identity = IDENTITY.replace(element(8, 0x16, b"UI", uid("1.2.840.10008.5.1.4.1.1.2")), b"")
    assert examine_bytes(part10(nested(MAX_DEPTH) + identity)).verdict is not Verdict.REFUSE


@pytest.mark.parametrize(
    "lie",
    [
        element(0x10, 0x10, b"PN", b"ab", 60_000),
        element(0x7FE0, 0x10, b"OB", b"abcd", 0xFFFFFFF0),
        element(0x7FE0, 0x10, b"OW", b"abcd", 6),
        element(8, 0x1140, b"SQ", b"", 100),
    ],
)
def test_lengths_past_the_end_are_refused(lie: bytes) -> None:
    assert "truncated" in examine_bytes(part10(IDENTITY + lie)).reasons[0]


def test_value_that_reaches_out_of_its_item_is_refused() -> None:
    inner = element(8, 0x1150, b"UI", b"", 40)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    lie = element(8, 0x1140, b"SQ", item) + bytes(100)
    assert examine_bytes(part10(lie)).reasons == ("a value reaches beyond the item that holds it",)


def test_deflate_bomb_is_refused_before_it_expands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.walker.MAX_DEFLATED_BYTES", 32 << 20)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(IDENTITY + element(0x7FE0, 0x10, b"OB", bytes(64 << 20))) + bomb.flush()
    found = examine_bytes(part10(packed, syntax=DEFLATED))
    assert found.reasons == ("the deflated dataset expands too much",)


def test_deflated_file_is_carried() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(IDENTITY) + packer.flush()
    found = examine_bytes(part10(packed, syntax=DEFLATED))
    assert found.verdict is Verdict.CARRY
    assert found.pixels == Pixels(0, TO_THE_END)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"MZ\x90", "a Windows executable"),
        (b"\x7fELF", "a Linux executable"),
        (b"#!/bin/sh\n", "a script"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"\n <script>", "markup"),
        (b"II*\0", ""),
        (b"MM\0*", ""),
        (bytes(8), ""),
    ],
)
def test_active_preamble_is_held(start: bytes, what: str) -> None:
    preamble = start.ljust(128, b"\0")
    assert active_preamble(preamble) == what
    found = examine_bytes(preamble + SOUND[128:])
    assert found.verdict is (Verdict.HOLD if what else Verdict.CARRY)


@pytest.mark.parametrize(
    ("bad", "verdict"),
    [
        ("../../etc/cron.d/x", Verdict.REFUSE),
        ("1.2.3/../4", Verdict.REFUSE),
        ("1" * 129, Verdict.REFUSE),
        ("1" * 65, Verdict.FLAG),
        ("", Verdict.REFUSE),
        ("1.02.3", Verdict.FLAG),
        ("1.2.3.4", Verdict.CARRY),
    ],
)
def test_sop_instance_uid_is_checked(bad: str, verdict: Verdict) -> None:
    dataset = IDENTITY.replace(
        element(8, 0x18, b"UI", uid("1.2.3.4")), element(8, 0x18, b"UI", uid(bad))
    )
    assert examine_bytes(part10(dataset)).verdict is verdict


def test_missing_study_instance_uid_is_refused_with_that_reason() -> None:
    dataset = IDENTITY.replace(element(0x20, 0xD, b"UI", uid("1.2.3")), b"")
    assert examine_bytes(part10(dataset)).reasons == ("no Study Instance UID",)


def test_duplicate_and_unordered_tags_are_flagged() -> None:
    twice = IDENTITY + element(0x20, 0xE, b"UI", uid("1.2.3.5"))
    assert examine_bytes(part10(twice)).reasons == ("a tag twice",)
    unordered = IDENTITY + element(0x10, 0x20, b"LO", b"ID")
    assert examine_bytes(part10(unordered)).reasons == ("tags out of order",)


def test_reasons_never_quote_the_file() -> None:
    ds = make_dataset(1, 1)
    ds.PatientName = "Secret^Name"
    ds.StudyInstanceUID = "1.2.3"
    for place in range(0, 900, 7):
        found = examine_bytes(encode(ds)[:place])
        assert "Secret" not in str(found.reasons)


def test_text_is_made_printable() -> None:
    text = "a\x1b[31mb\u202ec".encode()
    charset = element(8, 5, b"CS", b"ISO_IR 192")
    description = element(8, 0x1030, b"LO", text + b" " * (len(text) % 2))
    found = examine_bytes(part10(charset + IDENTITY + description))
    assert found.index["StudyDescription"] == "a [31mb c"


def test_big_endian_is_carried() -> None:
    big = b"".join(
        struct.pack(">HH2sH", g, e, b"UI", len(uid(v))) + uid(v)
        for g, e, v in (
            (8, 0x16, "1.2"),
            (8, 0x18, "1.2.4"),
            (0x20, 0xD, "1.2.3"),
            (0x20, 0xE, "1.5"),
        )
    )
    assert examine_bytes(part10(big, syntax=EXPLICIT_BIG)).verdict is Verdict.CARRY


def enhanced_mr(frames: int) -> bytes:
    """Return a dataset as an enhanced MR has it: a few sequences for each frame."""

    def sequence(group: int, number: int, *items: bytes) -> bytes:
        value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return element(group, number, b"SQ", value)

    def frame(n: int) -> bytes:
        content = (
            element(0x18, 0x9074, b"DT", b"20260101120000.%06d " % n)
            + element(0x20, 0x9056, b"SH", b"1 ")
            + element(0x20, 0x9057, b"UL", struct.pack("<I", n))
            + element(0x20, 0x9157, b"UL", struct.pack("<II", 1, n))
        )
        return (
            sequence(0x18, 0x9114, element(0x18, 0x9082, b"FD", struct.pack("<d", 2.5)))
            + sequence(0x20, 0x9111, content)
            + sequence(0x20, 0x9113, element(0x20, 0x32, b"DS", b"-100.5\\-99.25\\%07.2f" % n))
            + sequence(0x20, 0x9116, element(0x20, 0x37, b"DS", b"1\\0\\0\\0\\1\\0 "))
            + sequence(0x28, 0x9110, element(0x28, 0x30, b"DS", b"0.9\\0.9 "))
            + sequence(0x28, 0x9132, element(0x28, 0x1050, b"DS", b"%04d" % (n * 7919 % 1000)))
        )

    return IDENTITY + sequence(0x5200, 0x9230, *map(frame, range(frames)))


@pytest.mark.parametrize("is_deflated", [False, True])
def test_enhanced_mr_of_4096_frames_is_carried(is_deflated: bool) -> None:
    """Some 100,000 elements, which deflate to a few bytes each."""
    dataset = enhanced_mr(4096)
    if is_deflated:
        deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        dataset = deflater.compress(dataset) + deflater.flush()
        found = examine_bytes(part10(dataset, syntax=DEFLATED))
    else:
        found = examine_bytes(part10(dataset))
    assert (found.verdict, found.reasons) == (Verdict.CARRY, ())
