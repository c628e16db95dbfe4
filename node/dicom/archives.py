"""What is in an archive or disc image: ZIP, tar, gzip, ISO 9660. Runs in a confined process.

One level deeper is looked into as well: a portal's ZIP has a ZIP for each study, a disc image lies
in a ZIP. Members are read, never extracted, one after the other. What an archive expands to is
bounded by its own size; what cannot be bounded, or read, is named with what to do.
"""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pycdlib

from node.dicom.archive_kinds import FIRST_BYTES, HEAD_BYTES, Kind, kind_of, label_inside

MAX_MEMBERS = 100_000
MAX_NAME = 4096
PIECE_BYTES = 1 << 20
_MAX_DEPTH = 1
_RATIO, _MOST_RATIO, _MOST_AT_THAT = 200, 1032, 4 * 2**30
_FREE_BYTES = 64 * 2**20  # every archive may expand to this, however small it is
_PASSES = 16
"""How many times the expanded bytes may be expanded again to reach files in inner archives.
*Measured*: a disc image in a ZIP is passed over 7 times."""
_NAMES_BYTES = 64 * 2**20
_DEFLATE64 = 9
_ZIP_END_BYTES = 22 + 0xFFFF  # with the longest comment


class Unreadable(Exception):
    """A member, or all of an archive, cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Attributes:
        name: As the archive says; see `archive_kinds.label_inside`. Empty for what a gzip file
            is of.
        size: As the archive says; 0 where it does not.
        problem: Why it cannot be read; empty when it can.
        open: Opens it for reading, once.
    """

    name: str
    size: int
    problem: str = ""
    open: Callable[[], BinaryIO] | None = None


class Budget:
    """The bound on what an archive of some size may expand to, all members together.

    Deflate expands a byte to at most 1,032, and an empty mask comes close to that. So up to 4 GiB
    no possible ratio is refused; beyond that, an archive that expands 200 times is refused.
    """

    def __init__(self, archive_bytes: int) -> None:
        most = min(_MOST_RATIO * archive_bytes, _MOST_AT_THAT)
        self._left = _FREE_BYTES + max(_RATIO * archive_bytes, most)
        self._passes_left = _PASSES * self._left
        self._members = MAX_MEMBERS
        self._names_left = _NAMES_BYTES

    def take(self, count: int) -> None:
        """Take bytes that came out.

        Raises:
            Unreadable: it has expanded beyond that.
        """
        self._left -= count
        if self._left < 0:
            raise Unreadable("it expands beyond all measure; unpack it first")

    def pass_over(self, count: int) -> None:
        """Take bytes that are expanded on the way, whether or not they come out.

        Raises:
            Unreadable: that is more than reading all of it takes.
        """
        self._passes_left -= count
        if self._passes_left < 0:
            raise Unreadable("it expands beyond all measure; unpack it first")

    def take_member(self) -> None:
        """Take one member.

        Raises:
            Unreadable: there are too many.
        """
        self._members -= 1
        if self._members < 0:
            raise Unreadable("it has too many entries; unpack it first")

    def take_name(self, name: str) -> None:
        """Take what a file is called, with the archive that it is in.

        Raises:
            Unreadable: the names are too long.
        """
        self._names_left -= min(len(name), MAX_NAME)
        if self._names_left < 0:
            raise Unreadable("its names are too long; unpack it first")


def find_members(handle: BinaryIO, kind: Kind, budget: Budget) -> Iterator[Member]:
    """Yield the files in an archive, with those in the archives in it.

    A member has to be read, if at all, before the next is asked for.

    Args:
        handle: The archive.
        kind: What it is.
        budget: What it may expand to.

    Raises:
        Unreadable: it is damaged, or beyond the bounds; what was yielded is right.
    """
    for member in _find(handle, kind, budget, depth=0):
        budget.take_name(member.name)
        yield member


def _find(handle: BinaryIO, kind: Kind, budget: Budget, *, depth: int) -> Iterator[Member]:
    try:
        for member in _LISTERS[kind](handle, budget):
            budget.take_member()
            yield from _inside(member, budget, depth)
    except Unreadable:
        raise
    except Exception as exc:  # of any kind: libraries that read foreign bytes
        raise Unreadable(f"a damaged {kind.value}") from exc


