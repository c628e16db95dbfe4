"""Reading here what an import is of, for a node that cannot read it itself."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

from emix.admin.v1 import admin_pb2 as pb

from node.domain.texts import encodable
from node.errors import DicomError

_DATA_BYTES = 1 << 20
Said = SimpleQueue[pb.ImportRequest | None]
"""What the person says meanwhile: that the import is to be cancelled."""


class _Cancelled(Exception):
    """The import was cancelled: nothing more is to be sent."""


def stream_files(
    paths: Iterable[Path], said: Said, note: Callable[[pb.ImportFinding], None]
) -> Iterator[pb.ImportRequest]:
    """Yield the files below paths, as the node would find them, with their bytes.

    Runs on a thread of gRPC's.

    Args:
        paths: What to import.
        said: What was put into it ends the stream, being sent last.
        note: Takes what cannot even be sent.
    """
    from node.dicom.media import find_files

    try:
        for file in chain.from_iterable(find_files(path) for path in paths):
            with ExitStack() as stack:
                if not file.is_archive:
                    yield from _send(file.label, file.size_bytes, _pieces(file.open), said, note)
                    continue
                try:
                    for member in stack.enter_context(file.members()):
                        pieces = _pieces_of(member.problem, member.read)
                        yield from _send(member.label, member.size_bytes, pieces, said, note)
                except DicomError as exc:
                    note(_refused(file.label, str(exc)))
    except _Cancelled as exc:
        yield from exc.args


def _pieces(opener: Callable[[], object]) -> Iterator[bytes]:
    with opener() as handle:  # type: ignore[attr-defined]
        yield b""  # it is open
        yield from iter(lambda: handle.read(_DATA_BYTES), b"")


def _pieces_of(problem: str, read: Callable[[], bytes]) -> Iterator[bytes]:
    if problem:
        raise DicomError(problem)
    yield b""
    yield from iter(read, b"")


def _send(
    label: str,
    size: int,
    pieces: Iterator[bytes],
    said: Said,
    note: Callable[[pb.ImportFinding], None],
) -> Iterator[pb.ImportRequest]:
    """Yield one file; what cannot be opened is noted, what breaks off later is said to the node."""
    is_named = False
    try:
        for piece in pieces:
            if not is_named:
                named = pb.ImportFile(label=encodable(label), size_bytes=size)
                yield pb.ImportRequest(file=named)
                is_named = True
            if piece:
                yield pb.ImportRequest(data=piece)
            if not said.empty():
                request = said.get()
                raise _Cancelled(*([request] if request is not None else []))
    except (DicomError, OSError) as exc:
        reason = str(exc) if isinstance(exc, DicomError) else f"it cannot be read ({exc.strerror})"
        if is_named:
            yield pb.ImportRequest(broken=pb.ImportBroken(reason=reason))
        else:
            note(_refused(label, reason))


def _refused(label: str, reason: str) -> pb.ImportFinding:
    return pb.ImportFinding(label=encodable(label), verdict="refuse", reasons=[reason])
