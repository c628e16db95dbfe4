"""The order in which chunks are opened so that instances can be streamed one after the other.

A few opened chunks are cached, so that a chunk that several instances share is opened once. The
manifest of another facility may scatter its instances over so many chunks that the cache does not
help. The number of openings is computed before the first chunk is opened, to detect that.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from node.domain.exports import Place

KEPT_CHUNKS = 4
_SPARE_OPENINGS = 64


@dataclass(frozen=True, slots=True)
class Read:
    """A run of an instance's bytes within one opened chunk; `opening` is an index of `openings`."""

    opening: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which chunks are opened, in order, and which runs of bytes are read of each.

    Attributes:
        openings: Package and chunk of each.
        reads: Of each instance.
    """

    openings: Sequence[tuple[int, int]]
    reads: Sequence[Sequence[Read]]

    @property
    def is_scattered(self) -> bool:
        """Whether chunks would have to be opened again and again."""
        return len(self.openings) > 2 * len(set(self.openings)) + _SPARE_OPENINGS


def schedule(places: Sequence[Place]) -> Schedule:
    """Return how instances are read in this order."""
    openings: list[tuple[int, int]] = []
    kept: OrderedDict[tuple[int, int], int] = OrderedDict()  # used longest ago first
    reads = []
    for place in places:
        found = []
        for extent in place.extents:
            chunk = (place.package, extent.chunk_index)
            if chunk not in kept:
                if len(kept) == KEPT_CHUNKS:
                    kept.popitem(last=False)
                kept[chunk] = len(openings)
                openings.append(chunk)
            kept.move_to_end(chunk)
            found.append(Read(kept[chunk], extent.offset, extent.length))
        reads.append(found)
    return Schedule(openings, reads)
