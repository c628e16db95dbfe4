"""Reading what is imported: files in batches that fit a window, large ones window by window.

All of it blocks, but for `read_windows`; call it on worker threads.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import trio

from node.crypto.digests import Hasher, digest
from node.errors import DicomError
from node.exchange.import_ports import IncomingFile, Slab

WINDOW_BYTES = 4 * 2**20
"""What is read of a file at once; files up to this size are handled whole, in batches."""
_BATCH_FILES = 1000


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file after reading: its content and digest, or why not.

    Attributes:
        is_larger: It holds more than was said or than a window: read it window by window. So what
            is said of the files of a batch bounds what is held of them, also while they grow.
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

    def open(self) -> BinaryIO:
        """Open it; there is nothing that can fail."""
        return BytesIO(self.content)


def batches(files: Iterator[IncomingFile]) -> Iterator[list[IncomingFile]]:
    """Yield files in lists of bounded size and number; one over a window stands alone."""
    batch: list[IncomingFile] = []
    size = 0
    for file in files:
        if batch and (size + file.size_bytes > WINDOW_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size_bytes
    if batch:
        yield batch


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


async def read_windows(handle: BinaryIO) -> AsyncIterator[bytes]:
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
    """Return the digest of a whole file; `DicomError` if it cannot be opened."""
    hasher = Hasher()
    with file.open() as handle:
        while window := handle.read(WINDOW_BYTES):
            hasher.update(window)
    return hasher.digest()
