"""Every byte is read once, in order, from what is open then; few chunks are opened twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.exports import Place
from node.domain.manifest import Extent
from node.exchange.export.schedule import KEPT_CHUNKS, schedule

extents = st.builds(Extent, st.integers(0, 9), st.integers(0, 50), st.integers(1, 50))
places = st.lists(st.builds(Place, st.integers(0, 2), st.lists(extents, min_size=1, max_size=4)))


@given(places)
def test_reads_are_what_was_asked_for_and_few_chunks_are_open(wanted: list[Place]) -> None:
    found = schedule(wanted)
    last: dict[int, int] = {}
    for number, (place, reads) in enumerate(zip(wanted, found.reads, strict=True)):
        assert [(r.offset, r.length) for r in reads] == [
            (e.offset, e.length) for e in place.extents
        ]
        for read, extent in zip(reads, place.extents, strict=True):
            assert found.openings[read.opening] == (place.package, extent.chunk_index)
            last[read.opening] = number
    flat = [read.opening for reads in found.reads for read in reads]
    for at, opening in enumerate(flat):
        # What is open then: begun before or now, and read again.
        still = {one for one in flat[at:] if one <= max(flat[: at + 1])}
        assert len(still) <= KEPT_CHUNKS
        assert opening <= max(flat[:at], default=-1) + 1


@pytest.mark.parametrize(("chunks", "is_scattered"), [(4, False), (5, True)])
def test_instances_that_are_scattered_over_more_chunks_than_are_kept_are_told(
    chunks: int, *, is_scattered: bool
) -> None:
    wanted = [Place(0, [Extent(n % chunks, n // chunks, 1)]) for n in range(500)]
    found = schedule(wanted)
    assert found.is_scattered == is_scattered
    assert len(found.openings) == (500 if is_scattered else 4)
