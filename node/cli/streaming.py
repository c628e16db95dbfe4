"""Reads the files of an import in this process, for a node that cannot read them itself."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

from emix.admin.v1 import admin_pb2 as pb

from node.domain.display_text import encodable
from node.errors import DicomError

_DATA_BYTES = 1 << 20
Said = SimpleQueue[pb.ImportRequest | None]
"""Requests that a person makes meanwhile: to cancel the import."""


class _Cancelled(Exception):
    """The import was cancelled: nothing more is to be sent."""


def stream_files(paths: Iterable[Path], said: Said) -> Iterator[pb.ImportRequest]:
    """Yield the files below paths, as the node would find them, with their bytes.

    What cannot be read is named to the node with the reason: it refuses it, and knows that it is
    there. Runs on a thread of gRPC's.

    Args:
        paths: What to import.
        said: A request put into it is sent last, and ends the stream.
    """
    from node.dicom.media import find_files

    try:
        for file in chain.from_iterable(find_files(path) for path in paths):
            with ExitStack() as stack:
                if not file.is_archive:
                    yield from _send(file.label, file.size_bytes, _pieces(file.open), said)
                    continue
                try:
                    for member in stack.enter_context(file.members()):
                        pieces = _pieces_of(member.problem, member.read)
                        yield from _send(member.label, member.size_bytes, pieces, said)
                except DicomError as exc:
                    yield _named(file.label, file.size_bytes)
                    yield _broken(str(exc))
    except _Cancelled as exc:
        yield from exc.args


def _pieces(opener: Callable[[], object]) -> Iterator[bytes]:
    with opener() as handle:  # type: ignore[attr-defined]
        yield from iter(lambda: handle.read(_DATA_BYTES), b"")


def _pieces_of(problem: str, read: Callable[[], bytes]) -> Iterator[bytes]:
    if problem:
        raise DicomError(problem)
    yield from iter(read, b"")


def _send(label: str, size: int, pieces: Iterator[bytes], said: Said) -> Iterator[pb.ImportRequest]:
    """Yield one file; what cannot be opened, or breaks off, is said to the node."""
    yield _named(label, size)
    _look_for_cancel(said)
    try:
        for piece in pieces:
            yield pb.ImportRequest(data=piece)
            _look_for_cancel(said)
    except DicomError as exc:
        yield _broken(str(exc))
    except OSError as exc:
        yield _broken(f"it cannot be read ({exc.strerror})")


def _look_for_cancel(said: Said) -> None:
    if not said.empty():
        request = said.get()
        raise _Cancelled(*([request] if request is not None else []))


def _named(label: str, size: int) -> pb.ImportRequest:
    return pb.ImportRequest(file=pb.ImportFile(label=encodable(label), size_bytes=size))


def _broken(reason: str) -> pb.ImportRequest:
    return pb.ImportRequest(broken=pb.ImportBroken(reason=reason))
