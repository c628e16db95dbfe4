"""Odd files: what devices and software write that PS3.5 and PS3.10 do not allow, or hardly.

Each case's function returns its files by name.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.cases import Case, Right, put
from tests.cases.encoding import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    ENHANCED_MR,
    IMPLICIT,
    ITEM,
    ITEM_END,
    JPEG_BASELINE,
    PIXEL_DATA,
    SEGMENTATION,
    SEQUENCE_END,
    SPECTROSCOPY,
    ULTRASOUND,
    UNDEFINED,
    Elements,
    dataset,
    element,
    file_meta,
    image,
    item,
    made_uid,
    marker,
    part10,
)

Files = dict[str, bytes]
CASES: list[Case] = []

_CREATOR = (0x00090010, element(0x00090010, "LO", "ACME 1.0"))
_REFERENCE = element(0x00081150, "UI", CT) + element(0x00081155, "UI", made_uid("referenced"))


def _case(kind: str, reported: str, right: Right) -> Callable[[Callable[[], Files]], object]:
    def note(make: Callable[[], Files]) -> object:
        def write(folder: Path) -> None:
            for name, content in make().items():
                put(folder / name, content)

        name = make.__name__.strip("_").replace("_", "-")
        CASES.append(Case(name, kind, reported, right, write))
        return make

    return note


def _all_flagged(count: int = 1, *words: str) -> Right:
    return Right(carried=count, flagged=count, words=words)


def _in_pixels(elements: Elements, **values: tuple[str, str | int]) -> Elements:
    """Return the elements with others for their pixel module."""
    tags = {"photometric": 0x00280004, "samples": 0x00280002, "frames": 0x00280008}
    bits = {"allocated": 0x00280100, "stored": 0x00280101, "high": 0x00280102}
    return elements | {(tags | bits)[name]: value for name, value in values.items()}


# -- the file around the dataset ----------------------------------------------------------------


@_case(
    "no preamble, no prefix, no file meta: the dataset is the file",
    "pydicom #150, OHIF #3185, hazen #433",
    _all_flagged(3, "no file meta"),
)
def _bare_dataset() -> Files:
    name = "bare dataset"
    return {
        "IMPLICIT1": dataset(image(name, 1), is_implicit=True),
        "IMPLICIT2": dataset(image(name, 2), is_implicit=True),
        "EXPLICIT": dataset(image(name, 3)),
    }


@_case(
    "the file begins with its file meta, without preamble and prefix",
    "Daikon #49",
    _all_flagged(1, "no preamble"),
)
def _no_preamble() -> Files:
    return {"IM1": part10(image("no preamble"))[132:]}


@_case("file meta in implicit VR", "Daikon #49", _all_flagged(1, "file meta"))
def _implicit_meta() -> Files:
    elements = image("implicit meta")
    meta = file_meta(IMPLICIT, CT, str(elements[0x00080018][1]), is_implicit=True)
    return {"IM1": bytes(128) + b"DICM" + meta + dataset(elements, is_implicit=True)}


@_case(
    "no SOP Instance UID in the dataset, but one in the file meta",
    "shanoir-ng PR #1998",
    _all_flagged(1, "SOP Instance UID"),
)
def _instance_in_meta_only() -> Files:
    elements = image("instance in meta only")
    body = dataset({tag: value for tag, value in elements.items() if tag != 0x00080018})
    return {"IM1": part10(elements, body=body)}


@_case(
    "cut off, empty, zeros, zeros behind the file's beginning: what a failing copy leaves",
    "common",
    Right(carried=1, refused=4, words=("truncated", "empty", "zeros")),
)
def _failed_copy() -> Files:
    name = "failed copy"
    whole = part10(image(name, 1))
    return {
        "IM1": whole,
        "IM2": part10(image(name, 2))[:-700],
        "IM3": b"",
        "IM4": bytes(2048),
        "IM5": whole[:200] + bytes(len(whole) - 200),
    }


@_case(
    "zeros behind the last element, up to a block's end",
    "kind of DCMTK PR #118",
    _all_flagged(2, "after the dataset"),
)
def _filled_up() -> Files:
    name = "filled up"
    return {
        "IM1": part10(image(name, 1)) + bytes(512),
        "IM2": part10(image(name, 2)) + bytes(4),
    }


# -- byte order and value representation --------------------------------------------------------


@_case(
    "big endian is stated, little endian is found",
    "kind of pydicom #820",
    _all_flagged(1, "byte order"),
)
def _little_called_big() -> Files:
    elements = image("little called big")
    return {"IM1": part10(elements, BIG_ENDIAN, body=dataset(elements))}


@_case(
    "a private element without VR among elements with one",
    "fo-dicom #42, #47, Evil-DICOM #11",
    _all_flagged(1, "VR"),
)
def _element_without_vr() -> Files:
    bare = element(0x00091001, "LO", "without VR  ", is_implicit=True)
    return {"IM1": part10(image("element without VR"), raw=(_CREATOR, (0x00091001, bare)))}


@_case(
    "a VR of zeros, blanks or signs, with the long form of length",
    "dcm4che #968",
    _all_flagged(4, "VR"),
)
def _impossible_vr() -> Files:
    files = {}
    for number, vr in enumerate((b"\0\0", b"  ", b"??", b"-x"), 1):
        odd = struct.pack("<HH2sHI", 0x0009, 0x1001, vr, 0, 6) + b"value "
        raw = (_CREATOR, (0x00091001, odd))
        files[f"IM{number}"] = part10(image("impossible VR", number), raw=raw)
    return files


@_case(
    "UN of undefined length, its items in explicit VR",
    "dcm4che #159, PR #1506; GDCM reads it",
    _all_flagged(1, "items"),
)
def _explicit_items_in_un() -> Files:
    inside = element(0x00091010, "LO", "inside") + element(0x00091011, "DS", "1.5 ")
    value = item(inside, is_open=True) + marker(ITEM_END) + marker(SEQUENCE_END)
    odd = element(0x00091001, "UN", value, length=UNDEFINED)
    return {"IM1": part10(image("explicit items in UN"), raw=(_CREATOR, (0x00091001, odd)))}


@_case(
    "an explicit file with a private sequence whose items are implicit",
    "old Philips files, as GDCM and dcm4che read them",
    _all_flagged(1, "items"),
)
def _implicit_items() -> Files:
    inside = element(0x20011001, "LO", "inside", is_implicit=True)
    inside += element(0x20011002, "DS", "1.5 ", is_implicit=True)
    creator = (0x20010010, element(0x20010010, "LO", "Philips Imaging DD 001"))
    odd = (0x2001105F, element(0x2001105F, "SQ", item(inside)))
    return {"IM1": part10(image("implicit items"), raw=(creator, odd))}


@_case(
    "an implicit private value that looks like the beginning of an item",
    "dicomParser #114",
    Right(carried=1),
)
def _value_like_an_item() -> Files:
    raw = (
        (0x00290010, element(0x00290010, "LO", "SIEMENS X", is_implicit=True)),
        (0x00291010, element(0x00291010, "UN", marker(ITEM, 4000) + b"x", is_implicit=True)),
    )
    body = dataset(image("value like an item"), raw, is_implicit=True)
    return {"IM1": part10(image("value like an item"), IMPLICIT, body=body)}


# -- sequences and delimiters -------------------------------------------------------------------


@_case(
    "the sequence's delimiter ends its last item too, whose own is missing",
    "fo-dicom #763, #1157 (ultrasound)",
    _all_flagged(1, "delimiter"),
)
def _item_without_delimiter() -> Files:
    value = item(_REFERENCE, is_open=True) + marker(SEQUENCE_END)
    odd = element(0x00081140, "SQ", value, length=UNDEFINED)
    return {"IM1": part10(image("item without delimiter"), raw=((0x00081140, odd),))}


@_case(
    "an item delimiter behind an item of defined length",
    "dicomParser #143, #181",
    _all_flagged(1, "delimiter"),
)
def _delimiter_too_many() -> Files:
    value = item(_REFERENCE) + marker(ITEM_END) + marker(SEQUENCE_END)
    odd = element(0x00081140, "SQ", value, length=UNDEFINED)
    return {"IM1": part10(image("delimiter too many"), raw=((0x00081140, odd),))}


@_case(
    "an item delimiter at the very end of the file",
    "fo-dicom #1958 (a structured report)",
    _all_flagged(1, "delimiter"),
)
def _delimiter_at_the_end() -> Files:
    return {"IM1": part10(image("delimiter at the end")) + marker(ITEM_END)}


@_case(
    "fragments that end in zeros, or with the file, instead of the delimiter",
    "DCMTK PR #118 (hundreds of files)",
    _all_flagged(4, "delimiter"),
)
def _fragments_without_delimiter() -> Files:
    jpeg = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4 + b"\xff\xd9"
    files = {}
    for number, zeros in enumerate((8, 6, 16, 0), 1):
        elements = image("fragments without delimiter", number)
        del elements[PIXEL_DATA]
        pixels = element(PIXEL_DATA, "OB", item() + item(jpeg), length=UNDEFINED)
        body = dataset(elements) + pixels + bytes(zeros)
        files[f"IM{number}"] = part10(elements, JPEG_BASELINE, body=body)
    return files


@_case(
    "native pixel data of undefined length",
    "kind of pydicom #1942",
    Right(refused=1, words=("undefined length",)),
)
def _native_without_length() -> Files:
    elements = image("native without length")
    pixels = elements.pop(PIXEL_DATA)[1]
    odd = element(PIXEL_DATA, "OW", pixels, length=UNDEFINED)
    return {"IM1": part10(elements, body=dataset(elements) + odd)}


# -- deflated -----------------------------------------------------------------------------------


def _deflate(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflater.compress(content) + deflater.flush()
    return packed + bytes(len(packed) % 2)


@_case(
    "deflated is stated, the dataset is plain",
    "pydicom #1086, fo-dicom #1281",
    _all_flagged(1, "deflated"),
)
def _plain_called_deflated() -> Files:
    elements = image("plain called deflated")
    return {"IM1": part10(elements, DEFLATED, body=dataset(elements))}


@_case(
    "deflated with the header and checksum of zlib (RFC 1950)",
    "kind of fo-dicom #1281",
    _all_flagged(1, "zlib"),
)
def _zlib_called_deflated() -> Files:
    elements = image("zlib called deflated")
    return {"IM1": part10(elements, DEFLATED, body=zlib.compress(dataset(elements)))}


@_case(
    "a deflated segmentation of 64 MB that is nearly all zero: a thousand to one",
    "kind of xberg #1499",
    Right(carried=1),
)
def _deflated_mask() -> Files:
    elements = image("deflated mask", rows=512, columns=512)
    elements = _in_pixels(
        elements, frames=("IS", "2000"), allocated=("US", 1), stored=("US", 1), high=("US", 0)
    )
    elements |= {
        0x00080016: ("UI", SEGMENTATION),
        0x00080060: ("CS", "SEG"),
        PIXEL_DATA: ("OB", bytes(512 * 512 // 8 * 2000)),
    }
    return {"SEG": part10(elements, DEFLATED, body=_deflate(dataset(elements)))}


# -- pixels that are as they should be ----------------------------------------------------------


@_case(
    "MR spectroscopy: rows and columns, and no pixel data (PS3.3 A.36.3)",
    "Weasis #279, spec2nii #32, shanoir #969",
    Right(carried=1),
)
def _spectroscopy() -> Files:
    elements = image("spectroscopy", rows=1, columns=1)
    del elements[PIXEL_DATA]
    elements |= {
        0x00080016: ("UI", SPECTROSCOPY),
        0x00080060: ("CS", "MR"),
        0x00280008: ("IS", "1"),
        0x56000020: ("OF", struct.pack("<1024f", *range(1024))),
    }
    return {"IM1": part10(elements)}


@_case(
    "native YBR_FULL_422: two bytes to a pixel (PS3.3 C.7.6.3.1.2)",
    "fo-dicom #645, pydicom PR #935, cornerstoneWADOImageLoader #309",
    Right(carried=1),
)
def _half_chrominance() -> Files:
    elements = _in_pixels(
        image("half chrominance", rows=64, columns=64),
        photometric=("CS", "YBR_FULL_422"),
        samples=("US", 3),
        allocated=("US", 8),
        stored=("US", 8),
        high=("US", 7),
    )
    elements |= {
        0x00080016: ("UI", ULTRASOUND),
        0x00080060: ("CS", "US"),
        0x00280006: ("US", 0),
        PIXEL_DATA: ("OB", bytes(64 * 64 * 2)),
    }
    return {"IM1": part10(elements)}


@_case(
    "a segmentation of one bit whose frames end inside a byte",
    "dcmqi #341",
    Right(carried=1),
)
def _one_bit() -> Files:
    elements = _in_pixels(
        image("one bit", rows=13, columns=12),
        frames=("IS", "8"),
        allocated=("US", 1),
        stored=("US", 1),
        high=("US", 0),
    )
    elements |= {
        0x00080016: ("UI", SEGMENTATION),
        0x00080060: ("CS", "SEG"),
        PIXEL_DATA: ("OB", bytes(8 * 13 * 12 // 8)),
    }
    return {"SEG": part10(elements)}


@_case(
    "JPIP: the pixels are elsewhere (PS3.5 A.6)",
    "PS3.5 A.6",
    Right(carried=1),
)
def _pixels_elsewhere() -> Files:
    elements = image("pixels elsewhere")
    del elements[PIXEL_DATA]
    elements[0x00287FE0] = ("UR", "https://pacs.example.org/jpip?target=1")
    return {"IM1": part10(elements, "1.2.840.10008.1.2.4.94")}


@_case(
    "an enhanced MR of 20,000 frames: two million elements",
    "mercure #25, #49",
    Right(carried=1),
)
def _two_million_elements() -> Files:
    frames = 20_000

    def group(tag: int, content: bytes) -> bytes:
        inside = item(content, is_open=True) + marker(ITEM_END) + marker(SEQUENCE_END)
        return element(tag, "SQ", inside, length=UNDEFINED)

    content = element(0x00209056, "SH", "1 ") + element(0x00209057, "UL", 1)
    content += element(0x00209157, "UL", struct.pack("<4I", 1, 2, 3, 4))
    windows = element(0x00281050, "DS", "40") + element(0x00281051, "DS", "400 ")
    values = element(0x00281052, "DS", "0 ") + element(0x00281053, "DS", "1 ")
    frame = (
        group(0x00189114, element(0x00189082, "FD", struct.pack("<d", 1.0)))
        + group(0x00209111, content)
        + group(0x00209113, element(0x00200032, "DS", "1.0\\2.0\\3.0 "))
        + group(0x00209116, element(0x00200037, "DS", "1\\0\\0\\0\\1\\0 "))
        + group(0x00289110, element(0x00180050, "DS", "1.0 ") + element(0x00280030, "DS", "1\\1 "))
        + group(0x00289132, windows)
        + group(0x00289145, values + element(0x00281054, "LO", "US"))
    )
    groups = (item(frame, is_open=True) + marker(ITEM_END)) * frames + marker(SEQUENCE_END)
    elements = image("two million elements", rows=4, columns=4) | {
        0x00080016: ("UI", ENHANCED_MR),
        0x00080060: ("CS", "MR"),
        0x00280008: ("IS", str(frames)),
        PIXEL_DATA: ("OW", bytes(2 * 4 * 4 * frames)),
    }
    raw = ((0x52009230, element(0x52009230, "SQ", groups, length=UNDEFINED)),)
    return {"IM1": part10(elements, raw=raw)}


# -- identifiers --------------------------------------------------------------------------------


@_case(
    "UIDs of 65 to 68 characters, from a printer and a modality",
    "pynetdicom #549",
    _all_flagged(3, "PS3.5 9.1"),
)
def _long_uids() -> Files:
    long = "1.2.826.0.1.3680043.10.363.5421649119139350670558684743636101576.101"
    name, files = "long UIDs", {}
    for number, (tag, value) in enumerate(
        ((0x00080018, long), (0x0020000E, long[:66]), (0x0020000D, f"{long[:63]}.1")), 1
    ):
        files[f"IM{number}"] = part10(image(name, number) | {tag: ("UI", value)})
    return files


@_case(
    "UIDs with leading zeros, and with a first component of 9790",
    "fo-dicom #859, #1160",
    _all_flagged(2, "PS3.5 9.1"),
)
def _loose_uids() -> Files:
    name = "loose UIDs"
    zeros = "1.2.826.0.1.3680043.8.1055.1.20111103111149651.05453119.38197201"
    first = "9790.00727170976343643477368009189780409586"
    return {
        f"IM{number}": part10(image(name, number) | {0x00080018: ("UI", value)})
        for number, value in enumerate((zeros, first), 1)
    }


def _large(folder: Path) -> None:
    """Write an image of more than 2 GiB, most of it holes."""
    frames, frame_bytes = 1025, 2 * 1024 * 1024
    elements = image("two gibibytes", rows=1, columns=1) | {
        0x00280008: ("IS", str(frames)),
        0x00280010: ("US", 1024),
        0x00280011: ("US", 1024),
    }
    del elements[PIXEL_DATA]
    total = frames * frame_bytes
    head = part10(elements, body=dataset(elements) + element(PIXEL_DATA, "OW", length=total))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "IM1").open("wb") as handle:
        handle.write(head)
        for frame in range(0, frames, 50):
            handle.seek(len(head) + frame * frame_bytes)
            handle.write(struct.pack("<I", frame))
        handle.truncate(len(head) + total)


CASES.append(
    Case(
        "two-gibibytes",
        "pixel data of more than 2 GiB",
        "dcm4chee-arc #4199",
        Right(carried=1),
        _large,
        is_large=True,
    )
)
