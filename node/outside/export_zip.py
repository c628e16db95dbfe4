"""A ZIP file of a study that appears whole or not at all.

It is written under a hidden name in the same folder, on a path that no other user can change, and
renamed when it is complete and synced. An export that ends early leaves nothing, except after a
kill: the hidden file then remains, and the next export names it.
"""

import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Self

from node.errors import Conflict, StoreError
from node.system import safe_paths

_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENDS, _PER_FILE_BYTES = 1024, 256
"""What a ZIP has beside the files: names, sums and places, twice for each."""


class ExportZip:
    """Use it in a `with` block; unpublished, nothing is left. Blocking.

    Files come one after the other, each from its first byte to its last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden = f".{path.name}.emix-partial"
        self._closing = ExitStack()
        self._fd = -1
        self._archive: zipfile.ZipFile
        self._file: IO[bytes] | None = None
        self._name = ""
        self._offset = 0

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            Conflict: something has its name, or the hidden one.
            ConfigError: another user has power over the folder, or the way to it.
            StoreError: it cannot be made.
        """
        try:
            with self._closing:
                folder = safe_paths.folder(self._path.parent)
                self._fd, _ = self._closing.enter_context(folder)
                found = safe_paths.names(self._fd)
                if self._path.name in found:
                    raise Conflict(f"{self._path} exists already; choose another name")
                if self._hidden in found:
                    hidden = self._path.with_name(self._hidden)
                    raise Conflict(
                        f"an export into {self._path} is running, or was killed; if it was killed,"
                        f" remove {hidden} first"
                    )
                fd = os.open(self._hidden, _FILE, 0o600, dir_fd=self._fd)
                self._closing.callback(self._remove)
                self._handle = os.fdopen(fd, "w+b")
                self._closing.callback(self._close)
                self._archive = zipfile.ZipFile(self._handle, "w", zipfile.ZIP_STORED)
                self._closing = self._closing.pop_all()
        except OSError as exc:
            raise self._failed(exc) from exc
        return self

    def __exit__(self, *_: object) -> None:
        with self._closing, suppress(OSError, ValueError, RuntimeError):
            # Or the library would do it some day, and complain.
            self._end_file()
            self._archive.close()

    def _close(self) -> None:
        with suppress(OSError):  # what a full disk does not take; `publish` has flushed before
            self._handle.close()

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._hidden, dir_fd=self._fd)

    def check_room(self, total_bytes: int, files: int) -> None:
        """Check that there is room for what is to be written, with a reserve left.

        Raises:
            StoreFull: there is not; nothing was written.
        """
        needed = total_bytes + _ENDS + files * _PER_FILE_BYTES
        safe_paths.check_room(self._fd, needed, 1, self._path)

    def write(self, name: str, offset: int, piece: bytes, size: int) -> None:
        """Write the next piece.

        Args:
            name: The file's.
            offset: Where in it the piece begins.
            piece: The bytes.
            size: How large the file is.

        Raises:
            StoreError: it cannot be written, or does not follow what came before.
        """
        try:
            if name != self._name:
                self._end_file()
                # Not what now is: the hour of an export says nothing of an image.
                entry = zipfile.ZipInfo(name)
                entry.file_size = size
                entry.external_attr = 0o600 << 16
                self._file = self._archive.open(entry, "w")
                self._name, self._offset = name, 0
            if self._file is None or offset != self._offset:
                raise StoreError("the node sent a file's pieces in another order than asked for")
            self._file.write(piece)
            self._offset += len(piece)
        except OSError as exc:
            raise self._failed(exc) from exc

    @contextmanager
    def written(self) -> Iterator[BinaryIO]:
        """Lend what was written so far, a whole ZIP file, for reading alone.

        Raises:
            StoreError: it cannot be written, or read.
        """
        try:
            self._end_file()
            self._archive.close()
            self._handle.flush()
            fd = os.open(self._hidden, _READING, dir_fd=self._fd)
        except OSError as exc:
            raise self._failed(exc) from exc
        with os.fdopen(fd, "rb") as handle:
            yield handle

    def add(self, name: str, content: bytes) -> None:
        """Write one more file, behind those that were lent; `publish` follows.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            self._archive = zipfile.ZipFile(self._handle, "a", zipfile.ZIP_STORED)
        except OSError as exc:
            raise self._failed(exc) from exc
        self.write(name, 0, content, len(content))

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def publish(self) -> None:
        """Have it appear under its name; durable once this returns.

        Raises:
            Conflict: something has that name by now.
            StoreError: it cannot.
        """
        try:
            self._end_file()
            self._archive.close()
            self._handle.flush()
            os.fsync(self._handle.fileno())
            if self._path.name in safe_paths.names(self._fd):
                raise Conflict(f"{self._path} was created meanwhile; nothing was exported")
            os.rename(self._hidden, self._path.name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            os.fsync(self._fd)
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: OSError) -> StoreError:
        why = os.strerror(exc.errno or 0)
        return StoreError(f"{self._path} cannot be made or written ({why}); nothing was left there")
