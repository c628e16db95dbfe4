"""What leaves the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.domain.manifest import Extent

PREAMBLE_BYTES = 128
"""What stands before DICM in a file (PS3.10 7.1)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance lies: in which package of an export, from 0 on, and where in its chunks."""

    package: int
    extents: Sequence[Extent]


def zeroed_preamble(offset: int, piece: bytes) -> bytes:
    """Return a piece of a file that begins at an offset, with zeroes for what is preamble."""
    zeroed = min(len(piece), max(0, PREAMBLE_BYTES - offset))
    return bytes(zeroed) + piece[zeroed:] if zeroed else piece
