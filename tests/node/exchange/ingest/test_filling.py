"""What waits in packages is known in all, and one of those in which the most does is found."""

from hypothesis import given
from hypothesis import strategies as st

from node.exchange.ingest.filling import Filling


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2**40))))
def test_total_and_largest_are_right_whatever_is_noted(notes: list[tuple[str, int]]) -> None:
    filling, sizes = Filling(), dict[str, int]()
    for name, size in notes:
        filling.note(name, size)
        sizes[name] = size
        most = max(sizes.values())
        assert filling.total_bytes == sum(sizes.values())
        assert bool(filling.largest()) == bool(most)
        if most:
            assert 2 * sizes[filling.largest()] >= most
