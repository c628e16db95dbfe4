"""Checking what arrives: in whatever order it comes, it ends; in order, nothing is opened twice."""

import random
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.crypto.digests import digest
from node.domain.ids import ChunkId, FacilityId, PackageId
from node.domain.index import SERIES_KEYWORDS, STUDY_KEYWORDS
from node.domain.manifest import (
    AttachmentEntry,
    ChunkEntry,
    Extent,
    InstanceEntry,
    Manifest,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from node.domain.verdicts import Examined, Verdict
from node.errors import BadManifest
from node.exchange.transfer import verifying
from node.exchange.transfer.verifying import Checker

CHUNK = 1000


class StubSlab:
    offset = 0

    def __init__(self, source: str) -> None:
        self.source = source

    def write(self, start: int, data: bytes) -> None:
        """Keep nothing."""


class StubExaminer:
    """Says of everything that it is the instance that the manifest names."""

    def __init__(self, found: Examined) -> None:
        self._found = found

    @property
    def arena(self) -> "StubExaminer":
        return self

    @asynccontextmanager
    async def slab(self, source: str = "") -> AsyncGenerator[StubSlab]:
        yield StubSlab(source)

    async def examine_files(self, _: object, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        await trio.lowlevel.checkpoint()
        return [self._found] * len(extents)

    @asynccontextmanager
    async def large(self, size: int, source: str = "") -> AsyncGenerator["StubExaminer"]:
        yield self

    async def feed(self, _: bytes, *, is_last: bool) -> Examined:
        for _step in range(20):  # slower than the chunks come
            await trio.lowlevel.checkpoint()
        return self._found


class WordyExaminer(StubExaminer):
    """Finds as much in each instance as an examination tells, and other words each time."""

    async def examine_files(self, _: object, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        await trio.lowlevel.checkpoint()
        return [replace(self._found, index=wordy_index()) for _ in extents]


def wordy_index() -> dict[str, str]:
    """Return values of an instance, as long as they come, and never the same."""
    words = {word: f"{random.getrandbits(64):x}".ljust(256, "語") for word in WORDS}
    return {**words, "SeriesInstanceUID": f"1.2.{random.getrandbits(64)}"}


WORDS = (*STUDY_KEYWORDS, *SERIES_KEYWORDS)


class LosingExaminer(StubExaminer):
    """Loses the first examination of a large instance in the middle, with its parser."""

    def __init__(self, found: Examined) -> None:
        super().__init__(found)
        self.begun = 0
        self._fed = 0

    @asynccontextmanager
    async def large(self, size: int, source: str = "") -> AsyncGenerator[StubExaminer]:
        self.begun, self._fed = self.begun + 1, 0
        yield self

    async def feed(self, _: bytes, *, is_last: bool) -> Examined:
        await trio.lowlevel.checkpoint()
        self._fed += 1
        return FAILED if self.begun == 1 and self._fed > 2 else self._found


FAILED = Examined(Verdict.REFUSE, ("the parser failed on it",), is_failure=True)
FOUND = Examined(Verdict.CARRY, (), "1.2", "1.2.1", "1.2.1.1", "1.2.840", "1.2.840.1")


def make_package(sizes: Sequence[int]) -> tuple[Manifest, list[bytes]]:
    """Return a manifest of instances laid end to end over chunks, and the chunks' plaintext."""
    content = random.Random(1).randbytes(sum(sizes))
    plaintexts = [content[i : i + CHUNK] for i in range(0, len(content), CHUNK)]
    instances, start = [], 0
    for size in sizes:
        extents, at = [], start
        while at < start + size:
            length = min(CHUNK - at % CHUNK, start + size - at)
            extents.append(Extent(at // CHUNK, at % CHUNK, length))
            at += length
        instances.append(
            InstanceEntry(
                SOPClassUID(FOUND.sop_class_uid),
                SOPInstanceUID(FOUND.sop_instance_uid),
                SeriesInstanceUID(FOUND.series_instance_uid),
                TransferSyntaxUID(FOUND.transfer_syntax_uid),
                size,
                digest(content[start : start + size]),
                tuple(extents),
            )
        )
        start += size
    chunks = tuple(
        ChunkEntry(n, ChunkId(digest(b"%d" % n)), len(p), len(p), digest(p))
        for n, p in enumerate(plaintexts)
    )
    study = StudyInstanceUID(FOUND.study_instance_uid)
    manifest = Manifest(
        PackageId(bytes(32)), FacilityId(bytes(32)), study, 1.0, tuple(instances), chunks
    )
    return manifest, plaintexts


def with_attachments(manifest: Manifest, count: int) -> Manifest:
    """Return a manifest whose last instances are files that are not DICOM."""
    kept = len(manifest.instances) - count
    attachments = tuple(
        AttachmentEntry("application/pdf", i.size_bytes, i.digest, i.extents)
        for i in manifest.instances[kept:]
    )
    return replace(manifest, instances=manifest.instances[:kept], attachments=attachments)


async def check(
    manifest: Manifest,
    plaintexts: Sequence[bytes],
    order: Sequence[int],
    in_hand: int,
    examiner: StubExaminer | None = None,
) -> int:
    """Check a package whose chunks come in some order; return how many were opened again."""
    reopened = 0

    async def reopen(position: int) -> bytes:
        nonlocal reopened
        reopened += 1
        data = plaintexts[position]
        await trio.lowlevel.checkpoint()
        return data

    checker = Checker(manifest, examiner or StubExaminer(FOUND), reopen, "peer")
    hands = trio.Semaphore(in_hand)

    async def add(position: int) -> None:
        try:
            await checker.add(position, plaintexts[position])
        finally:
            hands.release()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checker.follow)
            for position in order:
                await hands.acquire()
                nursery.start_soon(add, position)
    assert not checker._cache
    return reopened


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_CACHE_BYTES", 2 * CHUNK)


async def test_large_instance_that_comes_in_order_is_opened_once() -> None:
    manifest, plaintexts = make_package([50 * CHUNK])
    assert await check(manifest, plaintexts, range(50), in_hand=5) <= 1


async def test_large_instance_whose_parser_was_lost_is_examined_once_more() -> None:
    manifest, plaintexts = make_package([10 * CHUNK])
    examiner = LosingExaminer(FOUND)
    await check(manifest, plaintexts, range(10), in_hand=5, examiner=examiner)
    assert examiner.begun == 2


async def test_what_a_package_says_of_itself_takes_bounded_memory() -> None:
    manifest, plaintexts = make_package([1] * 4000)
    checker = Checker(manifest, WordyExaminer(FOUND), unwanted, "peer")
    tracemalloc.start()
    try:
        for position, plaintext in enumerate(plaintexts):
            await checker.add(position, plaintext)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8 * 2**20


async def unwanted(_: int) -> bytes:
    raise AssertionError


async def test_instance_with_other_bytes_is_refused() -> None:
    manifest, plaintexts = make_package([3 * CHUNK, 100])
    plaintexts[1] = bytes(CHUNK)
    with pytest.raises(BaseExceptionGroup) as caught:
        await check(manifest, plaintexts, range(4), in_hand=5)
    assert caught.group_contains(BadManifest, match="does not match its digest")


class CountingExaminer(StubExaminer):
    """Counts what it is shown."""

    def __init__(self) -> None:
        super().__init__(FOUND)
        self.shown = 0

    async def examine_files(self, _: object, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        self.shown += len(extents)
        return await super().examine_files(_, extents)

    @asynccontextmanager
    async def large(self, size: int, source: str = "") -> AsyncGenerator[StubExaminer]:
        self.shown += 1
        yield self


@pytest.mark.parametrize("damaged", [None, 0, 2])
async def test_attachments_are_digested_and_no_parser_sees_them(damaged: int | None) -> None:
    manifest, plaintexts = make_package([100, 150, 3 * CHUNK])
    manifest = with_attachments(manifest, 2)
    examiner = CountingExaminer()
    if damaged is None:
        await check(manifest, plaintexts, range(4), in_hand=5, examiner=examiner)
        assert examiner.shown == 1
        return
    plaintexts[damaged] = plaintexts[damaged][:240] + bytes(len(plaintexts[damaged]) - 240)
    with pytest.raises(BaseExceptionGroup) as caught:
        await check(manifest, plaintexts, range(4), in_hand=5, examiner=examiner)
    assert caught.group_contains(BadManifest, match="attachment does not match its digest")


@given(
    st.lists(st.integers(1, 6 * CHUNK), min_size=1, max_size=8),
    st.integers(0, 8),
    st.randoms(use_true_random=False),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_order_it_ends(
    sizes: list[int], attachments: int, shuffler: random.Random, in_hand: int
) -> None:
    manifest, plaintexts = make_package(sizes)
    manifest = with_attachments(manifest, min(attachments, len(sizes)))
    order = list(range(len(plaintexts)))
    shuffler.shuffle(order)
    # No bound is asserted: out of order, chunks are opened again rather than kept.
    trio.run(check, manifest, plaintexts, order, in_hand)
