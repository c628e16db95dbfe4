"""What people hand us: files, folders, ZIPs, CDs. Finds the files and reads them safely.

A DICOMDIR is only a hint, and one that is often wrong, so we look at the files themselves. No
name from outside becomes a path: ZIP members are read, never extracted, and links and
special files are not opened. Whoever owns a folder may exchange what is in it while we read: so
everything below it is opened component by component from its descriptor, and no link is followed.
"""

import errno
import os
import stat
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from node.errors import DicomError

MAX_ZIP_DIRECTORY_BYTES = 16 * 2**20
MAX_ZIP_ENTRIES = 100_000  # *measured*: 50 MB of memory
MAX_ZIP_RATIO = 200
MAX_DEPTH = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ZIP_FREE_BYTES = 64 * 2**20  # what a ZIP may expand to, however small it is
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)


class Unreadable(DicomError):
    """One file that cannot be looked at; the message says why, for the import's list."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One file to look at.

    Attributes:
        label: How the person who imports would call it.
        place: The file, or the ZIP that it is in.
        member: What that ZIP's directory says of it; None for a plain file.
        size_bytes: As the folder or the ZIP says.
        problem: Why it cannot be looked at; empty when it can.
    """

    label: str
    place: "Place"
    member: zipfile.ZipInfo | None
    size_bytes: int
    problem: str = ""

    def open(self) -> BinaryIO:
        """Open it for reading.

        Raises:
            Unreadable: it is gone, a link, or not a plain file.
        """
        if self.problem:
            raise Unreadable(self.problem)
        handle = self.place.open()
        if self.member is None:
            return handle
        try:
            return _open_member(handle, self.member)
        except BaseException:
            handle.close()
            raise


