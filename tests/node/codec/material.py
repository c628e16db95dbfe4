"""Bytes of every kind that chunks may hold, and layouts that may or may not be true of them."""

import random
from collections.abc import Iterator

import numpy as np

from node.domain.pixels import Pixels

Piece = tuple[bytes, Pixels | None]

LAYOUTS: tuple[tuple[int, int, int], ...] = (  # bytes of a sample, samples, bytes of a row
    (1, 1, 0),
    (1, 1, 16),
    (1, 1, 100),
    (1, 3, 96),
    (1, 3, 7),
    (2, 1, 0),
    (2, 1, 31),
    (2, 1, 32),
    (2, 1, 512),
    (2, 3, 300),
    (4, 1, 64),
    (4, 1, 1000),
    (8, 1, 256),
    (0, 1, 0),
)


def pixels_of(layout: tuple[int, int, int], offset: int, length: int) -> Pixels:
    sample_bytes, samples, row_bytes = layout
    return Pixels(offset, length, sample_bytes, samples, row_bytes)


def content(chance: random.Random, size: int) -> bytes:
    """Return bytes that are noise, flat, repetitive, smooth, or a mixture."""
    noise = np.random.default_rng(chance.randrange(2**32))
    smooth = (noise.integers(0, 9, size // 2 + 1).cumsum() // 7).astype("<u2").tobytes()
    kinds = (
        lambda: noise.bytes(size),
        lambda: bytes(size),
        lambda: b"tag value " * (size // 10 + 1),
        lambda: smooth,
        lambda: smooth[: size // 3] + noise.bytes(size // 3) + bytes(size),
    )
    return chance.choice(kinds)()[:size]


def pieces(chance: random.Random, size: int) -> list[Piece]:
    """Return pieces of so many bytes together, with pixels anywhere in them or nowhere."""
    found: list[Piece] = []
    left = size
    while left:
        here = left if chance.random() < 0.4 else chance.randint(1, left)
        start = chance.randint(0, here)
        length = chance.choice((here - start, chance.randint(0, here), 2**40))
        pixels = pixels_of(chance.choice(LAYOUTS), start, length)
        found.append((content(chance, here), chance.choice((pixels, pixels, None))))
        left -= here
    return found


def sizes() -> Iterator[int]:
    """Yield sizes around every bound that the codecs have."""
    for edge in (256, 4096, 2**15, 2**16, 2**17, 2**19, 2**22):
        yield from range(edge - 3, edge + 4) if edge < 2**22 else (edge - 1, edge)
