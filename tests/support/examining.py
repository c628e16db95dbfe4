"""An examiner in the test's own process: the real codec, walk and verdicts, without parsers."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate

import trio

from node.codec.decoding import decode
from node.codec.kinds import Codec
from node.crypto.digests import Hasher, digest
from node.dicom.examine import examine, examine_bytes, verdict_on
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.encoded import ChunkFindings, EncodedChunk, PieceFindings
from node.domain.pixels import Pixels
from node.domain.verdicts import Examined, Verdict
from node.exchange.ports import Slab


class LocalSlab:
    """Memory of this process."""

    offset = 0

    def __init__(self, source: str) -> None:
        self.source = source
        self.data = bytearray()

    def write(self, start: int, data: bytes) -> None:
        self.data[start : start + len(data)] = data


class LocalExamination:
    """One file in windows."""

    def __init__(self, size: int) -> None:
        self._walker = Walker(size or None)

    async def feed(self, window: bytes, *, is_last: bool) -> Examined:
        await trio.lowlevel.checkpoint()
        try:
            self._walker.feed(window, is_last=is_last)
        except Refused as exc:
            return verdict_on(exc, self._walker)
        return examine(self._walker, is_whole=is_last)


class LocalSpanningExamination:
    """One file that spans chunks."""

    def __init__(self, size: int, *, is_dicom: bool) -> None:
        self._examination = LocalExamination(size)
        self._hasher = Hasher()
        self._is_dicom = is_dicom

    async def feed(
        self, chunk: EncodedChunk, pieces: Sequence[int], piece: int, *, is_last: bool
    ) -> PieceFindings:
        parts = _cut(chunk, pieces)
        digests = [digest(part) for part in parts]
        self._hasher.update(parts[piece])
        found = Examined(Verdict.NOT_DICOM)
        if self._is_dicom:
            found = await self._examination.feed(parts[piece], is_last=is_last)
        return PieceFindings(digests, found, self._hasher.digest())


def _cut(chunk: EncodedChunk, pieces: Sequence[int]) -> list[bytes]:
    plaintext = decode(Codec(chunk.codec), chunk.encoded, chunk.plaintext_bytes)
    ends = list(accumulate(pieces))
    return [bytes(plaintext[e - n : e]) for e, n in zip(ends, pieces, strict=True)]


class LocalExpander:
    """Expands in the test's own process; see `node.store.opening.Expander`."""

    def expand(self, chunk: EncodedChunk) -> bytes:
        return bytes(decode(Codec(chunk.codec), chunk.encoded, chunk.plaintext_bytes))

    def digest_pieces(self, chunk: EncodedChunk, pieces: Sequence[int]) -> Sequence[bytes]:
        return [digest(part) for part in _cut(chunk, pieces)]

    def find_pixels(self, beginning: bytes, size_bytes: int) -> Pixels | None:
        walker = Walker(size_bytes)
        is_last = len(beginning) == size_bytes
        try:
            walker.feed(beginning, is_last=is_last)
        except Refused:
            return None
        return examine(walker, is_whole=is_last).pixels


class LocalExaminer:
    """Stands for the examiner with its parsers."""

    @property
    def arena(self) -> "LocalExaminer":
        return self

    @asynccontextmanager
    async def slab(self, source: str = "") -> AsyncGenerator[LocalSlab]:
        yield LocalSlab(source)

    async def examine_files(self, slab: Slab, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        assert isinstance(slab, LocalSlab)
        await trio.lowlevel.checkpoint()
        return [examine_bytes(bytes(slab.data[at : at + size])) for at, size in extents]

    @asynccontextmanager
    async def large(self, size: int, source: str = "") -> AsyncGenerator[LocalExamination]:
        yield LocalExamination(size)

    async def examine_chunk(
        self, chunk: EncodedChunk, pieces: Sequence[int], files: Sequence[int], source: str = ""
    ) -> ChunkFindings:
        await trio.lowlevel.checkpoint()
        parts = _cut(chunk, pieces)
        return ChunkFindings([digest(p) for p in parts], [examine_bytes(parts[i]) for i in files])

    @asynccontextmanager
    async def spanning(
        self, size: int, source: str = "", *, is_dicom: bool = True
    ) -> AsyncGenerator[LocalSpanningExamination]:
        yield LocalSpanningExamination(size, is_dicom=is_dicom)
