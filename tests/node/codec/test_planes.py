import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.codec.planes import (
    LEAST_ROW,
    join_bytes,
    join_colour,
    row_differences,
    split_bytes,
    split_colour,
    undo_row_differences,
)

sample_types = st.sampled_from(["<u1", "<u2", "<u4", "<u8"])


@given(sample_types, st.integers(LEAST_ROW, 200), st.integers(1, 40_000), st.integers(0, 2**32 - 1))
def test_rows_are_added_up_again(kind: str, row: int, more: int, seed: int) -> None:
    samples = np.frombuffer(np.random.default_rng(seed).bytes((row + more) * 8), kind)[: row + more]
    found = row_differences(samples, row)
    undo_row_differences(found, row)
    assert np.array_equal(found, samples)


def test_small_differences_change_only_the_low_byte() -> None:
    samples = (1000 + np.arange(64 * 64) % 64 * 3 % 50).astype("<u2").reshape(64, 64).T.reshape(-1)
    high = split_bytes(row_differences(samples, 64))[1]
    assert not high[64:].any()


@given(sample_types, st.integers(0, 3000), st.booleans(), st.integers(0, 2**32 - 1))
def test_colours_are_joined_again(kind: str, pixels: int, is_green: bool, seed: int) -> None:
    size = pixels * 3 * np.dtype(kind).itemsize
    samples = np.frombuffer(np.random.default_rng(seed).bytes(size), kind)
    apart = split_colour(samples, is_subtracted=is_green)
    assert np.array_equal(join_colour(apart, is_subtracted=is_green), samples)


@given(sample_types, st.integers(0, 3000), st.integers(0, 2**32 - 1))
def test_bytes_are_joined_again(kind: str, count: int, seed: int) -> None:
    size = count * np.dtype(kind).itemsize
    samples = np.frombuffer(np.random.default_rng(seed).bytes(size), kind)
    planes = split_bytes(samples)
    assert len(planes) == samples.itemsize
    assert np.array_equal(join_bytes(planes, samples.itemsize), samples)
