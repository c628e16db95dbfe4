"""The node's side of examining: a pool of parser processes and what happens when one fails.

A parser that dies, hangs, or answers nonsense costs the files that it was looking at: they
are held for a person, and another process takes its place.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

from node.dicom.arena import SLAB_BYTES, Arena, Slab
from node.domain.verdicts import Examined, PixelLayout, Verdict

ANSWER_SECONDS = 30.0
_MAX_ANSWER_BYTES = 16 * 2**20
_FAILED = Examined(Verdict.REFUSE, ("the parser failed on it",))


class Place(Protocol):
    """A slab, or anything else that lies at an offset of the arena."""

    @property
    def offset(self) -> int:
        """Where it begins."""


class ParserFailed(Exception):
    """A parser process died, hung or talked nonsense; it has been ended."""


class _Parser:
    """One parser process."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = bytearray()
        self.unconfined: list[str] = []
        self.is_idle = True

    @classmethod
    async def start(cls, arena: Arena) -> "_Parser":
        fd = os.dup(arena.fd)
        os.set_inheritable(fd, True)
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "node.dicom.worker", str(fd), str(arena.size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[fd],
                env=_environment(),
            )
        finally:
            os.close(fd)
        parser = cls(process)
        try:
            parser.unconfined = (await parser._read())["unconfined"]
        except BaseException:
            await parser.aclose()
            raise
        return parser

    async def ask(self, request: dict[str, Any]) -> Any:
        if self._process.stdin is None:
            raise ParserFailed
        # Cancelled, late or wrong, it stays marked as busy and is ended instead of used again.
        self.is_idle = False
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                await self._process.stdin.send_all(json.dumps(request).encode() + b"\n")
                answer = await self._read()
                self.is_idle = True
                return answer
            except (trio.BrokenResourceError, trio.ClosedResourceError, ValueError) as exc:
                raise ParserFailed from exc
        raise ParserFailed

    async def _read(self) -> Any:
        if self._process.stdout is None:
            raise ParserFailed
        while (end := self._buffer.find(b"\n")) < 0:
            data = await self._process.stdout.receive_some(65536)
            if not data or len(self._buffer) > _MAX_ANSWER_BYTES:
                raise ParserFailed
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return json.loads(line)

    async def aclose(self) -> None:
        """End the process; it has nothing to save."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    await stream.aclose()


class Examiner:
    """Examines files in parser processes. Open it with `open_examiner`."""

    def __init__(self, arena: Arena, parsers: int) -> None:
        self.arena = arena
        self.unconfined: list[str] = []
        self._idle: list[_Parser] = []
        self._limiter = trio.Semaphore(parsers)

    async def start_parser(self) -> None:
        """Start one parser ahead of need."""
        parser = await _Parser.start(self.arena)
        self.unconfined = parser.unconfined
        self._idle.append(parser)

    @asynccontextmanager
    async def _parser(self) -> AsyncGenerator[_Parser]:
        async with self._limiter:
            parser = self._idle.pop() if self._idle else await _Parser.start(self.arena)
            self.unconfined = parser.unconfined
            try:
                yield parser
            finally:
                if parser.is_idle:
                    self._idle.append(parser)
                else:
                    await parser.aclose()

    async def examine_files(
        self, slab: Place, extents: Sequence[tuple[int, int]]
    ) -> list[Examined]:
        """Examine whole files that lie in a slab, given as offset and length in it."""
        if not extents:
            return []
        try:
            return await self._ask_files(slab, extents)
        except ParserFailed:
            if len(extents) == 1:
                return [_FAILED]
        # Find the one that did it, so that it does not take its neighbours along.
        return [(await self.examine_files(slab, [extent]))[0] for extent in extents]

    async def _ask_files(self, slab: Place, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        async with self._parser() as parser:
            answer = await parser.ask({"files": [[slab.offset + o, n] for o, n in extents]})
            if not isinstance(answer, list) or len(answer) != len(extents):
                raise ParserFailed
            return [_from_json(value) for value in answer]

    @asynccontextmanager
    async def large(self, size: int) -> AsyncGenerator["LargeExamination"]:
        """Examine one file that comes in windows; `size` 0 when it is not known."""
        async with self.arena.slab() as slab:
            examination = LargeExamination(slab, size)
            async with self._parser() as parser:
                examination._parser = parser
                yield examination

    async def aclose(self) -> None:
        """End all parsers and free the arena."""
        for parser in self._idle:
            await parser.aclose()
        self._idle.clear()
        self.arena.close()


class LargeExamination:
    """The examination of one large file."""

    def __init__(self, slab: Slab, size: int) -> None:
        self._slab = slab
        self._size = size
        self._parser: _Parser | None = None
        self._is_first = True
        self.is_failed = False

    async def feed(self, window: bytes, *, is_last: bool) -> Examined:
        """Give the next bytes; the verdict stands with the last window, a refusal at once."""
        if self.is_failed or self._parser is None:
            return _FAILED
        self._slab.write(0, window)
        request = {
            "window": [self._slab.offset, len(window)],
            "is_first": self._is_first,
            "is_last": is_last,
            "size": self._size,
        }
        self._is_first = False
        try:
            return _from_json(await self._parser.ask(request))
        except ParserFailed:
            self.is_failed = True
            return _FAILED


@asynccontextmanager
async def open_examiner(*, slabs: int = 6, parsers: int = 2) -> AsyncGenerator[Examiner]:
    """Run an examiner for the time of the block."""
    examiner = Examiner(Arena(slabs), parsers)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(parsers):
                nursery.start_soon(examiner.start_parser)
        yield examiner
    finally:
        with trio.CancelScope(shield=True):
            await examiner.aclose()


def _environment() -> dict[str, str]:
    """Return the least that a parser needs of the environment: no secret of the node's."""
    kept = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _from_json(value: Any) -> Examined:
    """Return the verdict in an answer; a parser that was taken over can send anything."""
    try:
        texts = {
            name: str(value[name])[:64]
            for name in (
                "study_instance_uid",
                "series_instance_uid",
                "sop_instance_uid",
                "sop_class_uid",
                "transfer_syntax_uid",
            )
        }
        return Examined(
            verdict=Verdict(value["verdict"]),
            reasons=tuple(str(reason)[:200] for reason in value["reasons"][:50]),
            layout=PixelLayout(value["layout"]),
            index={str(k)[:64]: str(v)[:256] for k, v in list(value["index"].items())[:20]},
            **texts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ParserFailed from exc


__all__ = ["SLAB_BYTES", "Examiner", "LargeExamination", "open_examiner"]
