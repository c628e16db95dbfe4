"""An examiner in the test's own process: the real walk and verdicts, and no parser beside it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from node.dicom.examine import examine, examine_bytes, verdict_on
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.verdicts import Examined
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
