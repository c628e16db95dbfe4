"""Ballast: a file whose blocks are freed when the disk is nearly full.

The store's reserve is only a number, and other programs may use that space. The ballast is a file,
so its blocks belong to this node. When the disk is nearly full, the file is emptied for operations
that free room or must be recorded (a deletion, a start, the end), and filled again afterwards.
"""

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "ballast"
_MARGIN_BYTES = 1 << 20
"""Left free for other programs: the ballast itself must not fill the disk."""

_LOW_BYTES = 16 << 20
"""Below this free space the ballast is given up. SQLite's own report comes late, or not at all."""

_PIECE_BYTES = 1 << 20
_STAT_BLOCK = 512


class Ballast:
    """The ballast of one home. Blocking: call it on worker threads."""

    def __init__(self, home: Path, size_bytes: int) -> None:
        self._path = home / NAME
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._given_up = 0

    def held_bytes(self) -> int:
        """Return how much room it holds now."""
        try:
            return self._path.lstat().st_blocks * _STAT_BLOCK
        except OSError:
            return 0

    @contextmanager
    def in_need(self) -> Iterator[None]:
        """Give the room up for the time of the block, if the disk is nearly full.

        After the last such block it fills again.
        """
        with self._lock:
            is_low = self._given_up > 0 or self._is_low()
            if is_low:
                self._given_up += 1
                with suppress(OSError):
                    os.truncate(self._path, 0)
        try:
            yield
        finally:
            if is_low:
                with self._lock:
                    self._given_up -= 1
                self.fill()

    def _is_low(self) -> bool:
        try:
            disk = os.statvfs(self._path)
        except OSError:  # there is none
            return False
        return disk.f_bavail * disk.f_frsize < _LOW_BYTES

    def fill(self) -> None:
        """Hold as much room as is wanted, or as there is. That it cannot is no error."""
        with self._lock, suppress(OSError):
            if self._given_up:
                return
            if not self._size_bytes:
                self._path.unlink(missing_ok=True)
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                self._fill(fd)
            finally:
                os.close(fd)

    def _fill(self, fd: int) -> None:
        disk, held = os.fstatvfs(fd), os.fstat(fd).st_blocks * _STAT_BLOCK
        free = disk.f_bavail * disk.f_frsize - _MARGIN_BYTES
        size = min(self._size_bytes, held + max(0, free))
        if os.fstat(fd).st_size > self._size_bytes:
            os.ftruncate(fd, self._size_bytes)
        if held >= size:
            return
        with suppress(OSError):
            os.posix_fallocate(fd, 0, size)
        if os.fstat(fd).st_blocks * _STAT_BLOCK >= size:
            return
        # The file system does not preallocate, or compresses: random bytes do occupy blocks.
        for offset in range(0, size, _PIECE_BYTES):
            piece = secrets.token_bytes(min(_PIECE_BYTES, size - offset))
            if os.pwrite(fd, piece, offset) < len(piece):
                return
        os.fdatasync(fd)
