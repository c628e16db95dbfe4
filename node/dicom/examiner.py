"""The node's side of examining: a pool of parser processes, and the handling of their failures.

Parsers do what is dangerous to do beside keys: they expand chunks and walk over files. If one dies,
hangs, or answers nonsense, a new process replaces it and is asked the same once more. If that fails
too, a chunk counts as damaged, and a file is held for a person.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import fields
from typing import Any, Protocol

import structlog
import trio

from node.codec.kinds import Codec
from node.dicom.arena import Arena, Output
from node.dicom.fairness import OWN, CpuBudget, FairPlaces
from node.domain.encoded import ChunkFindings, EncodedChunk, PieceFindings
from node.domain.ids import DIGEST_BYTES
from node.domain.pixels import Pixels
from node.domain.uids import MAX_UID
from node.domain.verdicts import Examined, Verdict
from node.errors import ChunkDamaged, ConfigError
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
_PIXEL_FIELDS = tuple(field.name for field in fields(Pixels))
_NOT_EXPANDED = "a chunk cannot be expanded"
FAILED = Examined(Verdict.REFUSE, ("the parser failed on it",), is_failure=True)
TOO_SLOW = Examined(Verdict.REFUSE, ("parsing takes too much computing for its size",))
BURST_SECONDS, SUSTAINED_CORES = 15.0, 1.0
"""What the parsers compute for one peer: so much at once, and so much of a core from then on.
*Measured*: of an honest peer's CT, 480 MB a second of plaintext take one core."""


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

    def __init__(self, process: trio.Process, output: Output) -> None:
        self._process = process
        self.output = output
        self._buffer = bytearray()
        self.denied: dict[str, str] = {}
        self.is_idle = True

    @classmethod
    async def start(cls, arena: Arena) -> "_Parser":
        output = Output()
        fds = [os.dup(arena.fd), os.dup(output.fd)]
        try:
            for fd in fds:
                os.set_inheritable(fd, True)
            arguments = (str(fds[0]), str(arena.size), str(fds[1]))
            process = await children.start("node.dicom.worker", *arguments, fds=fds)
        except BaseException:
            output.close()
            raise
        finally:
            for fd in fds:
                os.close(fd)
        parser = cls(process, output)
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
        self.output.close()
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

    async def examine_chunk(
        self,
        chunk: EncodedChunk,
        pieces: Sequence[int],
        files: Sequence[int],
        source: str = OWN,
    ) -> ChunkFindings:
        """Expand a chunk, digest its pieces and examine those that are files.

        Args:
            chunk: The chunk.
            pieces: The lengths of its pieces, in order.
            files: The numbers of the pieces that are whole files.
            source: Where it comes from.

        Raises:
            ChunkDamaged: it does not expand, or makes parsers fail.
        """
        async with self.laid_out(chunk, pieces, source) as request:
            try:
                digests, found = await self._ask_chunk({**request, "files": list(files)}, source)
                at_once = len(files)
            except ParserFailed:
                digests, found, at_once = await self.digest_laid_out(request, source), [], 1
            while rest := files[len(found) : len(found) + at_once]:
                try:
                    found += (await self._ask_chunk({**request, "files": list(rest)}, source))[1]
                except ParserFailed:
                    if at_once == 1:
                        found.append(
                            await self._piece_again({**request, "files": list(rest)}, source)
                        )
                    at_once = 1
        return ChunkFindings(digests, found)

    async def digest_pieces(
        self, chunk: EncodedChunk, pieces: Sequence[int], source: str = OWN
    ) -> Sequence[bytes]:
        """Expand a chunk, and return the digests of its pieces; see `examine_chunk`."""
        return (await self.examine_chunk(chunk, pieces, (), source)).digests

    async def expand(self, chunk: EncodedChunk, source: str = OWN) -> bytes:
        """Return the plaintext of a chunk; the caller holds it against its digests.

        Raises:
            ChunkDamaged: it does not expand, or makes parsers fail.
        """
        if chunk.codec == Codec.STORED and len(chunk.encoded) == chunk.plaintext_bytes:
            return chunk.encoded
        async with self.laid_out(chunk, (), source) as request:
            request["output"] = True
            with suppress(ParserFailed):
                return await self._ask_for_output(request, chunk.plaintext_bytes, source)
            try:
                return await self._ask_for_output(request, chunk.plaintext_bytes, source)
            except ParserFailed as exc:
                raise ChunkDamaged(_NOT_EXPANDED) from exc

    @asynccontextmanager
    async def laid_out(
        self, chunk: EncodedChunk, pieces: Sequence[int], source: str
    ) -> AsyncGenerator[dict[str, Any]]:
        """Have a chunk in a slab for the time of the block; yield what a request says of it."""
        if len(chunk.encoded) > chunk.plaintext_bytes:
            raise ChunkDamaged(_NOT_EXPANDED)
        async with self.arena.slab(source) as slab:
            slab.write(0, chunk.encoded)
            place = [slab.offset, len(chunk.encoded), chunk.codec, chunk.plaintext_bytes]
            yield {"chunk": place, "pieces": list(pieces)}

    async def _ask_for_output(self, request: dict[str, Any], length: int, source: str) -> bytes:
        slot = self._least_busy(source)
        async with slot.turn(source) as parser:
            _check_expanded(await slot.ask_parser(parser, request, source))
            return parser.output.copy(length)

    async def _ask_chunk(
        self, request: dict[str, Any], source: str
    ) -> tuple[Sequence[bytes], list[Examined]]:
        """Return the digests of all pieces, and the verdicts on the first of the files."""
        answer = await self._least_busy(source).ask(request, source)
        _check_expanded(answer)
        files, found = request["files"], answer.get("found")
        if not isinstance(found, list) or len(found) > len(files) or (files and not found):
            raise ParserFailed
        return _digests(answer, request), [_from_json(value) for value in found]

    async def digest_laid_out(self, request: dict[str, Any], source: str) -> Sequence[bytes]:
        """Return the digests of the pieces of a chunk that a parser has failed on."""
        request = {**request, "files": ()}
        with suppress(ParserFailed):
            return (await self._ask_chunk(request, source))[0]
        try:
            return (await self._ask_chunk(request, source))[0]
        except ParserFailed as exc:
            raise ChunkDamaged(_NOT_EXPANDED) from exc

    async def _piece_again(self, request: dict[str, Any], source: str) -> Examined:
        """Examine one file in a chunk by a fresh parser."""
        try:
            return (await self._ask_chunk(request, source))[1][0]
        except ParserFailed as exc:
            return TOO_SLOW if exc.is_too_slow else FAILED

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
        with self._session(size, source) as session:
            yield LargeExamination(session)

    @asynccontextmanager
    async def spanning(
        self, size: int, source: str = OWN, *, is_dicom: bool = True
    ) -> AsyncGenerator["SpanningExamination"]:
        """Examine one file that spans chunks; one that is not DICOM is only digested."""
        with self._session(size, source) as session:
            yield SpanningExamination(self, session, is_dicom=is_dicom)

    @contextmanager
    def _session(self, size: int, source: str) -> Iterator["_Session"]:
        # Only the node's own work reaches the first parser: no peer's file can end it.
        slot = self._slots[0] if source == OWN else self._least_busy(source)
        session = _Session(self.arena, slot, next(self._sessions), size, source)
        try:
            yield session
        finally:
            slot.dropped.append(session.number)

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

    @asynccontextmanager
    async def turn(self, source: str, generation: int | None = None) -> AsyncGenerator[_Parser]:
        """Have the parser for the time of the block; with a `generation`, only that process.

        Raises:
            ParserFailed: that process is gone.
        """
        await self._turns.acquire(source)
        try:
            parser = await self.start()
            if generation is not None and generation != self.generation:
                raise ParserFailed
            yield parser
        finally:
            self._turns.release(source)

    async def ask(self, request: dict[str, Any], source: str, generation: int | None = None) -> Any:
        """Ask the parser in a turn of its own; see `turn`."""
        async with self.turn(source, generation) as parser:
            return await self.ask_parser(parser, request, source)

    async def ask_parser(self, parser: _Parser, request: dict[str, Any], source: str) -> Any:
        """Ask a parser whose turn one has."""
        dropped, self.dropped = self.dropped, []
        with self._charged(parser, source):
            return await self._ask(parser, {**request, "drop": dropped}, source)

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


