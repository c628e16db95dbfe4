"""Reading what is imported: files in batches that fit a window, large ones window by window.

Everything here that is not async blocks; call it on worker threads.
"""

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import trio

from node.crypto.digests import Hasher, digest
from node.errors import DicomError
from node.exchange.ports import ArchivedFile, IncomingFile, Slab

WINDOW_BYTES = 4 * 2**20
"""What is read of a file at once; files up to this size are handled whole, in batches."""
_BATCH_FILES = 1000
_CLOSING_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file after reading: its content and digest, or why it could not be read.

    Attributes:
        is_larger: The file is larger than it was listed, or than a window: read it window by
            window. So the listed sizes bound the memory of a batch even if its files grow.
    """

    file: IncomingFile
    content: bytes = b""
    digest: bytes = b""
    problem: str = ""
    is_larger: bool = False


@dataclass(frozen=True, slots=True)
class FileInMemory:
    """A streamed file that turned out to be small."""

    label: str
    content: bytes

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return len(self.content)

    @property
    def is_archive(self) -> bool:
        """False: a streamed archive is extracted by the client that streams it."""
        return False

    def members(self) -> AbstractContextManager[Iterator[ArchivedFile]]:
        """Return nothing: it is no archive."""
        return nullcontext(iter(()))

    def open(self) -> BinaryIO:
        """Open it; there is nothing that can fail."""
        return BytesIO(self.content)


class Batch:
    """Files that are handled together: they fit a window, and are not too many.

    Attributes:
        files: What is in it.
    """

    def __init__(self) -> None:
        self.files: list[IncomingFile] = []
        self._size = 0

    def has_room(self, file: IncomingFile) -> bool:
        """Return whether one more fits; the first always does."""
        is_full = self._size + file.size_bytes > WINDOW_BYTES or len(self.files) == _BATCH_FILES
        return not (self.files and is_full)

    def add(self, file: IncomingFile) -> None:
        """Add one that fits."""
        self.files.append(file)
        self._size += file.size_bytes


def batches(files: Iterator[IncomingFile]) -> Iterator[list[IncomingFile]]:
    """Yield files in lists of bounded size and number.

    One over a window, or an archive, stands alone.
    """
    batch = Batch()
    for file in files:
        if batch.files and (file.is_archive or not batch.has_room(file)):
            yield batch.files
            batch = Batch()
        if file.is_archive:
            yield [file]
            continue
        batch.add(file)
    if batch.files:
        yield batch.files


def read_files(batch: Sequence[IncomingFile]) -> list[ReadFile]:
    """Read and digest files that fit a window together; those that cannot be read say why."""
    read = []
    for file in batch:
        try:
            with file.open() as handle:
                content = handle.read(min(file.size_bytes, WINDOW_BYTES) + 1)
        except DicomError as exc:
            read.append(ReadFile(file, problem=str(exc)))
            continue
        except OSError as exc:
            read.append(ReadFile(file, problem=f"it cannot be read ({exc.strerror})"))
            continue
        if len(content) > min(file.size_bytes, WINDOW_BYTES):
            read.append(ReadFile(file, is_larger=True))
        else:
            read.append(ReadFile(file, content, digest(content)))
    return read


def lay_out(slab: Slab, items: Sequence[ReadFile]) -> list[tuple[int, int]]:
    """Copy files into a slab one behind the other; return where they are."""
    extents, start = [], 0
    for item in items:
        slab.write(start, item.content)
        extents.append((start, len(item.content)))
        start += len(item.content)
    return extents


async def read_windows(handle: BinaryIO) -> AsyncGenerator[bytes]:
    """Yield a file's windows.

    Raises:
        DicomError: it cannot be read to its end.
    """
    while window := await trio.to_thread.run_sync(_read_window, handle):
        yield window


def _read_window(handle: BinaryIO) -> bytes:
    try:
        return handle.read(WINDOW_BYTES)
    except OSError as exc:
        raise DicomError(f"it cannot be read ({exc.strerror})") from exc


def digest_file(file: IncomingFile) -> bytes:
    """Return the digest of a whole file; `DicomError` if it cannot be read."""
    hasher = Hasher()
    with file.open() as handle:
        while window := _read_window(handle):
            hasher.update(window)
    return hasher.digest()


@dataclass(frozen=True, slots=True)
class ReadMember:
    """The beginning of a file in an archive.

    Attributes:
        file: Which.
        content: All of it, or a window and more.
        is_whole: Whether that is all.
        problem: Why it cannot be read; empty when it can.
    """

    file: ArchivedFile
    content: bytes = b""
    is_whole: bool = False
    problem: str = ""


@asynccontextmanager
async def open_members(
    file: IncomingFile,
) -> AsyncGenerator[Callable[[], Awaitable[ReadMember | None]]]:
    """Read an archive for the time of the block, with a function that returns the next file.

    Cancellation:
        Takes effect at once: the reader is ended, and with it the thread that waits for it.

    Raises:
        DicomError: the archive cannot be read. The function raises it, too.
    """
    stack = ExitStack()
    # Opening a file may take its time, on a network's disk for example.
    members = await trio.to_thread.run_sync(lambda: stack.enter_context(file.members()))

    async def read() -> ReadMember | None:
        return await trio.to_thread.run_sync(_read_member, members, abandon_on_cancel=True)

    try:
        yield read
    finally:
        with trio.move_on_after(_CLOSING_SECONDS, shield=True):
            await trio.to_thread.run_sync(stack.close)


def _read_member(members: Iterator[ArchivedFile]) -> ReadMember | None:
    file = next(members, None)
    if file is None:
        return None
    if file.problem:
        return ReadMember(file, problem=file.problem)
    parts, size = [], 0
    try:
        while size <= WINDOW_BYTES and (piece := file.read()):
            parts.append(piece)
            size += len(piece)
    except DicomError as exc:
        return ReadMember(file, problem=str(exc))
    return ReadMember(file, b"".join(parts), is_whole=size <= WINDOW_BYTES)


async def rest_of(member: ReadMember) -> AsyncGenerator[bytes]:
    """Yield the windows of a file in an archive of which the beginning was read.

    Raises:
        DicomError: it cannot be read to its end.
    """
    kept = bytearray(member.content)
    while True:
        while len(kept) <= WINDOW_BYTES and (
            piece := await trio.to_thread.run_sync(member.file.read, abandon_on_cancel=True)
        ):
            kept += piece
        if not kept:
            return
        yield bytes(kept[:WINDOW_BYTES])
        del kept[:WINDOW_BYTES]
