"""The store's way to the parsers: asked on worker threads, answered by the event loop."""

from collections.abc import Sequence

import trio

from node.dicom.examiner import Examiner
from node.domain.encoded import EncodedChunk
from node.domain.pixels import Pixels


class ParserExpander:
    """See `node.store.opening.Expander`. Only for threads that trio started."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner

    def expand(self, chunk: EncodedChunk) -> bytes:
        """See `Expander.expand`."""
        return trio.from_thread.run(self._examiner.expand, chunk)

    def digest_pieces(self, chunk: EncodedChunk, pieces: Sequence[int]) -> Sequence[bytes]:
        """See `Expander.digest_pieces`."""
        return trio.from_thread.run(self._examiner.digest_pieces, chunk, pieces)

    def find_pixels(self, beginning: bytes, size_bytes: int) -> Pixels | None:
        """See `Expander.find_pixels`."""
        return trio.from_thread.run(self._find_pixels, beginning, size_bytes)

    async def _find_pixels(self, beginning: bytes, size_bytes: int) -> Pixels | None:
        async with self._examiner.large(size_bytes) as examination:
            is_last = len(beginning) == size_bytes
            return (await examination.feed(beginning, is_last=is_last)).pixels
