"""Giving exported files a DICOMDIR (PS3.10 §8), in a process of its own.

`python -m node.dicom.file_set FOLDER` reads the headers of the files in FOLDER and writes a
directory of them. Without FOLDER it reads a ZIP file, its standard input, and writes what it made
to its standard output: a line of JSON with its size and the reasons by name, then the DICOMDIR. No
file is moved, opened for writing or removed: a failure costs the DICOMDIR, or one file's entry in
it, never a file. It runs pydicom on foreign headers, so it is confined in memory, in time, and to
FOLDER, or to its standard input.

How this works. Each file yields the encoded elements of four records: of its patient, study,
series, and its own (`node.dicom.records`). Values are copied as the file has them, in its own
character set, where they are values of their element's type; else they count as missing. Equal
patients, studies and series are joined. A record's length is known then, and from the lengths the
offsets by which records point at each other.
"""

import codecs
import json
import re
import struct
import sys
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, cast

from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage

from node.dicom import records
from node.dicom.dataset import LONG_VRS
from node.dicom.limits import load_codecs
from node.dicom.walker import Walker
from node.domain.exports import is_attached
from node.sandbox.confine import confine_to_computing, confine_to_folder

Opener = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens a file for reading."""

MEMORY_LIMIT_BYTES = 2 << 30
SCRATCH = "FILESET"
"""Everything temporary lies below it."""
UNLISTED = "unlisted"
"""The file there with what the DICOMDIR does not list: JSON, a reason by name."""
_OLDER = re.compile(r"OV\d{6}")
_IMPLEMENTATION_UID = "2.25.117422393874361519843372012674508013371"
_IMPLEMENTATION = "EMIX"
_MAX_TEXT_BYTES = 10_240
_MAX_SEQUENCE_BYTES = 1 << 20
_FORMS = {
    "AS": re.compile(rb"\d{3}[DWMY]"),
    "CS": re.compile(rb"[A-Z0-9 _]{0,16}(\\[A-Z0-9 _]{0,16})*"),
    "DA": re.compile(rb"\d{8}"),
    "DT": re.compile(rb"\d{4}[0-9.+-]{0,22}"),
    "IS": re.compile(rb" *[+-]?\d{1,10} *"),
    "TM": re.compile(rb"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "UI": re.compile(rb"[0-9.]{1,128}"),
}
_TEXT = re.compile(rb"[^\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]*")
"""Text of any character set, with its escapes; no other control characters."""
_BINARY = {"US": "H", "UL": "I"}
_TEXT_TYPES = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}


class _Unlistable(Exception):
    """A file that cannot be listed; the message says why, and nothing of what is in it."""


@dataclass
class _Record:
    """One directory record, and the records below it by their distinguishing keys.

    Attributes:
        elements: The encoded elements after those that link records.
    """

    elements: bytes
    below: dict[Any, "_Record"] = field(default_factory=dict)
    offset: int = 0

    @property
    def size(self) -> int:
        """Bytes of its item."""
        return _ITEM_HEADER_BYTES + _LINKS_BYTES + len(self.elements)


_ITEM_HEADER_BYTES = _LEAST_ELEMENT_BYTES = 8
_LINKS_BYTES = 12 + 10 + 12


def make_file_set(folder: Path) -> None:
    """Write a DICOMDIR for a folder, and a list of the files that it leaves out.

    No DICOMDIR is written if no file can be listed.

    Raises:
        Exception: it cannot be written; no file was touched.
    """
    scratch = folder / SCRATCH
    scratch.mkdir()
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    made, unlisted = make_dicomdir((name, partial(_opened, folder / name)) for name in names)
    (scratch / UNLISTED).write_text(json.dumps(unlisted))
    if made:
        (scratch / "DICOMDIR").write_bytes(made)
        (scratch / "DICOMDIR").rename(folder / "DICOMDIR")


def write_file_set(source: BinaryIO, output: BinaryIO) -> None:
    """Write the DICOMDIR of a ZIP file's entries, as the module's docstring has it.

    Raises:
        Exception: it cannot be made.
    """
    with zipfile.ZipFile(source) as archive:
        names = sorted(archive.namelist())
        made, unlisted = make_dicomdir((name, partial(_entry, archive, name)) for name in names)
    first = json.dumps({"bytes": len(made), "unlisted": unlisted})
    output.write(first.encode() + b"\n" + made)
    output.flush()


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _entry(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    return cast("BinaryIO", archive.open(name))


def make_dicomdir(files: Iterable[tuple[str, Opener]]) -> tuple[bytes, dict[str, str]]:
    """Return the DICOMDIR of files, and why it does not list some of them.

    Args:
        files: Their names, in the order of the records, and what opens them.

    Returns:
        The encoded DICOMDIR, empty if it would list nothing, and reasons by name.

    Raises:
        Refused, ValueError: what was encoded cannot be read.
    """
    root = _Record(b"")
    unlisted: dict[str, str] = {}
    for name, opened in files:
        if is_attached(name):
            continue  # no DICOM, and nobody expects it in a DICOMDIR
        try:
            with opened() as handle:
                _add(root, handle, name)
        except _Unlistable as exc:
            unlisted[name] = str(exc)
        except Exception:  # of any kind: a foreign file's values reach deep into pydicom
            unlisted[name] = "its header cannot be read"
    if not root.below:
        return b"", unlisted
    encoded = _encode(root)
    _check_readable(encoded, root)
    return encoded, unlisted


# -- what a file says -------------------------------------------------------------------------


class _Values:
    """A file's values, unchanged, as far as they are valid for their elements."""

    def __init__(self, ds: Dataset) -> None:
        self._ds = ds

    def get(self, keyword: str) -> bytes:
        """Return an element's encoded value; empty where there is none, or none of its type."""
        tag = tag_for_keyword(keyword)
        found = self._ds.get_item(tag) if tag is not None and tag in self._ds else None
        if found is None or tag is None:
            return b""
        vr, raw = dictionary_VR(tag), _raw(found)
        if not isinstance(found, RawDataElement):
            return _checked(vr, raw)
        if found.VR not in (None, "UN", vr) and not {found.VR, vr} <= _TEXT_TYPES:
            return b""
        if vr in _BINARY:
            return _little_endian(raw, _BINARY[vr], found.is_little_endian)
        return _checked(vr, raw.rstrip(b"\0 "))

    def uid(self, keyword: str) -> bytes:
        """Return a UID.

        Raises:
            _Unlistable: there is none.
        """
        value = self.get(keyword)
        if not value:
            raise _Unlistable(f"it has no {keyword}")
        return value

    def sequence(self, keyword: str) -> bytes:
        """Return a sequence's items, encoded; empty where it has none, or none that can be read."""
        try:
            return self._sequence(keyword)
        except Exception:  # of any kind, see `make_file_set`
            return b""

    def _sequence(self, keyword: str) -> bytes:
        items = self._ds.get(keyword)
        if not isinstance(items, Sequence):
            return b""
        if keyword == "ContentSequence":  # PS3.3 F.5: what modifies the title, not the report
            items = [i for i in items if i.get("RelationshipType") == "HAS CONCEPT MOD"]
        encoded = _items(items)
        return encoded if len(encoded) <= _MAX_SEQUENCE_BYTES else b""

    @property
    def transfer_syntax(self) -> bytes:
        """The file's transfer syntax."""
        syntax = self._ds.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
        return str(syntax).encode("ascii")


