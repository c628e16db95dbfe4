"""Values of exports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.domain.manifest import Extent

Sink = Callable[[str, int, bytes | memoryview], None]
"""Takes a piece of a file: name (ours, relative), offset and bytes, which are its own only until it
returns. Called on worker threads."""

Report = Callable[[int, int, int, int], None]
"""Called with files begun and in all, bytes written and in all."""

PREAMBLE_BYTES = 128
"""The length of the preamble before `DICM` in a file (PS3.10 7.1)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance lies: in which package of an export, from 0 on, and where in its chunks."""

    package: int
    extents: Sequence[Extent]


ATTACHED = "ATTACHED"
"""The folder of what is not DICOM."""

_ENDINGS = {
    "application/pdf": ".pdf",
    "application/json": ".json",
    "application/xml": ".xml",
    "text/plain": ".txt",
    "text/xml": ".xml",
}


def attached_name(number: int, media_type: str) -> str:
    """Return the path of an exported attachment; its suffix is from a fixed list."""
    return f"{ATTACHED}/AT{number:06d}{_ENDINGS.get(media_type, '.bin')}"


def is_attached(path: str) -> bool:
    """Whether an exported file is an attachment: of such a file no byte is changed."""
    return path.startswith(f"{ATTACHED}/")


def zeroed_preamble(offset: int, piece: bytes | memoryview) -> bytes | memoryview:
    """Return a piece of a file that begins at an offset, with zeroes for what is preamble."""
    zeroed = min(len(piece), max(0, PREAMBLE_BYTES - offset))
    return b"".join((bytes(zeroed), piece[zeroed:])) if zeroed else piece
