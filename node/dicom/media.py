"""Media to import: files, folders, archives, CDs. Finds the files and reads them safely.

A DICOMDIR is often wrong, so in a folder the files themselves are examined. If a DICOMDIR itself is
named for import, it stands for the files that it names. No foreign name becomes a path: names in a
DICOMDIR are looked up among the folder's entries, archives are read, never extracted
(`node.dicom.archive_reader`), and special files are not opened. A link that the operator names is
followed. The owner of a folder may change its content while it is read, so everything below is
opened component by component from its descriptor, and no link is followed.
"""

import errno
import os
import stat
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from node.dicom.archive_kinds import FIRST_BYTES, HEAD_BYTES, Kind, kind_of
from node.dicom.archive_reader import ArchivedFile, Unreadable, open_archive
from node.dicom.directory_reader import names_in
from node.domain.media_names import is_directory_name, plain_file, plain_folder

MAX_DEPTH = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One file to examine.

    Attributes:
        label: Its name for the person who imports.
        place: The file.
        size_bytes: Its size in the folder.
        kind: The kind of archive; None for any other file.
        problem: Why it cannot be read; empty if it can.
    """

    label: str
    place: "Place"
    size_bytes: int
    kind: Kind | None = None
    problem: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it is to be read by `members`."""
        return self.kind is not None and not self.problem

    def open(self) -> BinaryIO:
        """Open it for reading.

        Raises:
            Unreadable: it is gone, a link, or not a plain file.
        """
        if self.problem:
            raise Unreadable(self.problem)
        return self.place.open()

    def members(self) -> AbstractContextManager[Iterator[ArchivedFile]]:
        """Read the files in this archive; see `open_archive`.

        Raises:
            Unreadable: it is gone, or no archive.
        """
        if self.kind is None:
            raise Unreadable("not an archive")
        return open_archive(self.open(), self.kind, self.size_bytes, self.label)