def _items(items: Iterable[Dataset]) -> bytes:
    """Return items with their standard elements, text as it is."""
    return b"".join(_item(b"".join(_members(item))) for item in items)


def _members(item: Dataset) -> Iterator[bytes]:
    for tag in sorted(item.keys()):
        if not dictionary_has_tag(tag):
            continue
        found, vr = item.get_item(tag), dictionary_VR(tag)
        if vr == "SQ":
            yield _element(tag, _items(item[tag].value))
        elif vr in _TEXT_TYPES | _FORMS.keys():
            yield _element(tag, _raw(found))
        elif isinstance(found, RawDataElement) and vr in _BINARY:
            yield _element(tag, _little_endian(_raw(found), _BINARY[vr], found.is_little_endian))


def _raw(found: RawDataElement | DataElement) -> bytes:
    """Return a value as it stands in the file; of codes, pydicom may have decoded it already."""
    if isinstance(found, RawDataElement):
        return bytes(found.value or b"")
    values = found.value if isinstance(found.value, MultiValue) else [found.value]
    return b"\\".join(str(value or "").encode("ascii", "replace") for value in values)


def _little_endian(raw: bytes, form: str, is_little: bool) -> bytes:
    size = struct.calcsize(form)
    if len(raw) != size:
        return b""
    return raw if is_little else raw[::-1]