def _inside(member: Member, budget: Budget, depth: int) -> Iterator[Member]:
    """Yield a member, or, if it is an archive itself, what is in it."""
    if member.open is None:
        yield member
        return
    try:
        with member.open() as stream:
            head = _read_head(stream)
            kind = kind_of(head)
            if kind is None:
                # Opened once only: going back in a packed tar would unpack it from its beginning.
                rejoined = cast("BinaryIO", _Rejoined(head, stream))
                yield Member(member.name, member.size, "", lambda: rejoined)
                return
            if not kind.is_read:
                yield Member(member.name, member.size, kind.problem)
                return
            if depth == _MAX_DEPTH:
                problem = "an archive inside an archive inside an archive; unpack it first"
                yield Member(member.name, member.size, problem)
                return
            stream.seek(0)
            charged = _charged(stream, budget)
            for inner in _find(charged, kind, budget, depth=depth + 1):
                name = label_inside(member.name, inner.name)
                yield Member(name, inner.size, inner.problem, inner.open)
    except Unreadable as exc:
        yield Member(member.name, member.size, str(exc))
    except Exception:  # as above
        yield Member(member.name, member.size, "damaged inside its archive")


class _Bare:
    """A stream and nothing else: libraries look at its name, and at what a ZIP calls its mode."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell
        self.seekable = stream.seekable


def _bare(stream: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", _Bare(stream))


class _Charged:
    """A stream that expands as it is read: all of that is charged, also what is sought past."""

    def __init__(self, stream: BinaryIO, budget: Budget) -> None:
        self._stream, self._budget = stream, budget
        self.tell, self.seekable = stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; all that are left where no size is given."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        found = self._stream.read(size)
        self._budget.pass_over(len(found))
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere, in steps; back is from the beginning."""
        if whence == io.SEEK_END:
            while self.read(PIECE_BYTES):
                pass
        here = self._stream.tell()
        target = max(0, offset if whence == io.SEEK_SET else here + offset)
        if target < here:
            self._budget.pass_over(target)
            return self._stream.seek(target)
        while here < target and (piece := self.read(min(PIECE_BYTES, target - here))):
            here += len(piece)
        return here


def _charged(stream: BinaryIO, budget: Budget) -> BinaryIO:
    return cast("BinaryIO", _Charged(stream, budget))


class _Rejoined:
    """A stream with what was read of it put back."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._stream.read(size)

    def close(self) -> None:
        """Do nothing: the stream is closed by the code that opened it."""


def _read_head(stream: BinaryIO) -> bytes:
    head = _read_up_to(stream, FIRST_BYTES)
    # A disc image begins with zeros, nearly always: all others are told already.
    return head if head.strip(b"\0") else head + _read_up_to(stream, HEAD_BYTES - len(head))


def _read_up_to(stream: BinaryIO, count: int) -> bytes:
    found = b""
    while len(found) < count and (more := stream.read(count - len(found))):
        found += more
    return found


# -- the kinds --------------------------------------------------------------------------------


def _list_zip(handle: BinaryIO, _: Budget) -> Iterator[Member]:
    archive = zipfile.ZipFile(handle)
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise Unreadable("it has too many entries; unpack it first")
    size = handle.seek(0, io.SEEK_END)
    if not _is_all_named(handle, size, len(entries)) or (archive.start_dir and not entries):
        raise Unreadable("a damaged ZIP: its directory is incomplete; unpack it first")
    if sum(entry.compress_size for entry in entries) > size:
        raise Unreadable("its entries overlap; unpack it first")
    # By place, so that a ZIP in something that is read forwards is read forwards; a DICOMDIR
    # first, so that what it names can be looked for.
    for entry in sorted(entries, key=lambda e: (not _is_directory(e.filename), e.header_offset)):
        # Not `is_dir`, which raises where the name is empty.
        if not entry.filename.endswith("/"):
            problem = _zip_problem(entry)
            opener = None if problem else _zip_opener(archive, entry)
            yield Member(entry.filename or "(no name)", entry.file_size, problem, opener)


def _is_all_named(handle: BinaryIO, size: int, count: int) -> bool:
    """Return whether a ZIP's end says that it has so many entries, which zipfile does not ask."""
    handle.seek(max(0, size - _ZIP_END_BYTES))
    end = _read_up_to(handle, _ZIP_END_BYTES)
    place = end.rfind(b"PK\5\6") + 10
    said = int.from_bytes(end[place : place + 2], "little")
    # All ones point to ZIP64; without that, more entries are counted from zero again.
    return said in (0xFFFF, count & 0xFFFF)


