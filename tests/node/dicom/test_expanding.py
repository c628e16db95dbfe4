"""Confined parsers expand chunks: what a failing one costs, and what a hostile one gets."""

import fcntl
import mmap
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from node.codec.encoding import encode
from node.codec.kinds import Codec
from node.crypto.digests import digest
from node.dicom import examiner as module
from node.dicom.arena import SLAB_BYTES, Output
from node.dicom.examine import examine_bytes
from node.dicom.examiner import Examiner, ParserFailed, _Parser, open_examiner
from node.domain.encoded import EncodedChunk
from node.domain.verdicts import Verdict
from node.errors import ChunkDamaged
from tests.node.codec.test_decoding import mutated, streams
from tests.support.dicom_files import make_instance

FILES = [make_instance(1, n, size=128) for n in range(1, 5)]
OTHER = b"a report that is not DICOM " * 100
PIECES = [*map(len, FILES), len(OTHER)]


def chunk_of(*files: bytes) -> EncodedChunk:
    codec, encoded = encode([(file, examine_bytes(file).pixels) for file in files])
    assert codec is Codec.REGIONS
    return EncodedChunk(codec, encoded, sum(map(len, files)))


CHUNK = chunk_of(*FILES, OTHER)


@asynccontextmanager
async def one_parser() -> AsyncGenerator[Examiner]:
    async with open_examiner(parsers=1) as examiner:
        yield examiner


def parser_of(examiner: Examiner) -> _Parser:
    parser = examiner._slots[0]._parser
    assert parser is not None
    return parser


async def check_chunk(examiner: Examiner, source: str = "") -> None:
    found = await examiner.examine_chunk(CHUNK, PIECES, range(4), source)
    assert found.digests == [digest(file) for file in (*FILES, OTHER)]
    assert found.examined == [examine_bytes(file) for file in FILES]


async def test_chunk_is_digested_and_its_files_are_examined() -> None:
    async with one_parser() as examiner:
        await check_chunk(examiner)
        found = await examiner.examine_chunk(CHUNK, PIECES, (3, 4))
        assert [one.verdict for one in found.examined] == [Verdict.CARRY, Verdict.NOT_DICOM]
        assert await examiner.digest_pieces(CHUNK, PIECES) == found.digests
        assert await examiner.expand(CHUNK) == b"".join((*FILES, OTHER))


async def test_stored_chunk_needs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    async with one_parser() as examiner:
        monkeypatch.setattr(_Parser, "ask", None)
        assert await examiner.expand(EncodedChunk(Codec.STORED, b"as it is", 8)) == b"as it is"


async def test_file_that_spans_chunks_is_examined_piece_by_piece() -> None:
    large = make_instance(3, 1, size=512)
    cuts = [large[start : start + 100_000] for start in range(0, len(large), 100_000)]
    async with one_parser() as examiner, examiner.spanning(len(large)) as examination:
        for n, cut in enumerate(cuts):
            chunk = chunk_of(FILES[0], cut)
            lengths, is_last = [len(FILES[0]), len(cut)], n == len(cuts) - 1
            found = await examination.feed(chunk, lengths, 1, is_last=is_last)
            assert found.digests == [digest(FILES[0]), digest(cut)]
            assert found.digest == digest(b"".join(cuts[: n + 1]))
        assert found.examined == examine_bytes(large)


async def test_pieces_that_are_stored_are_walked_over_too() -> None:
    """They lie in a slab, which is used again before the walk has left them."""
    noise = random.Random(1).randbytes(3000)
    large = make_instance(3, 1, size=64) + noise
    chunks = [EncodedChunk(Codec.STORED, p, len(p)) for p in (large[:700], large[700:])]
    async with one_parser() as examiner, examiner.spanning(len(large)) as examination:
        first = await examination.feed(chunks[0], [700], 0, is_last=False)
        await examiner.digest_pieces(EncodedChunk(Codec.STORED, noise, 3000), [3000])
        last = await examination.feed(chunks[1], [len(large) - 700], 0, is_last=True)
    assert not first.examined.is_failure
    assert last.examined == examine_bytes(large)
    assert last.digest == digest(large)


