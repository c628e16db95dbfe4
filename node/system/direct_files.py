"""Files that are written once, past the page cache.

Chunks and exported images are large and seldom read soon. *Measured* here, 2 MB files with
fdatasync: 1,400 MB/s with a tenth of the CPU, against 340 through the cache, where the kernel
spends its time finding pages for bytes that nobody will read.
"""

import errno
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

LEAST_BYTES = 64 * 1024
"""Smaller files gain nothing."""

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
"""How a file is opened that must not be there yet; no link is followed."""

_BLOCK = 4096
_local = threading.local()


def write_direct(
    path: Path | str,
    data: bytes | memoryview,
    sync: Callable[[int], None],
    *,
    dir_fd: int | None = None,
    creating: AbstractContextManager[object] | None = None,
) -> bool:
    """Write a new file past the page cache, and sync it; False if it must be written normally.

    False means that the file is too small, or that its file system does not support this; then no
    file is left.

    Args:
        path: The file.
        data: All of it.
        sync: Makes what an open file has durable.
        dir_fd: The folder that the path is relative to, open.
        creating: A lock to hold while the file is made.

    Raises:
        OSError: it cannot be written. What `sync` raises passes through, too; the file stays.
    """
    if len(data) < LEAST_BYTES:
        return False
    padded = -(-len(data) // _BLOCK) * _BLOCK
    buffer: mmap.mmap | None = getattr(_local, "buffer", None)
    if buffer is None or len(buffer) < padded:
        # Anonymous maps begin on a page, as direct writes must.
        buffer = _local.buffer = mmap.mmap(-1, max(padded, 5 << 20))
    buffer[: len(data)] = data
    buffer[len(data) : padded] = bytes(padded - len(data))
    try:
        with creating or nullcontext():
            fd = os.open(path, NEW | os.O_DIRECT, 0o600, dir_fd=dir_fd)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            return False
        raise
    try:
        with memoryview(buffer) as view:
            written = 0
            while written < padded:
                # A short write ends on a block or fails; either way the rest is tried again.
                written += os.write(fd, view[written:padded])
        os.ftruncate(fd, len(data))
        sync(fd)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        os.unlink(path, dir_fd=dir_fd)
        return False
    finally:
        os.close(fd)
    return True
