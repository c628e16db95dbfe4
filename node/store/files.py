"""All file writing of the store goes through here, so that its order can be proved.

A file is written under a temporary name in its own directory, synced, renamed, and only
then is the directory synced (grouped, by the caller). A failed sync is fatal: the kernel may
have dropped the pages, so a second try that succeeds would prove nothing.
"""

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from node.errors import StoreError, StoreFull

TEMPORARY_SUFFIX = ".tmp"


class SyncFailed(StoreError):
    """A sync failed. The node must stop and acknowledge nothing more."""


def write_synced(path: Path, data: bytes) -> None:
    """Write a whole file so that it is there complete or not at all.

    Durable once the directory has been synced too (`sync_directories`).

    Raises:
        StoreFull: no room; nothing is left behind.
        SyncFailed: the data may not be on disk; the node must stop.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            _sync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise _translated(exc) from exc
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_directories(paths: Iterable[Path]) -> None:
    """Make the renames and removals in these directories durable."""
    try:
        for path in paths:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(fd)
            finally:
                os.close(fd)
    except OSError as exc:
        raise _translated(exc) from exc


def replace_synced(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably."""
    write_synced(path, data)
    sync_directories([path.parent])


def remove_temporaries(directory: Path) -> int:
    """Remove what a crash left half-written; return how many files."""
    removed = 0
    for path in directory.rglob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)
        removed += 1
    return removed


def _sync(fd: int) -> None:
    try:
        os.fdatasync(fd)
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise
        raise SyncFailed(f"syncing to disk failed ({os.strerror(exc.errno or 0)})") from exc


def _translated(exc: OSError) -> StoreError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull("the disk is full; free space and try again")
    return StoreError(f"writing to the store failed ({os.strerror(exc.errno or 0)})")