async def test_attachment_that_spans_chunks_is_digested_and_not_looked_at() -> None:
    async with one_parser() as examiner, examiner.spanning(9, is_dicom=False) as examination:
        for n, part in enumerate((b"one", b"two", b"end")):
            chunk = EncodedChunk(Codec.STORED, part, 3)
            found = await examination.feed(chunk, [3], 0, is_last=n == 2)
    assert found.digest == digest(b"onetwoend")
    assert not found.examined.is_instance


async def test_damaged_chunk_is_an_error_of_that_chunk() -> None:
    async with one_parser() as examiner:
        pid = parser_of(examiner)._process.pid
        for broken in (
            EncodedChunk(CHUNK.codec, CHUNK.encoded[:-1], CHUNK.plaintext_bytes),
            EncodedChunk(CHUNK.codec, CHUNK.encoded, CHUNK.plaintext_bytes - 1),
            EncodedChunk(Codec.STORED, CHUNK.encoded, CHUNK.plaintext_bytes),
            EncodedChunk(Codec.SHUFFLED, CHUNK.encoded, CHUNK.plaintext_bytes),
            EncodedChunk(Codec.STORED, bytes(SLAB_BYTES + 1), SLAB_BYTES),
        ):
            with pytest.raises(ChunkDamaged):
                await examiner.examine_chunk(broken, PIECES, ())
            with pytest.raises(ChunkDamaged):
                await examiner.expand(broken)
            async with examiner.spanning(100) as examination:
                with pytest.raises(ChunkDamaged):
                    await examination.feed(broken, PIECES, 0, is_last=True)
        await check_chunk(examiner)
        assert parser_of(examiner)._process.pid == pid, "and of nothing else"


@pytest.mark.parametrize("is_killed", [True, False])
async def test_parser_that_died_or_hangs_costs_a_retry(
    monkeypatch: pytest.MonkeyPatch, *, is_killed: bool
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    async with one_parser() as examiner:
        for work in (
            check_chunk,
            lambda e: e.expand(CHUNK),
            lambda e: e.digest_pieces(CHUNK, PIECES),
        ):
            pid = parser_of(examiner)._process.pid
            os.kill(pid, signal.SIGKILL if is_killed else signal.SIGSTOP)
            await work(examiner)
            assert parser_of(examiner)._process.pid != pid


async def test_parser_that_is_lost_in_the_middle_of_a_file_loses_the_walk_only() -> None:
    async with one_parser() as examiner, examiner.spanning(sum(PIECES)) as examination:
        assert (await examination.feed(CHUNK, PIECES, 0, is_last=False)).digest
        os.kill(parser_of(examiner)._process.pid, signal.SIGKILL)
        for _ in range(2):
            found = await examination.feed(CHUNK, PIECES, 1, is_last=False)
            assert (found.examined.is_failure, found.digest) == (True, b"")
            assert found.digests == [digest(file) for file in (*FILES, OTHER)]


def failing(is_fatal: Callable[[dict[str, Any]], bool], asked: list[dict[str, Any]]) -> Any:
    """Return what stands for `_Parser.ask`: some requests end the parser."""
    plain = _Parser.ask

    async def ask(self: _Parser, request: dict[str, Any]) -> Any:
        asked.append(request)
        if is_fatal(request):
            self._process.kill()
        return await plain(self, request)

    return ask


async def test_chunk_that_ends_every_parser_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    async with one_parser() as examiner:
        monkeypatch.setattr(_Parser, "ask", failing(lambda r: "chunk" in r, asked))
        with pytest.raises(ChunkDamaged):
            await examiner.examine_chunk(CHUNK, PIECES, range(4))
        with pytest.raises(ChunkDamaged):
            await examiner.expand(CHUNK)
        async with examiner.spanning(100) as examination:
            with pytest.raises(ChunkDamaged):
                await examination.feed(CHUNK, PIECES, 0, is_last=True)
    assert len(asked) == 8, "three tries at most, however many files are in it"


async def test_file_that_ends_every_parser_spares_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one_parser() as examiner:
        monkeypatch.setattr(_Parser, "ask", failing(lambda r: 2 in r.get("files", ()), []))
        found = await examiner.examine_chunk(CHUNK, PIECES, range(4))
    assert [one.is_failure for one in found.examined] == [False, False, True, False]
    assert found.digests == [digest(file) for file in (*FILES, OTHER)]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"digests": ["00" * 32] * 4, "found": [{}] * 4},
        {"digests": ["00" * 31] * 5, "found": []},
        {"digests": [1] * 5, "found": []},
        {"digests": ["zz" * 32] * 5, "found": []},
        {"digests": ["00" * 32] * 5, "found": []},
        {"digests": ["00" * 32] * 5, "found": [{"verdict": "carry"}]},
        {"digests": ["00" * 32] * 5, "found": "carry"},
    ],
)
async def test_nonsense_of_a_parser_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    async def ask(self: _Parser, request: dict[str, Any]) -> object:
        return answer

    async with one_parser() as examiner:
        monkeypatch.setattr(_Parser, "ask", ask)
        with pytest.raises(ParserFailed):
            await examiner._ask_chunk({"pieces": PIECES, "files": [0]}, "")


