"""What people hand us: files, folders, ZIPs, CDs. Finds the files and reads them safely.

A DICOMDIR is only a hint, and one that is often wrong, so we look at the files themselves. No
name from outside becomes a path: ZIP members are read, never extracted, and links and
special files are not opened.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from node.errors import DicomError

MAX_ZIP_DIRECTORY_BYTES = 16 * 2**20
MAX_ZIP_RATIO = 200
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
        path: The file, or the ZIP that it is in.
        member: What that ZIP's directory says of it; None for a plain file.
        size_bytes: As the folder or the ZIP says.
        problem: Why it cannot be looked at; empty when it can.
    """

    label: str
    path: Path
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
        handle = _open_plain(self.path)
        if self.member is None:
            return handle
        try:
            return _open_member(handle, self.member)
        except BaseException:
            handle.close()
            raise


def find_files(path: Path) -> Iterator[MediaFile]:
    """Yield every file below `path`, or in it if it is a ZIP, in a stable order.

    A DICOMDIR stands for the medium that it lies on.
    """
    if path.name.upper() == "DICOMDIR" and path.is_file():
        path = path.parent
    if path.is_dir() and not path.is_symlink():
        yield from _find_in_folder(path)
    else:
        yield from _find_in_file(path, str(path))


def _find_in_folder(root: Path) -> Iterator[MediaFile]:
    unreadable: list[OSError] = []
    for directory, names, file_names in os.walk(root, onerror=unreadable.append):
        names.sort()
        for name in sorted(file_names):
            path = Path(directory) / name
            yield from _find_in_file(path, str(path))
        while unreadable:
            error = unreadable.pop()
            problem = f"the folder cannot be read ({error.strerror})"
            yield MediaFile(str(error.filename), root, None, 0, problem)
    for error in unreadable:
        problem = f"the folder cannot be read ({error.strerror})"
        yield MediaFile(str(error.filename), root, None, 0, problem)


def _find_in_file(path: Path, label: str) -> Iterator[MediaFile]:
    try:
        with _open_plain(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            # A DICOM file may begin like a ZIP; then it is for a person to decide about.
            start = handle.read(132)
            is_zip = start[:4] == _ZIP_MAGIC and start[128:] != b"DICM"
    except Unreadable as exc:
        yield MediaFile(label, path, None, 0, str(exc))
        return
    if not is_zip:
        yield MediaFile(label, path, None, size)
        return
    try:
        yield from _find_in_zip(path, label)
    except _ZIP_ERRORS:
        yield MediaFile(label, path, None, 0, "a damaged ZIP")


def _find_in_zip(path: Path, label: str) -> Iterator[MediaFile]:
    with _open_plain(path) as handle:
        if _directory_bytes(handle) > MAX_ZIP_DIRECTORY_BYTES:
            yield MediaFile(label, path, None, 0, "a ZIP of too many entries; unpack it first")
            return
        with zipfile.ZipFile(handle) as archive:
            entries = archive.infolist()
        for entry in entries:
            if not entry.is_dir():
                name = f"{label}!{entry.filename}"
                yield MediaFile(name, path, entry, entry.file_size, _entry_problem(entry))


def _directory_bytes(handle: BinaryIO) -> int:
    """Return how many bytes of a ZIP zipfile will take for its directory."""
    # Its own reading of the end record, ZIP64 included: another reading could be told apart.
    end = zipfile._EndRecData(handle)  # type: ignore[attr-defined]
    handle.seek(0)
    if not end:
        raise zipfile.BadZipFile("no end record")
    return int(end[zipfile._ECD_SIZE])  # type: ignore[attr-defined]


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


def _open_plain(path: Path) -> BinaryIO:
    """Open a regular file and nothing else; a FIFO does not block, a link is not followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise Unreadable("it is not there") from exc
    except OSError as exc:
        if path.is_symlink():
            raise Unreadable("a symbolic link") from exc
        raise Unreadable(f"it cannot be opened ({os.strerror(exc.errno or 0)})") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unreadable("not a regular file")
    return os.fdopen(fd, "rb")
