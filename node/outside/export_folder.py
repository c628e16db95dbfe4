"""Exports into a folder whose files appear only when all of them are complete.

A program that watches the folder must never see half a study. So files are written into a hidden
folder in the target, and renamed, series by series, when all are complete and synced: a reported
export survives pulling the stick. An export that ends early leaves nothing, except after a kill:
the hidden folder then remains, and the next export names it. An error names the files that a
failing disk did not let us remove.

The files are patients' images, unencrypted. So the folder is accessible to this user only, on a
path that no other user can change (`node.system.safe_paths`), and all access uses its descriptor.
"""

import errno
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Self

from node.domain.exports import ATTACHED
from node.errors import Conflict, StoreError
from node.system import safe_paths
from node.system.direct_files import write_direct

_PARTIAL = ".emix-partial"
_OUR_NAME = re.compile(rf"SE\d{{6}}/(IM|OV)\d{{6}}|{ATTACHED}/AT\d{{6}}\.[a-z]{{3,4}}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNCING_THREADS = 8
_MOST_NAMED = 10
_FILE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class ExportFolder:
    """Use it in a `with` block, or `open` and `discard` it; unpublished, nothing is left.

    Blocking: call it on worker threads.
    """

    def __init__(self, directory: Path, sizes: Mapping[str, int] = MappingProxyType({})) -> None:
        """Prepare.

        Args:
            directory: Where the files are to appear.
            sizes: How large they will be, as far as that is known.
        """
        self._sizes = sizes
        self._directory = directory.absolute()
        self._is_made = False
        self._is_open = False
        self._fd = self._partial_fd = -1
        self._closing = ExitStack()
        self._folders: set[str] = set()
        self._begun: set[str] = set()
        self._durable: set[str] = set()
        self._failure = ""
        self._lock = threading.Lock()
        self.partial = self._directory / _PARTIAL
        """Where the files are until they are published; nobody else can change where that is."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def open(self) -> None:
        """Make the folder.

        Raises:
            Conflict: it is there and not empty.
            ConfigError: a folder above it is missing, or another user has power over it, or over
                the way to it.
            StoreError: it cannot be made.
        """
        self._is_made = not os.path.lexists(self._directory)
        try:
            with self._closing:
                self._open()
                self._closing = self._closing.pop_all()
        except OSError as exc:
            if self._is_made:
                with suppress(OSError):
                    self._directory.rmdir()
            raise self._failed(exc) from exc

    def _open(self) -> None:
        opened = safe_paths.folder(self._directory, make=True, is_ours=True)
        self._fd, real = self._closing.enter_context(opened)
        self.partial = real / _PARTIAL
        found = set(safe_paths.names(self._fd))
        if _PARTIAL in found:
            raise Conflict(
                f"an export into {self._directory} is running, or was killed; if it was killed,"
                f" remove {self.partial} first"
            )
        if found:
            raise Conflict(f"{self._directory} is not empty; export into a new folder")
        os.mkdir(_PARTIAL, 0o700, dir_fd=self._fd)
        try:
            self._partial_fd = os.open(_PARTIAL, _FOLDER, dir_fd=self._fd)
        except OSError:
            os.rmdir(_PARTIAL, dir_fd=self._fd)
            raise
        self._closing.callback(os.close, self._partial_fd)
        self._is_open = True

    def check_room(self, total_bytes: int, files: int) -> None:
        """Check that there is room for the files and a reserve.

        Raises:
            StoreFull: there is not enough room; nothing was written.
        """
        safe_paths.check_room(self._fd, total_bytes, files, self._directory)

    def discard(self) -> None:
        """Remove what was not published.

        Raises:
            StoreError: the disk keeps it; the message names it, and why the export failed.
        """
        with self._closing:
            if not self._is_open:
                return
            self._is_open = False
            try:
                with suppress(FileNotFoundError):
                    shutil.rmtree(_PARTIAL, dir_fd=self._fd)
                if self._is_made and not safe_paths.names(self._fd):
                    self.partial.parent.rmdir()
            except OSError as exc:
                why = self._failure or f"{self._directory} was not written"
                raise StoreError(
                    f"{why}. What was written could not be removed ({_reason(exc)}): patients'"
                    f" images may be left in {self.partial}; remove it"
                ) from exc

    def write(self, name: str, offset: int, piece: bytes | memoryview) -> None:
        """Write a piece of a file; several threads may, each its own.

        Raises:
            StoreError: it cannot be written, or has a name that none of ours has.
        """
        if not _OUR_NAME.fullmatch(name):
            raise StoreError("the node sent a file whose name does not belong in an export")
        try:
            if offset == 0 and self._sizes.get(name) == len(piece) and self._whole(name, piece):
                return
            fd = self._file(name)
            try:
                view = memoryview(piece)
                while view:
                    # A nearly full disk takes a part and says nothing.
                    written = os.pwrite(fd, view, offset)
                    view, offset = view[written:], offset + written
            finally:
                os.close(fd)
        except OSError as exc:
            raise self._failed(exc) from exc

    def _whole(self, name: str, content: bytes | memoryview) -> bool:
        """Write a whole file past the page cache, durably; False where that cannot be done."""
        with self._lock:
            self._make_folder_of(name)
        # Threads that make files in one folder at once wait for each other in the kernel, at work.
        creating = self._lock
        if not write_direct(name, content, _sync, dir_fd=self._partial_fd, creating=creating):
            return False
        with self._lock:
            self._begun.add(name)
            self._durable.add(name)
        return True

    def _make_folder_of(self, name: str) -> None:
        folder = name.partition("/")[0]
        if folder in self._folders:
            return
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700, dir_fd=self._partial_fd)
        self._folders.add(folder)

    def _file(self, name: str) -> int:
        """Open a file of ours; the first time, nothing may be there."""
        with self._lock:
            if name in self._begun:
                return os.open(name, _FILE, dir_fd=self._partial_fd)
            self._make_folder_of(name)
            fd = os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._partial_fd)
            self._begun.add(name)
            return fd

    def publish(self) -> None:
        """Have everything appear under its name; durable once this returns.

        Raises:
            StoreError: it cannot. What had its name already is taken back, or named.
        """
        published: list[str] = []
        try:
            self._sync_all()
            for name in sorted(safe_paths.names(self._partial_fd)):
                os.rename(name, name, src_dir_fd=self._partial_fd, dst_dir_fd=self._fd)
                published.append(name)
            _sync(self._fd)  # its own name was synced when it was made
            os.rmdir(_PARTIAL, dir_fd=self._fd)
            self._is_open = False
        except OSError as exc:
            raise self._failed(exc, self._take_back(published)) from exc

    def _sync_all(self) -> None:
        """Make what was written durable: several files at once, and then the folders."""
        folders, files = [], []
        for folder, _, names, _ in os.fwalk(".", dir_fd=self._partial_fd):
            folders.append(folder)
            found = (f"{folder}/{name}" for name in names)
            files += [path for path in found if path.removeprefix("./") not in self._durable]
        with ThreadPoolExecutor(_SYNCING_THREADS) as threads:
            for paths in (files, folders):
                # All of them are waited for, and the first error is raised.
                list(threads.map(_sync_one, paths, repeat(self._partial_fd)))

    def _take_back(self, published: list[str]) -> list[str]:
        """Undo the renaming; return the names with which that fails."""
        left = []
        for name in published:
            try:
                os.rename(name, name, src_dir_fd=self._fd, dst_dir_fd=self._partial_fd)
            except OSError:
                left.append(name)
        return left

    def _failed(self, exc: OSError, left: Sequence[str] = ()) -> StoreError:
        what = f"{self._directory} cannot be made or written ({_reason(exc)})"
        if left:
            names = ", ".join(left[:_MOST_NAMED])
            names += f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
            what += f"; left there, from an incomplete export: {names}. Remove them"
        else:
            what += "; no file of this export has its name there"
        self._failure = what
        return StoreError(what)


def _sync_one(path: str, folder: int) -> None:
    fd = os.open(path, _READING, dir_fd=folder)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def _sync(fd: int) -> None:
    """Make a file or folder durable, where its file system can do that."""
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise


def _reason(exc: OSError) -> str:
    return os.strerror(exc.errno or 0)
