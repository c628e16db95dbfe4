"""In which order chunks are opened so that instances come one after the other, each in order.

A few chunks are kept at hand, so that one that several instances share is opened once. A stranger's
manifest may scatter its instances so that no few are enough; how often chunks would have to be
opened is known before the first one is.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from node.domain.exports import Place

KEPT_CHUNKS = 4
_SPARE_OPENINGS = 64


@dataclass(frozen=True, slots=True)
class Read:
    """A run of an instance's bytes, in what an opening gave."""

    opening: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is opened, in order, and what is read of that.

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
