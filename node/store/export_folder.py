"""A folder that fills out of sight: nothing has its name before everything is complete.

A watched folder must never see half a study: files are written below a hidden folder in the
target, and moved to their names, series by series, when all of them are complete. Whatever ends
it, it leaves nothing, but for a kill: that leaves the hidden folder, which the next export names.

What lies there is patients' images in the clear: the folder is this user's alone, on a path that
no other user can change (`node.safe_paths`), and all work goes through its descriptor.
"""

import os
import re
import shutil
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from node import safe_paths
from node.errors import Conflict, StoreError

_PARTIAL = ".emix-partial"
_OUR_NAME = re.compile(r"SE\d{6}/(IM|OV)\d{6}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class ExportFolder:
    """Use it in a `with` block, or `open` and `discard` it; unpublished, nothing is left.

    Blocking: call it on worker threads.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._is_made = False
        self._is_open = False
        self._fd = self._partial_fd = -1
        self._closing = ExitStack()
        self._begun: set[str] = set()
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
            raise self._failed(exc) from exc

    def _open(self) -> None:
        opened = safe_paths.folder(self._directory, make=True, is_ours=True)
        self._fd, real = self._closing.enter_context(opened)
        self.partial = real / _PARTIAL
        found = set(safe_paths.names(self._fd))
        if _PARTIAL in found:
            raise Conflict(
                f"an export into {self._directory} runs, or was killed: then remove"
                f" {self.partial} first"
            )
        if found:
            raise Conflict(f"{self._directory} is not empty; export into a new folder")
        os.mkdir(_PARTIAL, 0o700, dir_fd=self._fd)
        self._is_open = True
        self._partial_fd = os.open(_PARTIAL, _FOLDER, dir_fd=self._fd)
        self._closing.callback(os.close, self._partial_fd)

    def hold_room(self, total_bytes: int, files: int) -> None:
        """Hold that there is room for what is to be written, with a reserve left.

        Raises:
            StoreFull: there is not; nothing was written.
        """
        safe_paths.hold_room(self._fd, total_bytes, files, self._directory)

    def discard(self) -> None:
        """Remove what was not published."""
        with self._closing:
            if not self._is_open:
                return
            self._is_open = False
            with suppress(FileNotFoundError):
                shutil.rmtree(_PARTIAL, ignore_errors=True, dir_fd=self._fd)
            if self._is_made and not safe_paths.names(self._fd):
                with suppress(OSError):
                    self.partial.parent.rmdir()

    def write(self, name: str, offset: int, piece: bytes) -> None:
        """Write a piece of a file; several threads may, each its own.

        Raises:
            StoreError: it cannot be written, or has a name that none of ours has.
        """
        if not _OUR_NAME.fullmatch(name):
            raise StoreError("a file of another name than an export has")
        try:
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

    def _file(self, name: str) -> int:
        """Open a file of ours; the first time, nothing may be there."""
        with self._lock:
            if name in self._begun:
                return os.open(name, _FILE, dir_fd=self._partial_fd)
            with suppress(FileExistsError):
                os.mkdir(name.partition("/")[0], 0o700, dir_fd=self._partial_fd)
            fd = os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._partial_fd)
            self._begun.add(name)
            return fd

    def publish(self) -> None:
        """Have everything appear under its name."""
        try:
            for name in sorted(safe_paths.names(self._partial_fd)):
                os.rename(name, name, src_dir_fd=self._partial_fd, dst_dir_fd=self._fd)
            os.rmdir(_PARTIAL, dir_fd=self._fd)
            self._is_open = False
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: OSError) -> StoreError:
        reason = os.strerror(exc.errno or 0)
        return StoreError(
            f"{self._directory} cannot be made or written ({reason}); nothing was left there"
        )