def _checked(vr: str, value: bytes) -> bytes:
    """Return a value if it is one of its type, or can be read as one; else nothing."""
    if len(value) > _MAX_TEXT_BYTES:
        return b""
    if vr == "DA":
        value = value.strip().replace(b".", b"")  # as ACR-NEMA wrote it, PS3.5 6.2
    elif vr == "TM":
        value = value.strip().replace(b":", b"")
    elif vr == "CS":
        value = value.upper()
    elif vr == "IS":
        value = re.sub(rb"\.0*$", b"", value.strip())
        if _FORMS[vr].fullmatch(value) and not -(2**31) <= int(value) < 2**31:
            return b""
    return value if _FORMS.get(vr, _TEXT).fullmatch(value) else b""


# -- records ----------------------------------------------------------------------------------


def _add(root: _Record, handle: BinaryIO, name: str) -> None:
    """Add one file's records to those that are there.

    Raises:
        _Unlistable: it is none that a DICOMDIR can list; nothing was added.
    """
    own_name = name.rpartition("/")[2]
    if _OLDER.fullmatch(own_name):
        raise _Unlistable("an older version of an instance")
    if handle.read(132)[128:] != b"DICM":
        raise _Unlistable("it is not a DICOM file as in PS3.10 7.1")
    handle.seek(0)
    values = _Values(dcmread(handle, stop_before_pixels=True, specific_tags=list(records.READ)))
    study, series = values.uid("StudyInstanceUID"), values.uid("SeriesInstanceUID")
    leaf = _leaf(values, name, number=int(own_name[2:]))
    nameless = sum(not patient_id for patient_id, _ in root.below)
    patient = (values.get("PatientID"), values.get("PatientName").strip(b"^ "))
    if patient not in root.below:
        unknown = b"UNKNOWN" + (b" %d" % (nameless + 1) if nameless else b"")
        elements = _elements("PATIENT", values, records.PATIENT, {"PatientID": unknown})
        root.below[patient] = _Record(elements)
    above = root.below[patient]
    for uid, kind, keys in ((study, "STUDY", records.STUDY), (series, "SERIES", records.SERIES)):
        if uid not in above.below:
            above.below[uid] = _Record(_elements(kind, values, keys, {}))
        above = above.below[uid]
    above.below[name] = leaf


def _leaf(values: _Values, name: str, *, number: int) -> _Record:
    """Return the record of the file itself."""
    sop_class = values.uid("SOPClassUID")
    kind = records.record_type(
        sop_class.decode("ascii"),
        has_image=bool(values.get("Rows")),
        has_document=bool(values.get("MIMETypeOfEncapsulatedDocument")),
    )
    if not kind:
        raise _Unlistable("no directory record is known for its SOP class")
    reference = {
        "ReferencedFileID": name.replace("/", "\\").encode("ascii"),
        "ReferencedSOPClassUIDInFile": sop_class,
        "ReferencedSOPInstanceUIDInFile": values.uid("SOPInstanceUID"),
        "ReferencedTransferSyntaxUIDInFile": values.transfer_syntax,
    }
    if kind == records.PRIVATE:
        reference["PrivateRecordUID"] = records.PRIVATE_RECORD_UID.encode("ascii")
    filled_in = {"InstanceNumber": b"%d" % number}
    return _Record(_elements(kind, values, records.LEAVES[kind], filled_in, reference))


def _elements(
    kind: str,
    values: _Values,
    keys: records.Keys,
    filled_in: Mapping[str, bytes],
    reference: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """Return a record's encoded elements, all that follow those of the links.

    Raises:
        _Unlistable: the file lacks one that the record needs, and that cannot be filled in.
    """
    found = {"DirectoryRecordType": kind.encode("ascii"), **reference}
    for keyword in ("SpecificCharacterSet", *keys.given):
        if value := _value(values, keyword):
            found[keyword] = value
    for keyword in keys.kept:
        found[keyword] = _value(values, keyword)
    for keyword in keys.needed:
        others, default = records.stand_ins(keyword)
        candidates = (_value(values, word) for word in (keyword, *others))
        value = next(filter(None, candidates), filled_in.get(keyword, default))
        if not value:
            raise _Unlistable(f"it has no {keyword}, which its directory record needs")
        found[keyword] = value
    by_tag = {tag_for_keyword(keyword) or 0: value for keyword, value in found.items()}
    return b"".join(_element(tag, by_tag[tag]) for tag in sorted(by_tag))


def _value(values: _Values, keyword: str) -> bytes:
    is_sequence = dictionary_VR(keyword) == "SQ"
    return values.sequence(keyword) if is_sequence else values.get(keyword)


# -- the file ---------------------------------------------------------------------------------


def _element(tag: int, value: bytes) -> bytes:
    """Return one element in explicit VR, little endian."""
    vr = dictionary_VR(tag)
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB") else b" "
    header = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode("ascii"))
    if vr.encode("ascii") in LONG_VRS:
        return header + struct.pack("<HI", 0, len(value)) + value
    return header + struct.pack("<H", len(value)) + value


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _offset(tag: int, value: int) -> bytes:
    return _element(tag, struct.pack("<I", value))


