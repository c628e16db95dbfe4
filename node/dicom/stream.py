"""A stream of bytes that is fed in windows to a walk.

How this works. The walk is a generator: it consumes the buffer and yields when it needs the next
window. So its code reads as if all bytes were there, and a 2 GB instance is never in memory. When
it only steps over a long value, it says so, and those bytes need not be fed at all.
"""

from collections.abc import Generator


class Refused(Exception):
    """The bytes are not one well-formed instance; the message says why, without any value."""


class NotDicom(Refused):
    """The bytes do not begin as any DICOM file does: a picture, a viewer, anything."""


Window = memoryview | bytes
Needs = Generator[None, None, None]
"""A part of a walk: it yields whenever it needs the next window."""


class FedStream:
    """The bytes of one file, and the walk over them.

    Attributes:
        skippable_bytes: How many of the next bytes the walk will only step over, whatever
            they are: the rest of a value. `pass_over` may stand for feeding them.
    """

    def __init__(self, walk: Needs) -> None:
        self.skippable_bytes = 0
        self._passed_over = 0
        self._buffer: Window = b""
        self._position = 0  # in the buffer
        self._consumed = 0  # bytes of the stream before the buffer
        self._is_last = False
        self._incoming: Window | None = None
        self._driver = walk
        self._is_started = False
        self._is_done = False

    def feed(self, window: Window, *, is_last: bool) -> None:
        """Walk over the next bytes.

        Raises:
            Refused: these bytes cannot be part of a well-formed instance.
        """
        self._incoming, self._is_last = window, is_last
        try:
            if self._is_started:
                self._driver.send(None)
            else:
                self._is_started = True
                next(self._driver)
        except StopIteration:
            self._is_done = True
        if is_last and not self._is_done:
            raise Refused("truncated: it ends inside an element")

    def pass_over(self, count: int) -> None:
        """Take the next `count` bytes as walked over, without seeing them.

        Raises:
            ValueError: they are not all skippable.
        """
        if not 0 <= count <= self.skippable_bytes:
            raise ValueError("these bytes must be looked at")
        self.skippable_bytes -= count
        self._passed_over += count
        self._consumed += count

    def _pull(self) -> Generator[None, None, bool]:
        """Append the next window to what is left of the buffer; False at the end."""
        if self._incoming is None:
            if self._is_last:
                return False
            yield
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return False
        rest = self._buffer[self._position :]
        self._consumed += self._position
        self._buffer = bytes(rest) + bytes(incoming) if len(rest) else incoming
        self._position = 0
        return True

    def _need(self, count: int) -> Generator[None, None, bool]:
        """Have `count` bytes in the buffer; False if the stream ends before."""
        while len(self._buffer) - self._position < count:
            if not (yield from self._pull()):
                return False
        return True

    def _take(self, count: int) -> Generator[None, None, bytes]:
        if not (yield from self._need(count)):
            raise Refused("truncated: a value is longer than the bytes left")
        start = self._position
        self._position += count
        return bytes(self._buffer[start : self._position])

    def _skip(self, count: int) -> Needs:
        while True:
            here = min(count, len(self._buffer) - self._position)
            self._position += here
            count -= here
            if not count:
                return
            self.skippable_bytes = count
            is_more = yield from self._pull()
            count -= self._passed_over
            self.skippable_bytes = self._passed_over = 0
            if not is_more:
                raise Refused("truncated: a value is longer than the bytes left")

    def _offset(self) -> int:
        return self._consumed + self._position

    def finish_if_open(self) -> None:
        """End a walk whose last window was not known to be the last."""
        if not self._is_done:
            self.feed(b"", is_last=True)

    def _drain(self) -> Generator[None, None, int]:
        total = len(self._buffer) - self._position
        self._position = len(self._buffer)
        while (yield from self._pull()):
            total += len(self._buffer) - self._position
            self._position = len(self._buffer)
        return total
