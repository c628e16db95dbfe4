"""From a finished walk to a verdict: carry, flag, hold or refuse, with reasons.

Reasons are shown to people and written to logs, so they never hold a value from the file.
"""

import re
import struct
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.uid import UID
from pydicom.valuerep import PersonName

from node.dicom.dataset import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.dicom.identifiers import uid_from_bytes
from node.dicom.skeletons import Skeletons
from node.dicom.stream import NotDicom, Refused
from node.dicom.walker import MEDIA_DIRECTORY, Walker
from node.domain.display_text import printable
from node.domain.pixels import MOST_SAMPLES, TO_THE_END, Pixels
from node.domain.uids import is_loose_uid, is_uid
from node.domain.verdicts import Examined, Verdict

# What an operating system or an interpreter would run or open, at the very start of a file.
# A TIFF header there is common and harmless (dual-personality files, PS3.10 §7.1).
_ACTIVE_PREAMBLES = (
    (b"MZ", "a Windows executable"),
    (b"\x7fELF", "a Linux executable"),
    (b"\xca\xfe\xba\xbe", "a macOS or Java executable"),
    (b"\xfe\xed\xfa\xce", "a macOS executable"),
    (b"\xfe\xed\xfa\xcf", "a macOS executable"),
    (b"\xce\xfa\xed\xfe", "a macOS executable"),
    (b"\xcf\xfa\xed\xfe", "a macOS executable"),
    (b"#!", "a script"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF", "a PDF"),
    (b"<", "markup"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
)

_TEXT_TAGS = {
    0x00100020: "PatientID",
    0x00100030: "PatientBirthDate",
    0x00100040: "PatientSex",
    0x00080020: "StudyDate",
    0x00080030: "StudyTime",
    0x00200010: "StudyID",
    0x00081030: "StudyDescription",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    0x00080080: "InstitutionName",
    0x0020000E: "SeriesInstanceUID",
    0x00200011: "SeriesNumber",
    0x0008103E: "SeriesDescription",
    0x00400244: "PerformedProcedureStepStartDate",
    0x00400245: "PerformedProcedureStepStartTime",
    0x00180015: "BodyPartExamined",
}
_DIGIT_TAGS = {0x00200013: "InstanceNumber", 0x00280008: "NumberOfFrames"}
"""ASCII values that differ per instance: decoded separately from those equal in a series."""

_NUMBER_TAGS = {0x00280010: "Rows", 0x00280011: "Columns", 0x00280100: "BitsAllocated"}
_NAME_TAGS = {0x00100010: "PatientName", 0x00080090: "ReferringPhysicianName"}
_HALF_SAMPLES = {b"YBR_FULL_422": 4, b"YBR_PARTIAL_422": 4, b"YBR_PARTIAL_420": 3}
_WHOLE_BYTES = (8, 16, 32, 64)
_ACR_DATE = re.compile(r"[0-9]{4}\.[0-9]{2}\.[0-9]{2}")  # PS3.5 6.2, of DA and TM
_ACR_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?")
_MAX_TEXT = 256
_DAMAGED_DIRECTORY = "the DICOMDIR is damaged: the files that it references are unknown"
_LARGE_DIRECTORY = "the DICOMDIR is too large: not all files that it references were looked for"
_DELIMITERS = {ord(c) for c in "\\\r\n\t\f"}  # PS3.5 §6.1.2.5.3


def examine(walker: Walker, *, is_whole: bool = True) -> Examined:
    """Return the verdict on a file whose walk has not refused it so far.

    If `is_whole` is false, missing parts may still come and are not objected to.
    """
    values = walker.values
    reasons = list(walker.oddities)
    study = uid_from_bytes(values.get(0x0020000D, b""))
    series = uid_from_bytes(values.get(0x0020000E, b""))
    instance = uid_from_bytes(values.get(0x00080018, b""))
    sop_class = uid_from_bytes(values.get(0x00080016, b""))
    meta_class = uid_from_bytes(values.get(0x00020002, b""))
    meta_instance = uid_from_bytes(values.get(0x00020003, b""))
    if walker.is_directory:
        return _directory(walker, is_whole=is_whole)
    if is_whole and not instance and meta_instance:
        instance = meta_instance
        reasons.append("SOP Instance UID in the file meta only")
    if is_whole and not instance:
        return refusal("no SOP Instance UID")
    if is_whole and not study:
        return refusal("no Study Instance UID")
    for uid, name in (
        (study, "Study Instance UID"),
        (instance, "SOP Instance UID"),
        (sop_class, "SOP Class UID"),
        (series, "Series Instance UID"),
    ):
        if uid and not is_uid(uid):
            if not is_loose_uid(uid):
                return refusal(f"an impossible {name}")
            reasons.append(f"a {name} that breaks PS3.5 9.1")
    if not sop_class:
        reasons.append("no SOP Class UID")
    if not series:
        reasons.append("no Series Instance UID")
    if (meta_class and meta_class != sop_class) or (meta_instance and meta_instance != instance):
        reasons.append("file meta and dataset name different instances")
    syntax = walker.transfer_syntax
    if syntax and not is_loose_uid(syntax):
        return refusal("an impossible Transfer Syntax UID")
    if syntax and UID(syntax).is_private:
        reasons.append("a private transfer syntax")
    if _is_short_of_pixels(walker):
        reasons.append("less pixel data than its dimensions need")
    verdict = Verdict.FLAG if reasons else Verdict.CARRY
    active = active_preamble(walker.preamble)
    if active:
        verdict = Verdict.HOLD
        reasons.insert(0, f"its preamble begins like {active}")
    return Examined(
        verdict=verdict,
        reasons=tuple(reasons),
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=instance,
        sop_class_uid=sop_class,
        transfer_syntax_uid=syntax,
        pixels=_pixels(walker),
        index=_index(walker),
    )


def examine_bytes(data: memoryview | bytes, skeletons: Skeletons | None = None) -> Examined:
    """Walk and examine a whole file in memory; never raises for anything in the bytes.

    With `skeletons`, a file is not walked over if it has the heads of an earlier one.
    """
    if skeletons is not None and (walked := skeletons.find(data)) is not None:
        return examine(walked)
    walker = Walker(len(data))
    trace = None if skeletons is None else walker.trace()
    try:
        walker.feed(data, is_last=True)
    except Refused as exc:
        return verdict_on(exc, walker)
    if skeletons is not None and trace is not None:
        skeletons.keep(data, walker, trace)
    return examine(walker)


def verdict_on(refused: Refused, walker: Walker) -> Examined:
    """Return the verdict on a file whose walk ended so."""
    if walker.is_directory:  # what it names so far is named
        return _directory(walker, is_whole=True, damage=str(refused))
    if isinstance(refused, NotDicom):
        return Examined(Verdict.NOT_DICOM, (str(refused),))
    return refusal(str(refused))


def _directory(walker: Walker, *, is_whole: bool, damage: str = "") -> Examined:
    reasons: tuple[str, ...] = ("a DICOMDIR",)
    if damage:
        reasons = (_DAMAGED_DIRECTORY, damage)
    elif walker.names_more:
        reasons = (_LARGE_DIRECTORY,)
    return Examined(
        Verdict.DIRECTORY,
        reasons,
        sop_class_uid=MEDIA_DIRECTORY,
        references=tuple(walker.references) if is_whole else (),
        is_partial=bool(damage) or walker.names_more,
    )


def refusal(reason: str) -> Examined:
    """Return the verdict that refuses a file for one reason."""
    return Examined(Verdict.REFUSE, (reason,))


def active_preamble(preamble: bytes) -> str:
    """Return what the preamble pretends to be, or an empty string for nothing active."""
    start = preamble.lstrip(b" \t\r\n\xef\xbb\xbf")
    return next((what for magic, what in _ACTIVE_PREAMBLES if start.startswith(magic)), "")


def _number(walker: Walker, tag: int) -> int:
    raw = walker.values.get(tag, b"")
    if len(raw) < 2:
        return 0
    return int(struct.unpack("<H" if walker.little_endian else ">H", raw[:2])[0])


def _is_short_of_pixels(walker: Walker) -> bool:
    if walker.is_encapsulated:
        return False
    if walker.pixel_bytes is None:
        return not walker.has_other_pixels and 0x00280010 in walker.values
    frames_text = walker.values.get(0x00280008, b"1").strip(b"\0 ") or b"1"
    if not frames_text.isdigit() or len(frames_text) > 10:
        return True
    bits = _number(walker, 0x00280100)
    # Pixels share chrominance there (PS3.3 C.7.6.3.1.2): so many half samples have two of them.
    half_samples = _HALF_SAMPLES.get(_photometric(walker)) or 2 * (_number(walker, 0x00280002) or 1)
    pixels = _number(walker, 0x00280010) * _number(walker, 0x00280011) * int(frames_text)
    return walker.pixel_bytes < pixels * half_samples * bits // 16


def _pixels(walker: Walker) -> Pixels | None:
    """Return where pixels lie, and how, as far as the header says so."""
    native = (IMPLICIT_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE)
    offset = walker.pixel_offset
    if offset is None:
        if walker.transfer_syntax and walker.transfer_syntax not in native:
            return Pixels(0, TO_THE_END)  # deflated
        return None
    if walker.is_encapsulated:
        return Pixels(offset, TO_THE_END)
    length, bits = walker.pixel_bytes or 0, _number(walker, 0x00280100)
    if walker.float_pixels is not None:
        length, bits = walker.float_pixels[0], 8 * walker.float_pixels[1]
    beside, half_samples = _samples_beside(walker)
    row_bytes = _number(walker, 0x00280011) * bits * half_samples // 16
    if bits not in _WHOLE_BYTES:
        return Pixels(offset, length, 1, 1, row_bytes)
    return Pixels(offset, length, bits // 8, beside, row_bytes)


def _samples_beside(walker: Walker) -> tuple[int, int]:
    """Return how many like samples lie beside each other, and how many half samples a pixel has.

    Three only for colour by pixel (PS3.3 C.7.6.3.1.3) that shares nothing with its neighbours.
    """
    samples = _number(walker, 0x00280002) or 1
    if samples == 1 or _number(walker, 0x00280006) == 1:  # one sample, or planes
        return 1, 2
    shared = _HALF_SAMPLES.get(_photometric(walker))
    if shared is not None:
        return 1, shared
    return (MOST_SAMPLES if samples == MOST_SAMPLES else 1), 2 * samples


def _photometric(walker: Walker) -> bytes:
    return walker.values.get(0x00280004, b"").strip(b"\0 ")


def _index(walker: Walker) -> dict[str, str]:
    values = walker.values
    charset = values.get(0x00080005, b"")
    index = {
        keyword: _plain(keyword, _text(values[tag], charset))
        for tag, keyword in _TEXT_TAGS.items()
        if tag in values
    }
    names = {
        keyword: _person_name(values[tag], charset)
        for tag, keyword in _NAME_TAGS.items()
        if tag in values
    }
    numbers = {
        keyword: str(_number(walker, tag))
        for tag, keyword in _NUMBER_TAGS.items()
        if len(values.get(tag, b"")) >= 2
    }
    digits = {
        keyword: values[tag][:_MAX_TEXT].decode("ascii", "replace").strip("\0 ")
        for tag, keyword in _DIGIT_TAGS.items()
        if tag in values
    }
    return index | names | numbers | digits


def _plain(keyword: str, text: str) -> str:
    """Return a date or time as DA and TM have it, where ACR-NEMA's separators are in it."""
    if "." in text and keyword.endswith("Date") and _ACR_DATE.fullmatch(text):
        return text.replace(".", "")
    if ":" in text and keyword.endswith("Time") and _ACR_TIME.fullmatch(text):
        return text.replace(":", "")
    return text


@lru_cache(maxsize=256)
def _encodings(charset: bytes) -> tuple[str, ...]:
    terms = [term.strip(" \0") for term in charset.decode("ascii", "replace").split("\\")]
    try:
        return tuple(convert_encodings(terms))
    except (LookupError, ValueError):
        return ("iso8859",)


def _charset_of(raw: bytes, charset: bytes) -> bytes:
    """Return the character set of a value: UTF-8 is often written without being declared.

    Without a declaration a value is ASCII (PS3.3 C.12.1.1.2). A value that is not ASCII, but valid
    UTF-8, is hardly ever in another encoding.
    """
    if charset.strip(b" \0") not in (b"", b"ISO_IR 6") or raw.isascii():
        return charset
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return charset
    return b"ISO_IR 192"


# Equal for all instances of a series, so decoded once.
@lru_cache(maxsize=1024)
def _text(raw: bytes, charset: bytes) -> str:
    charset = _charset_of(raw, charset)
    try:
        return clean_text(decode_bytes(raw, list(_encodings(charset)), _DELIMITERS))
    except (LookupError, ValueError):
        return clean_text(raw.decode("ascii", "replace"))


@lru_cache(maxsize=1024)
def _person_name(raw: bytes, charset: bytes) -> str:
    charset = _charset_of(raw, charset)
    try:
        name = PersonName(raw.rstrip(b"\0 "), list(_encodings(charset)))
        return clean_text(str(name.decode()))
    except (LookupError, ValueError):
        return clean_text(raw.decode("ascii", "replace"))


def clean_text(text: str) -> str:
    """Return text that is safe to print: no control or direction characters, bounded."""
    return printable(text[:_MAX_TEXT], " ").strip()