class Folder:
    """The named folder, kept open as long as a file in it may still be read."""

    def __init__(self, path: Path) -> None:
        """Open it, to be searched at least; its last component may not be a link."""
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
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

    def entries(self, parts: Sequence[str]) -> "_Entries":
        """Return what is in it, or in a folder below."""
        found = _Entries([], [])
        try:
            fd = self.open((*parts, "."), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            return _Entries([], [], exc)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    is_dir = entry.is_dir(follow_symlinks=False)
                    (found.folders if is_dir else found.files).append(entry.name)
        except OSError as exc:
            found.error = exc
        finally:
            os.close(fd)
        found.folders.sort()
        # A DICOMDIR first: what it names is looked for among the files that follow.
        found.files.sort(key=lambda name: (name.upper() != "DICOMDIR", name))
        return found


@dataclass
class _Entries:
    """What is in a folder: names, sorted; and why there may be more than could be read."""

    folders: list[str]
    files: list[str]
    error: OSError | None = None


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
                raise Unreadable("a symbolic link; import its target") from exc
            raise Unreadable(f"it cannot be opened ({os.strerror(exc.errno or 0)})") from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Unreadable("not a regular file")
        return os.fdopen(fd, "rb")


_NOWHERE = Place(None)


def find_files(path: Path) -> Iterator[MediaFile]:
    """Yield every file below `path`, or `path` itself, in a stable order.

    A link that is named is followed. A DICOMDIR stands for itself and the files that it names; what
    else lies beside it is not looked at.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        if real.is_dir():
            yield from _find_in_folder(Folder(real), path)
        elif is_directory_name(real.name):
            beside = real.parent if path.is_symlink() else path.parent
            yield from _find_named(Folder(real.parent), real.name, beside)
        else:
            yield _look_at(Place(Folder(real.parent), (real.name,)), str(path))
    except OSError as exc:
        yield _unreadable(path, exc)


def _find_in_folder(root: Folder, named: Path) -> Iterator[MediaFile]:
    left: list[tuple[str, ...]] = [()]
    while left:
        parts = left.pop()
        if len(parts) > MAX_DEPTH:
            label = str(named.joinpath(*parts))
            yield MediaFile(label, _NOWHERE, 0, problem="folders are nested too deep")
            continue
        entries = root.entries(parts)
        for name in entries.files:
            yield _look_at(Place(root, (*parts, name)), str(named.joinpath(*parts, name)))
        if entries.error is not None:
            yield _unreadable(named.joinpath(*parts), entries.error)
        left += [(*parts, name) for name in reversed(entries.folders)]


@dataclass(slots=True)
class _Named:
    """The files that a DICOMDIR names in one folder: the folder as it is written, names by form."""

    folder: str
    files: dict[str, str] = field(default_factory=dict)


class _Listing:
    """What a folder has, by the plain forms of the names."""

    def __init__(self, root: Folder, parts: tuple[str, ...]) -> None:
        self.parts = parts
        found = root.entries(parts)
        self.error = found.error
        self._files = _by_form(found.files, plain_file)
        self._folders = _by_form(found.folders, plain_folder)

    def file(self, form: str, written: str) -> str | None:
        """Return which file is meant: of several the one that is written alike."""
        return _nearest(self._files.get(form, ()), written)

    def folder(self, form: str, written: str) -> str | None:
        """Return which folder is meant, likewise."""
        return _nearest(self._folders.get(form, ()), written)


def _by_form(names: Sequence[str], plain: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain(name), []).append(name)
    return found


def _nearest(names: Sequence[str], written: str) -> str | None:
    def likeness(name: str) -> tuple[bool, bool]:
        return name == written, name.upper() == written.upper()

    return max(names, key=likeness, default=None)


def _find_named(root: Folder, name: str, beside: Path) -> Iterator[MediaFile]:
    """Yield a DICOMDIR, and then those files that it names and that are there."""
    file = _look_at(Place(root, (name,)), str(beside / name))
    references: list[str] | None = None
    if not file.problem and file.kind is None:
        try:
            with file.open() as handle:
                references = names_in(handle, file.size_bytes)
        except Unreadable as exc:
            file = replace(file, problem=f"{exc}; name the folder instead")
    yield file
    if references:
        yield from _find_references(root, beside, references)


def _find_references(root: Folder, beside: Path, references: Sequence[str]) -> Iterator[MediaFile]:
    """Yield what is there of some files, folder by folder; each is listed once, or a few times."""
    wanted: dict[str, _Named] = {}
    for reference in references:
        above, _, name = reference.replace("\\", "/").rpartition("/")
        named = wanted.setdefault(plain_folder(above), _Named(above))
        named.files.setdefault(plain_file(name), name)
    way: list[_Listing] = []  # from the root to the folder where we are, by these forms:
    forms: list[str] = []
    for form in sorted(wanted, key=lambda form: form.split("/")):
        named = wanted[form]
        # The root is no component of any: it stands before the first.
        steps = ["", *form.split("/")] if form else [""]
        written = ["", *named.folder.split("/")]
        pairs = zip(steps, forms, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        del way[shared:], forms[shared:]
        for step, name in zip(steps[shared:], written[shared:], strict=False):
            parts: tuple[str, ...] = ()
            if way:
                found = way[-1].folder(step, name)
                if found is None:
                    break
                parts = (*way[-1].parts, found)
            way.append(_Listing(root, parts))
            forms.append(step)
            if (error := way[-1].error) is not None:
                yield _unreadable(beside.joinpath(*parts), error)
        if len(forms) == len(steps):
            here = way[-1]
            for plain, name in named.files.items():
                if (found := here.file(plain, name)) is not None:
                    parts = (*here.parts, found)
                    yield _look_at(Place(root, parts), str(beside.joinpath(*parts)))


def _unreadable(path: Path, error: OSError) -> MediaFile:
    what = "the folder cannot be read" if error.errno != errno.ENOENT else "it is not there"
    return MediaFile(str(path), _NOWHERE, 0, problem=f"{what} ({error.strerror})")


def _look_at(place: Place, label: str) -> MediaFile:
    """Return a file with its kind from its first bytes; a read error concerns only this file."""
    try:
        with place.open() as handle:
            size = os.fstat(handle.fileno()).st_size
            head = handle.read(FIRST_BYTES)
            if len(head) == FIRST_BYTES and not head.strip(b"\0"):
                head += handle.read(HEAD_BYTES - FIRST_BYTES)
    except Unreadable as exc:
        return MediaFile(label, place, 0, problem=str(exc))
    except OSError as exc:
        return MediaFile(label, place, 0, problem=f"it cannot be read ({exc.strerror})")
    kind = kind_of(head)
    problem = kind.problem if kind is not None and not kind.is_read else ""
    return MediaFile(label, place, size, kind, problem)
