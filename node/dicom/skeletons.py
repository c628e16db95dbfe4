"""Files over which the walk goes the same way as over an earlier one.

How this works. What a walk decides depends on the size of the file, on the heads of its elements
(tags, VRs, lengths), and on three values of its file meta. In a series most instances agree in all
of these. So after a walk that found nothing odd, its heads are kept; a file of the same size that
has the same bytes in their places is not walked over: its values are read from where they lay.
"""

from collections import OrderedDict

from node.dicom.dataset import Trace
from node.dicom.walker import Walker

_MOST_SIZES, _MOST_OF_SIZE = 256, 16
# What a walk looked at in so many first bytes is compared at once, and a few places behind them one
# by one: what follows the pixels. A walk that looked at more is not kept.
_FIRST_BYTES, _MOST_BEHIND = 64 * 1024, 16
_HEAD, _LENGTH = 8, 4
# The walk depends on what these say: the class of a DICOMDIR, deflate, the byte order.
_DECIDING = (0x00020002, 0x00020010)
_PREFIX = (128, 132)


class _Skeleton:
    """A walk that was made, and the bytes that it depended on."""

    def __init__(self, data: memoryview | bytes, walker: Walker, trace: Trace) -> None:
        places = _places(trace)
        first = [(start, end) for start, end in places if end <= _FIRST_BYTES]
        mask = bytearray(max(end for _, end in first))
        for start, end in first:
            mask[start:end] = b"\xff" * (end - start)
        self._end = len(mask)
        # As numbers, so that all of it is compared at once.
        self._mask = int.from_bytes(mask)
        self._bytes = int.from_bytes(data[: self._end]) & self._mask
        behind = ((start, end) for start, end in places if end > _FIRST_BYTES)
        self._behind = {(start, end): bytes(data[start:end]) for start, end in behind}
        self._values = trace.values
        self._walker = walker.repeated(b"", {})  # without the file, which it refers to

    def walked(self, data: memoryview | bytes) -> Walker | None:
        """Return the walk over a file of the same size, if it goes the same way."""
        if int.from_bytes(data[: self._end]) & self._mask != self._bytes:
            return None
        if any(data[start:end] != kept for (start, end), kept in self._behind.items()):
            return None
        values = {tag: bytes(data[start:end]) for tag, (start, end) in self._values.items()}
        return self._walker.repeated(bytes(data[:128]), values)


def _places(trace: Trace) -> list[tuple[int, int]]:
    """Return where the bytes lie that decided about a walk, each from its begin to its end."""
    places = [_PREFIX]
    places += ((at, at + _HEAD) for at in trace.heads)
    places += ((at, at + _LENGTH) for at in trace.lengths)
    places += (trace.values[tag] for tag in _DECIDING if tag in trace.values)
    return places


class Skeletons:
    """The walks that were made lately.

    Attributes:
        found: How many files needed no walk.
    """

    def __init__(self) -> None:
        self.found = 0
        self._by_size: OrderedDict[int, list[_Skeleton]] = OrderedDict()

    def find(self, data: memoryview | bytes) -> Walker | None:
        """Return the finished walk over a whole file, if it goes the way of an earlier one."""
        for skeleton in self._by_size.get(len(data), ()):
            walker = skeleton.walked(data)
            if walker is not None:
                self.found += 1
                return walker
        return None

    def keep(self, data: memoryview | bytes, walker: Walker, trace: Trace) -> None:
        """Keep a walk that has ended well, if nothing but heads decided about it."""
        is_plain = trace.is_complete and walker.preamble and not walker.oddities
        if not is_plain or walker.is_encapsulated or walker.is_directory:
            return
        if sum(end > _FIRST_BYTES for _, end in _places(trace)) > _MOST_BEHIND:
            return
        size = len(data)
        known = self._by_size.setdefault(size, [])
        known.append(_Skeleton(data, walker, trace))
        del known[:-_MOST_OF_SIZE]
        self._by_size.move_to_end(size)
        if len(self._by_size) > _MOST_SIZES:
            self._by_size.popitem(last=False)
