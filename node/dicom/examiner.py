"""The node's side of examining: a pool of parser processes, and the handling of their failures.

If a parser dies, hangs, or answers nonsense, the files that it was examining are held for a person,
and a new process replaces it.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import structlog
import trio

from node.dicom.arena import Arena
from node.dicom.fairness import OWN, CpuBudget, FairPlaces
from node.domain.uids import MAX_UID
from node.domain.verdicts import Examined, PixelLayout, Verdict
from node.errors import ConfigError
from node.sandbox import children
from node.sandbox.confine import LAYERS

log = structlog.get_logger()
_END_SECONDS = 15.0  # for processes that were killed to be gone
START_SECONDS = ANSWER_SECONDS = 30.0
_CPUCLOCK_SCHED = 2  # as clock_getcpuclockid(3) makes the clock of a process
_ENDING_SECONDS = 1.0
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_REFERENCE, _MAX_REFERENCES = 256, 200_000
_MOST_VALUES = 32  # that people search by, of one instance
FAILED = Examined(Verdict.REFUSE, ("the parser failed on it",), is_failure=True)
TOO_SLOW = Examined(Verdict.REFUSE, ("parsing takes too much computing for its size",))
BURST_SECONDS, SUSTAINED_CORES = 15.0, 0.5
"""What the parsers compute for one peer: so much at once, and so much of a core from then on.
*Measured*: an honest peer's CT at 450 MB/s takes 0.17 of a core."""


class Place(Protocol):
    """A slab, or anything else that lies at an offset of the arena."""

    @property
    def offset(self) -> int:
        """Where it begins."""

    @property
    def source(self) -> str:
        """Whose bytes are in it."""


class NotConfined(ConfigError):
    """The kernel denies parsers a layer of confinement that the configuration requires."""


class ParserFailed(Exception):
    """A parser process died, hung or gave an invalid answer; it has been ended."""

    is_too_slow = False  # whether the kernel ended it: it computed for too long


