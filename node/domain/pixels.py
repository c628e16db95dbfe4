"""Where an instance's pixels lie among its bytes, and how they are arranged there."""

from dataclasses import dataclass

SAMPLE_BYTES = (1, 2, 4, 8)
MOST_SAMPLES = 3

TO_THE_END = 2**40
"""A length that stands for all the rest of an instance."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixel data of an instance, as its header describes them.

    Nothing depends on them but how well the instance compresses.

    Attributes:
        offset: Where they begin.
        length: How many bytes they are, `TO_THE_END` where that is not known.
        sample_bytes: The size of one sample: 1, 2, 4 or 8; 0 where they are compressed already.
        samples: How many samples of one pixel lie beside each other: 1, or 3 for colour.
        row_bytes: The size of one row.
    """

    offset: int
    length: int
    sample_bytes: int = 0
    samples: int = 1
    row_bytes: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 0 or self.row_bytes < 0:
            raise ValueError("pixels lie outside their instance")
        if self.sample_bytes not in (0, *SAMPLE_BYTES) or self.samples not in (1, MOST_SAMPLES):
            raise ValueError("pixels have an impossible form")

    @property
    def is_compressed(self) -> bool:
        """Whether nothing is gained by compressing them."""
        return self.sample_bytes == 0

    def within(self, start: int, length: int) -> "Pixels | None":
        """Return what of them lies in a run of the instance's bytes, counted from its start."""
        first = max(self.offset, start)
        last = min(self.offset + self.length, start + length)
        if first >= last:
            return None
        return Pixels(first - start, last - first, self.sample_bytes, self.samples, self.row_bytes)