class _Session:
    """The examination of one file in several requests, all by one parser."""

    def __init__(self, arena: Arena, slot: _Slot, number: int, size: int, source: str) -> None:
        self.arena = arena
        self.source = source
        self.number = number
        self.failure: Examined | None = None
        self._slot = slot
        self._size = size
        self._generation: int | None = None

    async def ask(self, request: dict[str, Any], *, is_last: bool) -> Any:
        """Ask the parser that has seen the file's beginning.

        Raises:
            ParserFailed: it is gone, or went; then `failure` says what counts as found.
        """
        asked = {
            **request,
            "session": self.number,
            "is_first": self._generation is None,
            "is_last": is_last,
            "size": self._size,
        }
        if self.failure is not None:
            raise ParserFailed
        try:
            answer = await self._slot.ask(asked, self.source, self._generation)
        except ParserFailed as exc:
            self.failure = TOO_SLOW if exc.is_too_slow else FAILED
            raise
        self._generation = self._slot.generation
        return answer if isinstance(answer, dict) else {}

    def failed(self) -> Examined:
        """Return what counts as found; nothing more is asked in this session."""
        self.failure = self.failure or FAILED
        return self.failure


class LargeExamination:
    """The examination of one large file in windows."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._skippable = self._passed = 0
        self._known = FAILED

    async def feed(self, window: bytes, *, is_last: bool) -> Examined:
        """Give the next bytes; the verdict stands with the last window, a refusal at once.

        Windows that lie whole inside one long value (pixel data, nearly always) are not shown
        to the parser at all: it would only step over them.
        """
        if self._session.failure is not None:
            return self._session.failure
        if len(window) <= self._skippable and not is_last:
            self._skippable -= len(window)
            self._passed += len(window)
            return self._known
        request: dict[str, Any] = {"passed": self._passed}
        try:
            async with self._session.arena.slab(self._session.source) as slab:
                await trio.to_thread.run_sync(slab.write, 0, window)
                request["window"] = [slab.offset, len(window)]
                answer = await self._session.ask(request, is_last=is_last)
                self._known, self._passed = _from_json(answer), 0
                self._skippable = _count(answer.get("skippable", 0))
                return self._known
        except ParserFailed:
            return self._session.failed()


class SpanningExamination:
    """The examination of one file that spans chunks, piece by piece."""

    def __init__(self, examiner: Examiner, session: _Session, *, is_dicom: bool) -> None:
        self._examiner = examiner
        self._session = session
        self._is_dicom = is_dicom

    async def feed(
        self, chunk: EncodedChunk, pieces: Sequence[int], piece: int, *, is_last: bool
    ) -> PieceFindings:
        """Give the next bytes as a piece of a chunk.

        Args:
            chunk: The chunk.
            pieces: The lengths of its pieces.
            piece: Which of them the next bytes are.
            is_last: Whether they are the last.

        Raises:
            ChunkDamaged: the chunk does not expand, or makes parsers fail.
        """
        source = self._session.source
        async with self._examiner.laid_out(chunk, pieces, source) as request:
            asked = {**request, "piece": piece, "is_dicom": self._is_dicom}
            try:
                answer = await self._session.ask(asked, is_last=is_last)
                _check_expanded(answer)
                examined = _from_json(answer.get("examined"))
                whole = _digest(answer.get("digest"))
                return PieceFindings(_digests(answer, request), examined, whole)
            except ParserFailed:
                # Was it the chunk, or the file in it?
                digests = await self._examiner.digest_laid_out(request, source)
                return PieceFindings(digests, self._session.failed())


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


def _check_expanded(answer: Any) -> None:
    if not isinstance(answer, dict):
        raise ParserFailed
    if answer.get("is_damaged") is True:
        raise ChunkDamaged(_NOT_EXPANDED)


def _digests(answer: Any, request: dict[str, Any]) -> Sequence[bytes]:
    found = answer.get("digests")
    if not isinstance(found, list) or len(found) != len(request["pieces"]):
        raise ParserFailed
    return [_digest(value) for value in found]


def _digest(value: Any) -> bytes:
    try:
        found = bytes.fromhex(value)
    except (TypeError, ValueError) as exc:
        raise ParserFailed from exc
    if len(found) != DIGEST_BYTES:
        raise ParserFailed
    return found


def _pixels(value: Any) -> Pixels | None:
    if value is None:
        return None
    return Pixels(**{name: _count(value[name]) for name in _PIXEL_FIELDS})


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**48:
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
            pixels=_pixels(value["pixels"]),
            references=tuple(
                str(name)[:_MAX_REFERENCE] for name in value["references"][:_MAX_REFERENCES]
            ),
            is_partial=value["is_partial"] is True,
            index={
                str(k)[:64]: str(v)[:256] for k, v in list(value["index"].items())[:_MOST_VALUES]
            },
            **texts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ParserFailed from exc
