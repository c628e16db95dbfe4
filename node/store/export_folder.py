"""A folder that fills out of sight: nothing has its name before everything is complete.

A watched folder must never see half a study: files are written below a hidden folder in the
target, and moved to their names, series by series, when all of them are complete. Whatever ends
it, it leaves nothing, but for a kill: that leaves the hidden folder, which the next export names.
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Self

from node.errors import Conflict, StoreError

_PARTIAL = ".emix-partial"
_OUR_NAME = re.compile(r"SE\d{6}/IM\d{6}")


class ExportFolder:
    """Use it in a `with` block, or `open` and `discard` it; unpublished, nothing is left.

    Blocking: call it on worker threads.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_made = False
        self.partial = directory / _PARTIAL
        """Where the files are until they are published."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def open(self) -> None:
        """Make the folder.

        Raises:
            Conflict: it is there and not empty.
            StoreError: it cannot be made.
        """
        try:
            self._is_made = not self._directory.exists()
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.partial.exists():
                raise Conflict(
                    f"an export into {self._directory} runs, or was killed: then remove"
                    f" {self.partial} first"
                )
            if any(self._directory.iterdir()):
                raise Conflict(f"{self._directory} is not empty; export into a new folder")
            self.partial.mkdir(mode=0o700)
        except OSError as exc:
            raise self._failed(exc) from exc

    def discard(self) -> None:
        """Remove what was not published."""
        if self.partial.exists():
            shutil.rmtree(self.partial, ignore_errors=True)
            if self._is_made:
                with suppress(OSError):
                    self._directory.rmdir()

    def write(self, name: str, offset: int, piece: bytes) -> None:
        """Write a piece of a file; several threads may, each its own.

        Raises:
            StoreError: it cannot be written, or has a name that none of ours has.
        """
        if not _OUR_NAME.fullmatch(name):
            raise StoreError("a file of another name than an export has")
        path = self.partial / name
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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

    def publish(self) -> None:
        """Have everything appear under its name."""
        try:
            for path in sorted(self.partial.iterdir()):
                path.rename(self._directory / path.name)
            self.partial.rmdir()
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: OSError) -> StoreError:
        reason = os.strerror(exc.errno or 0)
        return StoreError(
            f"{self._directory} cannot be made or written ({reason}); nothing was left there"
        )
