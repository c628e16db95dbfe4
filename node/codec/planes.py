"""Reversible transforms that put alike bytes beside each other, and back.

How this works. Samples of pixels lie behind one another in rows. Each sample is replaced by its
difference to the one above it, and the high bytes of all samples are put apart from the low ones:
the high ones are then nearly all the same, and what is left of the low ones is noise. Differences
are centred on 128, so that small ones of either sign change only the low byte. Colour is taken
apart first, with green subtracted from red and blue, which resemble it.

All of it is arithmetic modulo the size of a sample, so it is reversible for any bytes, whatever
they are, and also where the stated row length is wrong.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.unsignedinteger]
Bytes = NDArray[np.uint8]

LEAST_ROW = 16
"""Shorter rows, in samples, are not looked at: undoing differences of them would be slow."""

_CENTRE = 128
_GROUP = 64  # rows


def row_differences(samples: Samples, row: int) -> Samples:
    """Return each sample's difference to the one a row before it."""
    found = np.empty_like(samples)
    found[:row] = samples[:row]
    np.subtract(samples[row:], samples[:-row], out=found[row:])
    found[row:] += _centre(samples)
    return found


def undo_row_differences(samples: Samples, row: int) -> None:
    """Undo `row_differences`, in place.

    Rows are added up in groups, all groups at once, then each group gets the last row of the one
    before: some 130 large operations for a chunk, instead of one for each of its rows.
    """
    samples[row:] -= _centre(samples)
    groups = len(samples) // row // _GROUP
    done = row
    if groups:
        block = samples[: groups * _GROUP * row].reshape(groups, _GROUP, row)
        for i in range(1, _GROUP):
            np.add(block[:, i], block[:, i - 1], out=block[:, i])
        for i in range(1, groups):
            np.add(block[i], block[i - 1, -1], out=block[i])
        done = groups * _GROUP * row
    for start in range(done, len(samples), row):
        here = samples[start : start + row]
        np.add(here, samples[start - row : start - row + len(here)], out=here)


def _centre(samples: Samples) -> np.unsignedinteger:
    """Return what is added to differences; a single byte has no higher one to spare."""
    return samples.dtype.type(0 if samples.itemsize == 1 else _CENTRE)


def split_colour(samples: Samples, *, is_subtracted: bool) -> Samples:
    """Return all reds, then all greens, then all blues, of pixels of three samples."""
    pixels = samples.reshape(-1, 3)
    found = np.empty((3, len(pixels)), samples.dtype)
    for i in (0, 1, 2):
        found[i] = pixels[:, i]
    if is_subtracted:
        found[0] -= found[1]
        found[2] -= found[1]
    return found.reshape(-1)


def join_colour(samples: Samples, *, is_subtracted: bool) -> Samples:
    """Undo `split_colour`."""
    colours = samples.reshape(3, -1)
    if is_subtracted:
        colours[0] += colours[1]
        colours[2] += colours[1]
    found = np.empty((colours.shape[1], 3), samples.dtype)
    for i in (0, 1, 2):
        found[:, i] = colours[i]
    return found.reshape(-1)


def split_bytes(samples: Samples) -> list[Bytes]:
    """Return the lowest bytes of all samples, then the next ones, up to the highest."""
    if samples.itemsize == 1:
        return [samples.astype(np.uint8, copy=False)]
    return [(samples >> (8 * i)).astype(np.uint8) for i in range(samples.itemsize)]


def join_bytes(planes: Sequence[Bytes], sample_bytes: int) -> Samples:
    """Undo `split_bytes`."""
    found: Samples = planes[-1].astype(f"<u{sample_bytes}")
    for plane in reversed(planes[:-1]):
        found <<= 8
        found |= plane
    return found