def _encode(root: _Record) -> bytes:
    """Return the whole DICOMDIR."""
    meta = b"".join(
        (
            _element(0x00020001, b"\0\1"),
            _element(0x00020002, MediaStorageDirectoryStorage.encode("ascii")),
            _element(0x00020003, f"2.25.{uuid.uuid4().int}".encode("ascii")),
            _element(0x00020010, ExplicitVRLittleEndian.encode("ascii")),
            _element(0x00020012, _IMPLEMENTATION_UID.encode("ascii")),
            _element(0x00020013, _IMPLEMENTATION.encode("ascii")),
        )
    )
    length = _element(0x00020000, struct.pack("<I", len(meta)))
    start = bytes(128) + b"DICM" + length + meta
    patients = list(root.below.values())
    # Their lengths are those of any offsets.
    before = len(start) + len(_directory_header(0, 0)) + len(_element(0x00041220, b""))
    offset = before
    for record in _in_order(root):
        record.offset = offset
        offset += record.size
    content = b"".join(
        _item(_links(following, record) + record.elements)
        for record, following in _with_following(root)
    )
    header = _directory_header(patients[0].offset, patients[-1].offset)
    return start + header + _element(0x00041220, content)


class _OwnWalker(Walker):
    """Walks what was written here: of a very large study, too."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._most_elements = size // _LEAST_ELEMENT_BYTES


def _check_readable(encoded: bytes, root: _Record) -> None:
    """Read a DICOMDIR as a receiver would: one that cannot be read is worse than none.

    Raises:
        Refused, ValueError: it is not well-formed, or does not name its files.
    """
    walker = _OwnWalker(len(encoded))
    walker.feed(encoded, is_last=True)
    named = [name for name, _ in _leaves(root, depth=4)]
    if not walker.references or walker.references != named[: len(walker.references)]:
        raise ValueError("the directory does not name the files that it lists")


def _leaves(above: _Record, *, depth: int) -> Iterator[tuple[Any, _Record]]:
    """Yield the records at a depth below a record, with their distinguishing keys, in order."""
    for key, record in above.below.items():
        if depth == 1:
            yield key, record
        else:
            yield from _leaves(record, depth=depth - 1)


def _directory_header(first: int, last: int) -> bytes:
    return b"".join(
        (
            _element(0x00041130, b""),
            _offset(0x00041200, first),
            _offset(0x00041202, last),
            _element(0x00041212, bytes(2)),
        )
    )


def _links(following: int, record: _Record) -> bytes:
    below = next(iter(record.below.values())).offset if record.below else 0
    return b"".join(
        (
            _offset(0x00041400, following),
            _element(0x00041410, b"\xff\xff"),
            _offset(0x00041420, below),
        )
    )


def _in_order(above: _Record) -> Iterator[_Record]:
    """Yield all records below one, each followed by those below it."""
    for record in above.below.values():
        yield record
        yield from _in_order(record)


def _with_following(above: _Record) -> Iterator[tuple[_Record, int]]:
    """Yield as `_in_order`, each with the offset of the next on its level; 0 for the last."""
    level = list(above.below.values())
    for i, record in enumerate(level):
        yield record, level[i + 1].offset if i + 1 < len(level) else 0
        yield from _with_following(record)


def main() -> None:
    """Do it for the folder that is named, or for the ZIP file that is given."""
    warnings.simplefilter("ignore")
    load_codecs()
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        confine_to_folder(MEMORY_LIMIT_BYTES, folder)
        make_file_set(folder)
    else:
        codecs.lookup("cp437")  # what ZIP files call their entries in
        confine_to_computing(MEMORY_LIMIT_BYTES)
        write_file_set(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
