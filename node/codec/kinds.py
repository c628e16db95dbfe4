"""The codecs that a chunk's header can name."""

import enum


class Codec(enum.IntEnum):
    """How a chunk's plaintext was encoded; the number is in every chunk's header."""

    STORED = 0
    SHUFFLED = 1  # one blosc2 chunk: read, and no longer made
    REGIONS = 2  # headers apart, pixels as differences of rows, in planes
    SMALL = 3  # the same, with JPEG-LS where it is smaller: an extra opens it
