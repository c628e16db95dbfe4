"""The walk over a DICOMDIR that a person named, window by window."""

from typing import BinaryIO

from node.dicom.examine import examine, verdict_on
from node.dicom.stream import Refused
from node.dicom.walker import Walker

_WINDOW_BYTES = 1 << 20


def read_names(stream: BinaryIO, size: int) -> dict[str, object]:
    """Return what a DICOMDIR names, as `node.dicom.directory_worker` writes it."""
    walker = Walker(size)
    window = stream.read(_WINDOW_BYTES)
    try:
        while True:
            following = stream.read(_WINDOW_BYTES)
            walker.feed(window, is_last=not following)
            if not following or not walker.is_directory:
                break
            window = following
        found = examine(walker)
    except Refused as exc:
        found = verdict_on(exc, walker)
    return {
        "is_directory": walker.is_directory,
        "names": list(found.references),
        "problem": found.reasons[0] if found.is_partial else "",
    }