def test_parser_can_neither_cut_its_output_nor_lengthen_it() -> None:
    output = Output()
    try:
        theirs = os.dup(output.fd)
        with mmap.mmap(theirs, SLAB_BYTES) as written:
            written[:6] = b"theirs"
        assert output.copy(6) == b"theirs"
        for size in (0, 2 * SLAB_BYTES):
            with pytest.raises(PermissionError):
                os.ftruncate(theirs, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(theirs, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        os.close(theirs)
    finally:
        output.close()


async def test_parser_sees_no_output_but_its_own() -> None:
    async with open_examiner(parsers=3) as examiner:
        for slot in examiner._slots:
            assert slot._parser is not None
            maps = Path(f"/proc/{slot._parser._process.pid}/maps").read_text()
            assert maps.count("/memfd:emix-output") == 1
            assert maps.count("/memfd:emix-arena") == 1
        inodes = {os.fstat(slot._parser.output.fd).st_ino for slot in examiner._slots}  # type: ignore[union-attr]
        assert len(inodes) == 3


async def expand_changed(codec: Codec, count: int, seed: int) -> tuple[int, float, float]:
    """Have one parser expand changed streams; none of them may end it.

    Returns:
        How many were errors of their chunks, the seconds of the slowest, and the parser's peak
        memory in MiB.
    """
    chance, originals = random.Random(seed), streams(codec, 60)
    failed, slowest = 0, 0.0
    async with one_parser() as examiner:
        pid = parser_of(examiner)._process.pid
        for _ in range(count):
            encoded, size = chance.choice(originals)
            chunk = EncodedChunk(codec, mutated(chance, encoded)[:size], size)
            begun = time.monotonic()
            try:
                await examiner.digest_pieces(chunk, [size])
            except ChunkDamaged:
                failed += 1
            slowest = max(slowest, time.monotonic() - begun)
        status = Path(f"/proc/{pid}/status").read_text()
        assert parser_of(examiner)._process.pid == pid
    return failed, slowest, int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize("codec", [Codec.SHUFFLED, Codec.REGIONS, Codec.SMALL])
async def test_10_000_changed_streams_are_errors_of_their_chunks(codec: Codec) -> None:
    """Each within its time, and the parser within its memory."""
    failed, slowest, peak = await expand_changed(codec, 10_000, seed=9)
    assert failed > 2_000
    assert slowest < 5, "a parser may compute five seconds, and more by the size"
    assert peak < 150, "MiB"


def test_pieces_of_these_tests_are_what_they_say() -> None:
    assert list(accumulate(PIECES))[-1] == CHUNK.plaintext_bytes
