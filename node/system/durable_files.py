"""All file writes of the store, in one module so that their order can be verified.

A file is written under a temporary name in its own directory, synced, renamed, and only
then is the directory synced (grouped, by the caller). A failed sync is fatal: the kernel may
have dropped the pages, so a second try that succeeds would prove nothing.
"""

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from node.errors import StoreDenied, StoreError, StoreFull, SyncFailed
from node.system import safe_paths, sync_failure
from node.system.direct_files import NEW, write_direct

TEMPORARY_SUFFIX = ".tmp"
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_synced(path: Path, data: bytes) -> None:
    """Write a whole file so that it is there complete or not at all.

    Durable once the directory has been synced too (`sync_directories`).

    Raises:
        StoreFull: no room; nothing is left behind.
        SyncFailed: the data may not be on disk; the node must stop.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        if not write_direct(temporary, data, _sync):
            _write_cached(temporary, data)
        temporary.rename(path)
    except OSError as exc:
        _discard(temporary)
        raise _translated(exc) from exc
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path) -> None:
    with suppress(PermissionError):  # then it was not made either
        temporary.unlink(missing_ok=True)


def _write_cached(path: Path, data: bytes) -> None:
    fd = os.open(path, NEW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        _sync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make what is in a file durable."""
    with translated(), path.open("rb") as handle:
        _sync(handle.fileno())


def sync_directories(paths: Iterable[Path]) -> None:
    """Make the renames and removals in these directories durable."""
    with translated():
        for path in paths:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(fd)
            finally:
                os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, for their owner only; durable once this returns.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directories([path.parent])


def sync_tree(root: Path) -> None:
    """Make everything under a directory durable, files and directory entries."""
    for folder, _, names in os.walk(root):
        for name in names:
            with (Path(folder) / name).open("rb") as handle:
                _sync(handle.fileno())
        sync_directories([Path(folder)])
    sync_directories([root.parent])


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
        sync_failure.note()
        raise SyncFailed(f"syncing to disk failed ({os.strerror(exc.errno or 0)})") from exc


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the system says of a file of the store into our errors.

    Raises:
        StoreDenied: this user may not use it; the message names it and its owner.
        StoreFull: there is no room.
        StoreError: something else failed.
    """
    try:
        yield
    except OSError as exc:
        raise _translated(exc) from exc


def _translated(exc: OSError) -> StoreError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull("the disk is full; free space and try again")
    if exc.errno in _DENIED and exc.filename is not None:
        path = Path(os.fsdecode(exc.filename))
        if why := safe_paths.denial(path) or safe_paths.denial(path.parent, os.W_OK | os.X_OK):
            return StoreDenied(f"the store cannot be used: {why}")
    return StoreError(f"the store cannot be used ({os.strerror(exc.errno or 0)})")