class Folder:
    """The folder that was named, held open as long as a file in it may still be read."""

    def __init__(self, path: Path, *, is_last_followed: bool = True) -> None:
        """Open it; its last component may be a link only where that is allowed."""
        flags = _FOLDER if is_last_followed else _FOLDER | os.O_NOFOLLOW
        self.path = path
        self._fd = os.open(path, flags)
        weakref.finalize(self, os.close, self._fd)

    def open(self, parts: Sequence[str], flags: int) -> int:
        """Open what lies below, by the names on the way; no link is followed."""
        fd, is_above = self._fd, True
        try:
            for name in parts[:-1]:
                step = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                if not is_above:
                    os.close(fd)
                fd, is_above = step, False
            return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        finally:
            if not is_above:
                os.close(fd)

    def entries(self, parts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the names of folders and of other things in it, or in one below, sorted."""
        fd = self.open((*parts, "."), os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as found:
                kinds = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        finally:
            os.close(fd)
        kinds.sort()
        return [name for name, is_dir in kinds if is_dir], [n for n, is_dir in kinds if not is_dir]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file lies: below a folder."""

    folder: Folder | None
    parts: tuple[str, ...] = ()

    def open(self) -> BinaryIO:
        """Open a regular file and nothing else; a FIFO does not block, a link is not followed."""
        if self.folder is None:
            raise Unreadable("it is not there")
        try:
            fd = self.folder.open(self.parts, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError as exc:
            raise Unreadable("it is not there") from exc
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise Unreadable("a symbolic link") from exc
            raise Unreadable(f"it cannot be opened ({os.strerror(exc.errno or 0)})") from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Unreadable("not a regular file")
        return os.fdopen(fd, "rb")


_NOWHERE = Place(None)


def find_files(path: Path) -> Iterator[MediaFile]:
    """Yield every file below `path`, or in it if it is a ZIP, in a stable order.

    A DICOMDIR stands for the medium that it lies on.
    """
    if path.name.upper() == "DICOMDIR" and path.is_file():
        path = path.parent
    try:
        if path.is_dir() and not path.is_symlink():
            yield from _find_in_folder(Folder(path, is_last_followed=False))
        else:
            yield from _find_in_file(Place(Folder(path.parent), (path.name,)), str(path))
    except OSError as exc:
        yield _unreadable(path, exc)


def _find_in_folder(root: Folder) -> Iterator[MediaFile]:
    left: list[tuple[str, ...]] = [()]
    while left:
        parts = left.pop()
        if len(parts) > MAX_DEPTH:
            label = str(root.path.joinpath(*parts))
            yield MediaFile(label, _NOWHERE, None, 0, "folders are nested too deep")
            continue
        try:
            folders, files = root.entries(parts)
        except OSError as exc:
            yield _unreadable(root.path.joinpath(*parts), exc)
            continue
        for name in files:
            label = str(root.path.joinpath(*parts, name))
            yield from _find_in_file(Place(root, (*parts, name)), label)
        left += [(*parts, name) for name in reversed(folders)]


def _unreadable(path: Path, error: OSError) -> MediaFile:
    return MediaFile(str(path), _NOWHERE, None, 0, f"the folder cannot be read ({error.strerror})")


def _find_in_file(place: Place, label: str) -> Iterator[MediaFile]:
    try:
        with place.open() as handle:
            size = os.fstat(handle.fileno()).st_size
            # A DICOM file may begin like a ZIP; then it is for a person to decide about.
            start = handle.read(132)
            is_zip = start[:4] == _ZIP_MAGIC and start[128:] != b"DICM"
    except Unreadable as exc:
        yield MediaFile(label, place, None, 0, str(exc))
        return
    if not is_zip:
        yield MediaFile(label, place, None, size)
        return
    try:
        yield from _find_in_zip(place, label)
    except _ZIP_ERRORS:
        yield MediaFile(label, place, None, 0, "a damaged ZIP")


def _find_in_zip(place: Place, label: str) -> Iterator[MediaFile]:
    try:
        with place.open() as handle:
            entries = _read_directory(handle)
    except Unreadable as exc:
        yield MediaFile(label, place, None, 0, str(exc))
        return
    for entry in entries:
        # Not `is_dir`, which raises where the name is empty.
        if not entry.filename.endswith("/"):
            name = f"{label}!{entry.filename or '(no name)'}"
            yield MediaFile(name, place, entry, entry.file_size, _entry_problem(entry))


def _read_directory(handle: BinaryIO) -> list[zipfile.ZipInfo]:
    """Return the entries of a ZIP, their number and what they expand to bounded.

    Raises:
        Unreadable: they are beyond that.
    """
    # zipfile's own reading of the end record, ZIP64 included: another could be told apart.
    end = zipfile._EndRecData(handle)  # type: ignore[attr-defined]
    handle.seek(0)
    if not end:
        raise zipfile.BadZipFile("no end record")
    count = int(end[zipfile._ECD_ENTRIES_TOTAL])  # type: ignore[attr-defined]
    size = int(end[zipfile._ECD_SIZE])  # type: ignore[attr-defined]
    if count > MAX_ZIP_ENTRIES or size > MAX_ZIP_DIRECTORY_BYTES:
        raise Unreadable(_TOO_MANY)
    with _BoundedDirectory(handle) as archive:
        entries = archive.infolist()
    archive_bytes = os.fstat(handle.fileno()).st_size
    if sum(entry.compress_size for entry in entries) > archive_bytes:
        raise Unreadable("a ZIP whose entries share their bytes; unpack it first")
    most = max(_ZIP_FREE_BYTES, MAX_ZIP_RATIO * archive_bytes)
    if sum(entry.file_size for entry in entries) > most:
        raise Unreadable("a ZIP that expands beyond all measure; unpack it first")
    return entries


_TOO_MANY = "a ZIP of too many entries; unpack it first"


class _BoundedEntries(list[zipfile.ZipInfo]):
    """The entries of a directory as it is read: what its end record says can be a lie."""

    def append(self, entry: zipfile.ZipInfo) -> None:
        if len(self) >= MAX_ZIP_ENTRIES:
            raise Unreadable(_TOO_MANY)
        super().append(entry)


class _BoundedDirectory(zipfile.ZipFile):
    def _RealGetContents(self) -> None:  # noqa: N802  # zipfile's name
        self.filelist = _BoundedEntries()
        super()._RealGetContents()  # type: ignore[misc]


def _entry_problem(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 1:
        return "encrypted inside its ZIP; unpack it first"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile expands the others without a bound on what comes out.
        return "compressed in a way that cannot be bounded; unpack it first"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link inside a ZIP"
    if entry.file_size > MAX_ZIP_RATIO * max(entry.compress_size, 4096):
        return "expands beyond all measure; unpack it first"
    return ""


class _Member:
    """A ZIP member as a plain reader that counts what really comes out."""

    def __init__(self, handle: BinaryIO, entry: zipfile.ZipInfo) -> None:
        self._handle = handle
        self._archive = _KnownDirectory(handle)
        self._left = MAX_ZIP_RATIO * max(entry.compress_size, 4096)
        self._stream = self._archive.open(entry)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        try:
            data = self._stream.read(size)
        except _ZIP_ERRORS as exc:
            raise Unreadable("damaged inside its ZIP") from exc
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable("expands beyond all measure; unpack it first")
        return data

    def close(self) -> None:
        """Close the member and its archive."""
        self._stream.close()
        self._archive.close()
        self._handle.close()

    def __enter__(self) -> "_Member":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _KnownDirectory(zipfile.ZipFile):
    """An archive whose directory was read before: reading it for every member is quadratic."""

    def _RealGetContents(self) -> None:  # noqa: N802  # zipfile's name
        pass


def _open_member(handle: BinaryIO, entry: zipfile.ZipInfo) -> BinaryIO:
    try:
        return _Member(handle, entry)  # type: ignore[return-value]
    except _ZIP_ERRORS as exc:
        raise Unreadable("damaged inside its ZIP") from exc
