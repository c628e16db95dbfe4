"""Compares the files that DICOMDIRs name with the files that were imported. No I/O.

A copied disc may have other file names than its DICOMDIR: see `node.domain.media_names`.

One megabyte of an archive can have a hundred thousand names of thousands of characters. So a hash
is kept of each file that is seen, and the name of each file that a DICOMDIR names, all within
bounds. Beyond the bounds the comparison is incomplete, and the import reports that.
"""

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from node.domain.media_names import SUFFIXES, is_directory_name, plain_file, plain_folder

_ARCHIVE = "!"
_SEPARATORS = "/\\!"
_SEPARATOR = re.compile(r"[/\\!]")
_MOST_NESTED = 200  # folders and archives, to the DICOMDIR
MOST_KEPT = 200_000
"""Files of each sort that are kept beside DICOMDIRs; discs have far fewer."""
ROOM_BYTES = 64 * 2**20
"""The memory for names, as Python measures it."""
_OVERHEAD = 200  # of an entry, beside its text


def is_called_dicom(label: str) -> bool:
    """Return whether a file's name says that it is DICOM, or a DICOMDIR."""
    return label.upper().endswith(SUFFIXES) or is_directory_name(_split(label)[1])


class MediaDirectories:
    """Compares what DICOMDIRs name with the files that are seen.

    Attributes:
        first: The label of a DICOMDIR; empty if none was seen.
        is_whole: Whether everything was within bounds; if not, missing files cannot be determined.
    """

    def __init__(self) -> None:
        self.first = ""
        self.is_whole = True
        self._room = ROOM_BYTES
        self._folders: dict[str, None] = {}  # that have a DICOMDIR, with what separates at the end
        self._paths: dict[str, int] = {}  # of what is named, with their numbers
        self._seen: set[bytes] = set()  # hashes of places
        self._named: dict[bytes, tuple[int, str]] = {}  # by that of its place: a path, and a name
        self._others: list[str] = []  # labels of files that are no DICOM
        self._are_all_seen = True

    def see(self, label: str) -> None:
        """Note that a file exists; a DICOMDIR should be noted before the files beside it."""
        folder, name = _split(label)
        if is_directory_name(name):
            self.first = self.first or label
            is_too_deep = sum(map(folder.count, _SEPARATORS)) > _MOST_NESTED
            if folder not in self._folders and not is_too_deep and self._has_room(folder):
                self._folders[folder] = None
            self.is_whole = self.is_whole and folder in self._folders
        elif _ARCHIVE in label or self._is_covered(label):
            if len(self._seen) >= MOST_KEPT:
                self.is_whole = self._are_all_seen = False  # then nothing is said to be missing
            else:
                self._seen.add(_place(label))

    def put_off(self, label: str) -> bool:
        """Keep a file that is not DICOM for `others`, if a DICOMDIR may name it.

        Returns whether it was kept. If not, `is_named` answers from the DICOMDIRs read so far.
        """
        if not self._is_covered(label):
            return False
        if len(self._others) >= MOST_KEPT or not self._has_room(label):
            self.is_whole = False
            return False
        self._others.append(label)
        return True

    def name(self, label: str, references: Iterable[str]) -> None:
        """Add names from the DICOMDIR with that label; a thousand take milliseconds."""
        self.first = self.first or label
        folder, _ = _split(label)
        if folder not in self._paths and not self._has_room(folder):
            self.is_whole = False
            return
        path = self._paths.setdefault(folder, len(self._paths))
        begun = _hashed(plain_folder(folder))
        for reference in references:
            place = _place(reference, begun)
            if place in self._named:
                continue
            if len(self._named) >= MOST_KEPT or not self._has_room(reference):
                self.is_whole = False
                return
            self._named[place] = (path, reference)

    def missing(self) -> Iterator[str]:
        """Yield what is named and was not seen, in the order of the DICOMDIRs."""
        paths = list(self._paths)
        if self._are_all_seen:
            for place, (path, reference) in self._named.items():
                if place not in self._seen:
                    yield paths[path] + reference

    def others(self) -> Iterator[tuple[str, bool]]:
        """Yield the labels that were put off, each with whether a DICOMDIR names it."""
        for label in self._others:
            yield label, self.is_named(label)

    def is_named(self, label: str) -> bool:
        """Return whether a DICOMDIR names a file, as far as they are known."""
        return _place(label) in self._named

    def _is_covered(self, label: str) -> bool:
        """Whether a DICOMDIR lies beside a file, or above it."""
        if not self._folders:
            return False
        ends = (found.end() for found in islice(_SEPARATOR.finditer(label), _MOST_NESTED))
        return "" in self._folders or any(label[:end] in self._folders for end in ends)

    def _has_room(self, text: str) -> bool:
        """Take room for a text; return whether there is some."""
        size = sys.getsizeof(text) + _OVERHEAD
        if size > self._room:
            return False
        self._room -= size
        return True


def _split(label: str) -> tuple[str, str]:
    at = max(label.rfind(separator) for separator in _SEPARATORS) + 1
    return label[:at], label[at:]


def _hashed(path: str) -> "hashlib.blake2b":
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16)


def _place(path: str, begun: "hashlib.blake2b | None" = None) -> bytes:
    """Return a hash that is the same for every spelling of a path.

    Args:
        path: The path.
        begun: The hash of its folder, if `path` is relative to that.
    """
    found = _hashed("") if begun is None else begun.copy()
    found.update(plain_file(path).encode("utf-8", "surrogatepass"))
    return found.digest()
