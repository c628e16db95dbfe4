import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.codec import jpeg_ls
from node.errors import ChunkDamaged
from tests.node.codec.material import content

SHAPES = [(1, 16), (2, 16), (100, 37), (3000, 512), (65535, 16), (16, 65535), (3, 65535)]


def comes_back(rows: jpeg_ls.Rows) -> bool:
    """Return whether rows were compressed; then they came back."""
    scan = jpeg_ls.compress(rows)
    if scan is None:
        return False
    out = np.empty_like(rows)
    jpeg_ls.expand(scan, out)
    assert np.array_equal(out, rows)
    assert len(scan) < rows.nbytes
    return True


@pytest.mark.parametrize("sample", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_rows_of_every_shape_come_back(sample: type, shape: tuple[int, int]) -> None:
    flat: jpeg_ls.Rows = np.zeros(shape, sample)
    slope: jpeg_ls.Rows = (np.arange(flat.size).reshape(shape) // 3).astype(sample)
    highest: jpeg_ls.Rows = np.full(shape, np.iinfo(sample).max, sample)
    for rows in (flat, slope, highest):
        comes_back(rows)
    if flat.size > 100:
        assert comes_back(flat)


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.integers(16, 300), st.booleans())
def test_any_samples_come_back(
    chance: random.Random, count: int, columns: int, is_byte: bool
) -> None:
    sample = "<u1" if is_byte else "<u2"
    data = content(chance, count * columns * np.dtype(sample).itemsize)
    comes_back(np.frombuffer(data, sample).reshape(count, columns))


def test_noise_is_no_smaller() -> None:
    noise = np.random.default_rng(1).integers(0, 2**16, (400, 400), np.uint16)
    assert jpeg_ls.compress(noise) is None


def test_no_header_is_kept() -> None:
    scan = jpeg_ls.compress(np.zeros((64, 64), np.uint16))
    assert scan is not None
    assert len(scan) < 100
    assert b"SPIFF" not in scan
    assert b"\xff\xf7" not in scan


@pytest.mark.parametrize("rows", [32, 63, 65, 128])
def test_scan_of_another_size_is_refused(rows: int) -> None:
    noise = np.random.default_rng(1).normal(1000, 30, (64, 64)).astype(np.uint16)
    scan = jpeg_ls.compress(noise)
    assert scan is not None
    with pytest.raises(ChunkDamaged):
        jpeg_ls.expand(scan, np.empty((rows, 64), np.uint16))


@pytest.mark.parametrize("marker", [0xF7, 0xF8, 0xD9, 0xDA, 0xD8, 0xDC, 0xDD, 0xE8, 0xFE])
def test_markers_within_a_scan_are_refused(marker: int) -> None:
    noise = np.random.default_rng(1).normal(1000, 30, (64, 64)).astype(np.uint16)
    scan = jpeg_ls.compress(noise)
    assert scan is not None
    middle = len(scan) // 2
    huge = bytes((0xFF, marker)) + bytes.fromhex("000b10ffffffff0101110000")
    with pytest.raises(ChunkDamaged):
        jpeg_ls.expand(scan[:middle] + huge + scan[middle:], np.empty_like(noise))
    with pytest.raises(ChunkDamaged):
        jpeg_ls.expand(huge + scan, np.empty_like(noise))