class _Parser:
    """One parser process."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = bytearray()
        self.denied: dict[str, str] = {}
        self.is_idle = True

    @classmethod
    async def start(cls, arena: Arena) -> "_Parser":
        fd = os.dup(arena.fd)
        os.set_inheritable(fd, True)
        try:
            process = await children.start("node.dicom.worker", str(fd), str(arena.size), fd=fd)
        finally:
            os.close(fd)
        parser = cls(process)
        try:
            await parser._wait_ready()
        except BaseException:
            await parser.aclose()
            raise
        return parser

    async def _wait_ready(self) -> None:
        with trio.move_on_after(START_SECONDS):
            self.denied = _denied(await self._read())
            return
        raise ParserFailed

    async def ask(self, request: dict[str, Any]) -> Any:
        """Return the answer to a request.

        Cancellation:
            Takes effect after the answer, which is dropped. A parser that is ended instead
            takes along the sessions of everybody else.

        Raises:
            ParserFailed: no answer came in time, or none that can be read.
        """
        if self._process.stdin is None:
            raise ParserFailed
        # Late or wrong, it stays marked as busy and is ended instead of used again.
        self.is_idle = False
        with trio.move_on_after(ANSWER_SECONDS, shield=True):
            try:
                await self._process.stdin.send_all(json.dumps(request).encode() + b"\n")
                answer = await self._read()
                self.is_idle = True
                return answer
            except (
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                ValueError,
                RecursionError,
            ) as exc:
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

    def cpu_seconds(self) -> float | None:
        """Return the processor time that it has used; None once it has ended."""
        try:
            return time.clock_gettime((~self._process.pid << 3) | _CPUCLOCK_SCHED)
        except OSError:
            return None

    async def is_too_slow(self) -> bool:
        """Whether the kernel has ended it because it used up its time; see `answering`."""
        with trio.move_on_after(_ENDING_SECONDS):
            await self._process.wait()
        return self._process.poll() == -signal.SIGPROF

    async def aclose(self) -> None:
        """End the process; it has nothing to save."""
        if self._process.poll() == -signal.SIGSYS:
            log.error("the kernel killed a parser: it made a forbidden system call")
        self._process.kill()
        with trio.move_on_after(_END_SECONDS, shield=True):
            await self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    await stream.aclose()


class Examiner:
    """Examines files in parser processes. Open it with `open_examiner`.

    No task keeps a parser or a slab while it waits for anything else. Files that come slowly are
    walked in concurrent sessions, and a parser is in use only while it handles a request.
    """

    def __init__(self, parsers: int, slabs: int, required: Collection[str]) -> None:
        budget = CpuBudget(BURST_SECONDS, SUSTAINED_CORES, trio.current_time)
        self.arena = arena = Arena(slabs, budget)
        self.denied: dict[str, str] = {}
        self._slots = [_Slot(arena, required, budget) for _ in range(parsers)]
        self._sessions = itertools.count()

    async def start(self) -> None:
        """Start all parsers ahead of need."""
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                nursery.start_soon(slot.start)
        self.denied = self._slots[0].denied

    def _least_busy(self, source: str) -> "_Slot":
        """Return the parser to ask; the first is kept for the node's own work."""
        slots = self._slots[1:] if source != OWN and len(self._slots) > 1 else self._slots
        return min(slots, key=lambda slot: slot.waiting)

    async def examine_files(
        self, slab: Place, extents: Sequence[tuple[int, int]]
    ) -> list[Examined]:
        """Examine whole files that lie in a slab, given as offset and length in it.

        Many files take several turns at the parsers, with those of other sources between.
        """
        found: list[Examined] = []
        at_once = len(extents)
        while rest := extents[len(found) : len(found) + at_once]:
            try:
                found += await self._ask_files(slab, rest)
            except ParserFailed:
                if at_once == 1:
                    found.append(await self._examine_again(slab, rest[0]))
                # One at a time, to find the file that ended the parser and spare the others.
                at_once = 1
        return found

    async def _examine_again(self, slab: Place, extent: tuple[int, int]) -> Examined:
        """Examine a file by a fresh parser: the last one may have died of something else."""
        try:
            (found,) = await self._ask_files(slab, [extent])
        except ParserFailed as exc:
            return TOO_SLOW if exc.is_too_slow else FAILED
        return found

    async def _ask_files(self, slab: Place, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        """Return the verdicts on the first files: as many as fit into one turn."""
        request = {"files": [[slab.offset + o, n] for o, n in extents]}
        answer = await self._least_busy(slab.source).ask(request, slab.source)
        if not isinstance(answer, list) or not 0 < len(answer) <= len(extents):
            raise ParserFailed
        return [_from_json(value) for value in answer]

    @asynccontextmanager
    async def large(self, size: int, source: str = OWN) -> AsyncGenerator["LargeExamination"]:
        """Examine one file that comes in windows; `size` 0 when it is not known."""
        # Only the node's own work reaches the first parser: no peer's file can end it.
        slot = self._slots[0] if source == OWN else self._least_busy(source)
        session = next(self._sessions)
        try:
            yield LargeExamination(self.arena, slot, session, size, source)
        finally:
            slot.dropped.append(session)

    async def aclose(self) -> None:
        """End all parsers and free the arena."""
        for slot in self._slots:
            await slot.aclose()
        self.arena.close()


class _Slot:
    """A place for one parser: the process that is in it, replaced when it fails."""

    def __init__(self, arena: Arena, required: Collection[str], budget: CpuBudget) -> None:
        self._arena = arena
        self._required = required
        self._budget = budget
        self._parser: _Parser | None = None
        self._turns = FairPlaces(1)
        self.dropped: list[int] = []
        self.denied: dict[str, str] = {}
        self.generation = 0
        self._ended_by = OWN

    @property
    def waiting(self) -> int:
        return self._turns.waiting

    async def start(self) -> "_Parser":
        if self._parser is None:
            parser = await self._start_charged()
            self.denied = parser.denied
            if lacking := [layer for layer in self._required if layer in self.denied]:
                await parser.aclose()
                raise _not_confined({layer: self.denied[layer] for layer in lacking})
            self._parser = parser
            self.generation += 1
        return self._parser

    async def _start_charged(self) -> _Parser:
        """Start a parser, at the expense of the source that ended the last one."""
        parser, begun = None, trio.current_time()
        try:
            parser = await _Parser.start(self._arena)
            return parser
        finally:
            used = None if parser is None else parser.cpu_seconds()
            self._budget.charge(
                self._ended_by, trio.current_time() - begun if used is None else used
            )

    async def ask(self, request: dict[str, Any], source: str, generation: int | None = None) -> Any:
        """Ask the parser; with a `generation`, only if the process is still the same."""
        await self._turns.acquire(source)
        try:
            parser = await self.start()
            if generation is not None and generation != self.generation:
                raise ParserFailed
            dropped, self.dropped = self.dropped, []
            with self._charged(parser, source):
                return await self._ask(parser, {**request, "drop": dropped}, source)
        finally:
            self._turns.release(source)

    async def _ask(self, parser: _Parser, request: dict[str, Any], source: str) -> Any:
        try:
            return await parser.ask(request)
        except ParserFailed as exc:
            exc.is_too_slow = await parser.is_too_slow()
            raise
        finally:
            # Late or wrong: of no more use.
            if not parser.is_idle:
                self._parser, self._ended_by = None, source
                await parser.aclose()

    @contextmanager
    def _charged(self, parser: _Parser, source: str) -> Iterator[None]:
        """Charge a source for what the parser computes, as the kernel counts it."""
        before, begun = parser.cpu_seconds(), trio.current_time()
        try:
            yield
        finally:
            after = parser.cpu_seconds()
            # It has ended: count elapsed time, since a parser never sleeps during a request.
            used = trio.current_time() - begun if after is None else after - (before or 0.0)
            self._budget.charge(source, used)

    async def aclose(self) -> None:
        if self._parser is not None:
            await self._parser.aclose()
            self._parser = None


class LargeExamination:
    """The examination of one large file."""

    def __init__(self, arena: Arena, slot: _Slot, session: int, size: int, source: str) -> None:
        self._arena = arena
        self._source = source
        self._slot = slot
        self._session = session
        self._size = size
        self._generation: int | None = None
        self._failure: Examined | None = None
        self._skippable = self._passed = 0
        self._known = FAILED

    async def feed(self, window: bytes, *, is_last: bool) -> Examined:
        """Give the next bytes; the verdict stands with the last window, a refusal at once.

        Windows that lie whole inside one long value (pixel data, nearly always) are not shown
        to the parser at all: it would only step over them.
        """
        if self._failure is not None:
            return self._failure
        if len(window) <= self._skippable and not is_last:
            self._skippable -= len(window)
            self._passed += len(window)
            return self._known
        request: dict[str, Any] = {
            "passed": self._passed,
            "session": self._session,
            "is_first": self._generation is None,
            "is_last": is_last,
            "size": self._size,
        }
        try:
            async with self._arena.slab(self._source) as slab:
                await trio.to_thread.run_sync(slab.write, 0, window)
                request["window"] = [slab.offset, len(window)]
                answer = await self._slot.ask(request, self._source, self._generation)
                self._generation = self._slot.generation
                self._known, self._passed = _from_json(answer), 0
                self._skippable = _count(answer.get("skippable", 0))
                return self._known
        except ParserFailed as exc:
            self._failure = TOO_SLOW if exc.is_too_slow else FAILED
            return self._failure


@asynccontextmanager
async def open_examiner(
    *, slabs: int = 8, parsers: int = 3, required: Collection[str] = ()
) -> AsyncGenerator[Examiner]:
    """Run an examiner for the time of the block.

    Args:
        slabs: How many windows of files are in memory at once.
        parsers: How many processes examine them; of several, one does the node's own work only.
        required: Layers of confinement (`node.sandbox.confine.LAYERS`) that have to hold.

    Raises:
        NotConfined: the kernel denies a layer that is required.
    """
    examiner = Examiner(parsers, slabs, required)
    try:
        await examiner.start()
        yield examiner
    finally:
        with trio.move_on_after(_END_SECONDS, shield=True):
            await examiner.aclose()


def _not_confined(denied: dict[str, str]) -> NotConfined:
    found = ", ".join(f"{layer} ({why})" for layer, why in denied.items())
    return NotConfined(
        f"the kernel denies layers that [parsers] require in emix.toml names: {found}; allow them,"
        " or remove them from the list"
    )


def _denied(answer: Any) -> dict[str, str]:
    """Return the layers of its confinement that the kernel denied a parser, and why."""
    found = answer["denied"] if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise ParserFailed
    return {layer: str(found[layer])[:80] for layer in LAYERS if layer in found}


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ParserFailed
    return value


def _from_json(value: Any) -> Examined:
    """Return the verdict in an answer; a parser that was taken over can send anything."""
    try:
        texts: dict[str, Any] = {
            name: str(value[name])[:MAX_UID]
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
            references=[
                str(name)[:_MAX_REFERENCE] for name in value["references"][:_MAX_REFERENCES]
            ],
            is_partial=value["is_partial"] is True,
            index={
                str(k)[:64]: str(v)[:256] for k, v in list(value["index"].items())[:_MOST_VALUES]
            },
            **texts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ParserFailed from exc