def _is_directory(name: str) -> bool:
    return name.replace("\\", "/").rpartition("/")[2].upper() == "DICOMDIR"


def _zip_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: archive.open(entry)  # type: ignore[return-value]


def _zip_problem(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 1:
        return "encrypted inside its ZIP; unpack it with its password first"
    if entry.compress_type == _DEFLATE64:
        return "compressed with Deflate64, as Windows does above 2 GB; unpack it with 7-Zip first"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile expands the others without a bound on what comes out.
        return "compressed by a method that is not supported; unpack it first"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link inside a ZIP"
    return ""


def _list_tar(handle: BinaryIO, _: Budget) -> Iterator[Member]:
    with tarfile.open(fileobj=_bare(handle), mode="r:") as archive:
        for entry in archive:
            if entry.isdir():
                continue
            if not entry.isreg():
                yield Member(entry.name, 0, "a link or device inside a tar")
                continue
            yield Member(entry.name, entry.size, "", _tar_opener(archive, entry))
        _check_tar_end(handle, archive.offset)


def _check_tar_end(handle: BinaryIO, offset: int) -> None:
    """Check that a tar really ends after its last file: tarfile treats damage as the end.

    The end is at least one block of zeros, with nothing else after it (POSIX.1-2017, pax).
    """
    handle.seek(offset)
    piece = _read_up_to(handle, tarfile.BLOCKSIZE)
    is_end = len(piece) == tarfile.BLOCKSIZE
    while piece and is_end:
        is_end = not piece.strip(b"\0")
        piece = handle.read(PIECE_BYTES)
    if not is_end:
        raise Unreadable("damaged or truncated; entries before the damage are imported")


def _tar_opener(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], BinaryIO]:
    return lambda: archive.extractfile(entry)  # type: ignore[return-value]


def _list_gzip(handle: BinaryIO, budget: Budget) -> Iterator[Member]:
    stream = _charged(_expanded(handle), budget)
    is_tar = kind_of(_read_head(stream)) is Kind.TAR
    stream.seek(0)
    if is_tar:
        # To its end, where its checksum stands, which is of all of it.
        yield from _list_tar(stream, budget)
    else:
        yield Member("", 0, "", lambda: _expanded(handle))


def _expanded(handle: BinaryIO) -> BinaryIO:
    handle.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=handle))


class _Image(pycdlib.PyCdlib):
    """A disc image whose files are as long as it says.

    Of one that is cut off, pycdlib would cut the files too, as if they were whole.
    """

    def _get_iso_size(self) -> int:
        return 2**40


def _list_iso(handle: BinaryIO, _: Budget) -> Iterator[Member]:
    image = _Image()
    image.open_fp(_bare(handle))
    # The names that the later editions have are the readable ones.
    facade: Any = image.get_iso9660_facade()
    if image.has_udf():
        facade = image.get_udf_facade()
    elif image.has_joliet():
        facade = image.get_joliet_facade()
    elif image.has_rock_ridge():
        facade = image.get_rock_ridge_facade()
    for folder, _, files in facade.walk("/"):
        for file in sorted(files, key=lambda name: (not _is_directory(_plain(name)), name)):
            path = f"{folder.rstrip('/')}/{file}"
            record = facade.get_record(path)
            if not record.is_file():
                yield Member(_plain(path), 0, "a link inside a disc image")
                continue
            yield Member(_plain(path), record.get_data_length(), "", _iso_opener(facade, path))


def _plain(path: str) -> str:
    """Return a path without its leading slash and the version that ISO 9660 has behind names."""
    return path.lstrip("/").partition(";")[0].rstrip(".")


def _iso_opener(facade: Any, path: str) -> Callable[[], BinaryIO]:
    # It is to be entered before it can be read; leaving it does nothing else than closing it.
    return lambda: io.BufferedReader(facade.open_file_from_iso(path).__enter__())


_LISTERS: dict[Kind, Callable[[BinaryIO, Budget], Iterator[Member]]] = {
    Kind.ZIP: _list_zip,
    Kind.TAR: _list_tar,
    Kind.GZIP: _list_gzip,
    Kind.ISO: _list_iso,
}
