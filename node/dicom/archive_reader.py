"""Reading archives through a confined process; see `node.dicom.archive_worker`.

What the process says is bounded here once more: whoever takes it over may write anything.
"""

import io
import json
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

from node.dicom.archive_kinds import MOST_SIZE, Kind, label_inside
from node.errors import DicomError
from node.sandbox import children

_MAX_LINE = 64 * 1024
_MAX_PIECE = 1 << 20
_MAX_PROBLEM = 200
_SILENT_SECONDS = 600.0  # a scratched disc may be long in reading


class Unreadable(DicomError):
    """One file that cannot be looked at; the message says why, for the import's list."""


@dataclass(slots=True)
class ArchivedFile:
    """One file in an archive, whose bytes come as they are asked for.

    Attributes:
        label: How the person who imports would call it.
        size_bytes: As the archive says, `MOST_SIZE` at most; 0 where it does not.
        problem: Why it cannot be looked at; empty when it can.
    """

    label: str
    size_bytes: int
    problem: str
    _stream: IO[bytes]
    _is_over: bool = field(default=False, init=False)

    def read(self) -> bytes:
        """Return the next piece of it, a MiB at most; nothing at its end. Blocks.

        Raises:
            Unreadable: it is damaged.
        """
        if self.problem or self._is_over:
            return b""
        length = int.from_bytes(_exactly(self._stream, 4), "big")
        if length > _MAX_PIECE:
            raise _failed()
        if length:
            return _exactly(self._stream, length)
        self._is_over = True
        broken = _text(_line(self._stream), "broken")
        if broken:
            raise Unreadable(broken)
        return b""

    def finish(self) -> None:
        """Pass over what was not read."""
        try:
            while self.read():
                pass
        except Unreadable:
            if not self._is_over:
                raise


@contextmanager
def open_archive(
    handle: BinaryIO, kind: Kind, size: int, label: str
) -> Iterator[Iterator[ArchivedFile]]:
    """Read the files in an archive, in the order in which it has them. All of it blocks.

    Args:
        handle: The archive; closed at the end.
        kind: What it is.
        size: Its bytes.
        label: What it is called.

    Yields:
        Its files. Each has to be read before the next is asked for. Leaving the block ends the
        process, also while another thread waits for a file.

    Raises:
        Unreadable: from the iterator: it is damaged, or beyond the bounds; see `archives`.
    """
    with handle, ExitStack() as stack:
        handle.seek(0)
        reading = children.reading("node.dicom.archive_worker", kind.value, str(size), given=handle)
        try:
            output = stack.enter_context(reading)
        except OSError as exc:
            raise Unreadable(f"it cannot be opened ({exc.strerror})") from exc
        yield _files(_patient(output), label)


class _Patient(io.RawIOBase):
    """A process's output, with a bound on the time to wait for it."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = cast("io.FileIO", plain)
        self._poll = select.poll()
        self._poll.register(plain, select.POLLIN)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there.

        Raises:
            Unreadable: nothing came for long.
        """
        if not self._poll.poll(_SILENT_SECONDS * 1000):
            raise _failed()
        return self._plain.readinto(buffer)


def _patient(plain: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Patient(plain), 64 * 1024)


def _files(stream: IO[bytes], label: str) -> Iterator[ArchivedFile]:
    while True:
        said = _line(stream)
        if "end" in said:
            if problem := _text(said, "end"):
                raise Unreadable(problem)
            return
        size = said.get("size")
        if type(size) is not int or not 0 <= size <= MOST_SIZE:
            raise _failed()
        name = said.get("name")
        file = ArchivedFile(
            label_inside(label, name if isinstance(name, str) else "?"),
            size,
            _text(said, "problem"),
            stream,
        )
        yield file
        file.finish()


def _line(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline(_MAX_LINE)
    try:
        said = json.loads(line)
    except ValueError as exc:
        raise _failed() from exc
    if not isinstance(said, dict):
        raise _failed()
    return said


def _text(said: dict[str, Any], key: str) -> str:
    return str(said.get(key, ""))[:_MAX_PROBLEM]


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise _failed()
    return found


def _failed() -> Unreadable:
    return Unreadable("it cannot be read to its end; unpack it first")
