"""A lost chunk is sealed again from other copies if that gives the very chunk, and else not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from node.chunks.testing import MemoryChunkStorage
from node.codec.kinds import Codec
from node.crypto.digests import digest
from node.dicom.examine import examine_bytes
from node.domain.actors import NODE
from node.domain.ids import ChunkId
from node.domain.packages import Package
from node.domain.verdicts import Examined, Verdict
from node.store import audit_rows, package_rows
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.lost import count_lost, note_lost
from node.store.mending import is_superfluous, mend_study
from tests.support.dicom_files import make_noisy_instance
from tests.support.stores import new_store

STUDY = "1.2"
FOUND = Examined(Verdict.CARRY, (), STUDY, "1.2.1", "1.2.1.1", "1.2.840", "1.2.840.1")
SMALL = [bytes([n]) * 300 for n in range(3)]
LARGE = bytes(range(256)) * 10


@pytest.fixture
def storage() -> MemoryChunkStorage:
    return MemoryChunkStorage()


@pytest.fixture
def context(tmp_path: Path, storage: MemoryChunkStorage) -> Iterator[StoreContext]:
    context = new_store(tmp_path, storage)
    yield context
    context.close()


async def put(
    context: StoreContext,
    contents: Sequence[bytes] = SMALL,
    *,
    window: int = 0,
    study: str = STUDY,
    closes: bool = True,
) -> Package:
    """Fill a package with instances: together in one chunk, or each in windows of its own."""
    store = ImportStore(context)
    async with trio.open_nursery() as nursery:
        writer = await store.open_package(study, nursery)
        for content in contents:
            if not window:
                await writer.add(FOUND, digest(content), content)
                continue
            large = writer.begin_large(None)
            for start in range(0, len(content), window):
                await large.add(content[start : start + window])
            await large.finish(FOUND)
        await writer.flush()
    if closes:
        await store.close_packages([writer.row_id], NODE)
    return context.database.read_sync(
        lambda db: package_rows.find_packages(db, "id = ?", (writer.row_id,))[0]
    )


def chunks(context: StoreContext, package: Package) -> list[ChunkId]:
    found = context.database.read_sync(partial(package_rows.get_chunks, package=package.id))
    return [entry.chunk_id for entry in found]


def lose(context: StoreContext, storage: MemoryChunkStorage, lost: ChunkId) -> bytes:
    content = storage.get(lost)
    storage.replace(lost, None)
    note_lost(context, [lost])
    return content


def mended(context: StoreContext) -> int:
    entries = context.database.read_sync(lambda db: list(audit_rows.entries(db)))
    return sum(entry.kind == "package.mended" for entry in entries)


async def test_lost_chunk_is_the_very_one_again(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    first, _ = await put(context), await put(context)
    (lost,) = chunks(context, first)
    content = lose(context, storage, lost)
    assert mend_study(context, STUDY) == 1
    assert storage.crashed().get(lost) == content, "durable"
    assert context.database.read_sync(count_lost) == 0
    assert mended(context) == 1
    assert mend_study(context, STUDY) == 0


async def test_pieces_come_from_copies_that_lie_in_other_windows(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    first = await put(context, [SMALL[0], LARGE, LARGE[::-1]], window=700)
    await put(context, [LARGE[::-1], LARGE], window=900)
    lost = chunks(context, first)[1:]
    contents = {chunk_id: lose(context, storage, chunk_id) for chunk_id in lost}
    assert mend_study(context, STUDY) == len(lost) > 6
    assert {chunk_id: storage.get(chunk_id) for chunk_id in lost} == contents
    assert mended(context) == 1, "once for a package"


@pytest.mark.parametrize("codec", [Codec.REGIONS, Codec.SMALL])
async def test_pixels_are_found_again_where_they_were(
    context: StoreContext, storage: MemoryChunkStorage, codec: Codec
) -> None:
    """What was sealed by rows is sealed by rows again, though no row here says where pixels lie."""
    files = [make_noisy_instance(1, n, size=512) for n in range(3)]
    store = ImportStore(context, is_small=codec is Codec.SMALL)

    async def fill(window: int) -> Package:
        async with trio.open_nursery() as nursery:
            writer = await store.open_package(STUDY, nursery)
            for file in files:
                found = examine_bytes(file)
                if not window:
                    await writer.add(found, digest(file), file)
                    continue
                large = writer.begin_large(found.pixels)
                for start in range(0, len(file), window):
                    await large.add(file[start : start + window])
                await large.finish(found)
            await writer.flush()
        return (await store.close_packages([writer.row_id], NODE))[writer.row_id]

    for window in (0, 200_000):
        package = await fill(window)
        store.use_compression(is_small=False)
        await fill(150_000)
        store.use_compression(is_small=codec is Codec.SMALL)
        lost = chunks(context, package)
        contents = {chunk_id: lose(context, storage, chunk_id) for chunk_id in lost}
        assert {content[6] for content in contents.values()} == {codec}
        assert mend_study(context, STUDY) == len(lost)
        assert {chunk_id: storage.get(chunk_id) for chunk_id in lost} == contents


async def test_what_an_import_has_not_closed_yet_mends(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    first = await put(context)
    await put(context, closes=False)
    lose(context, storage, chunks(context, first)[0])
    assert mend_study(context, STUDY) == 1


async def test_without_a_whole_copy_nothing_is_mended(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    first, _ = await put(context), await put(context, SMALL[:2])
    lose(context, storage, chunks(context, first)[0])
    assert mend_study(context, STUDY) == 0, "an instance of it is nowhere else"
    await put(context, SMALL[2:], study="1.3")
    assert mend_study(context, STUDY) == 1, "wherever it is"


async def test_copy_that_is_damaged_too_is_noted_and_another_is_taken(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    packages = [await put(context) for _ in range(3)]
    first, second, third = (chunks(context, package)[0] for package in packages)
    lose(context, storage, first)
    storage.replace(third, b"damaged")
    assert mend_study(context, STUDY) == 1
    assert context.database.read_sync(count_lost) == 1
    assert mend_study(context, STUDY) == 1, "and the copy is mended by what it was to mend"
    assert storage.size(second)


@pytest.mark.parametrize("column", ["pieces_digest", "chunk_id"])
async def test_what_gives_another_chunk_than_was_named_is_not_kept(
    context: StoreContext, storage: MemoryChunkStorage, column: str
) -> None:
    """As by another version of the codec: the copies stay in a package of their own."""
    first, _ = await put(context), await put(context)
    lose(context, storage, chunks(context, first)[0])
    sql = {
        "pieces_digest": "UPDATE chunks SET pieces_digest = ? WHERE package = ?",
        "chunk_id": "UPDATE chunks SET chunk_id = ? WHERE package = ?",
    }[column]
    context.database.write_sync(lambda db: db.execute(sql, (digest(b"other"), first.id)))
    before = list(storage.contents())
    assert mend_study(context, STUDY) == 0
    assert list(storage.contents()) == before
    assert mended(context) == 0


async def test_only_this_facilitys_packages_of_that_study_are_mended(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    theirs, other = await put(context), await put(context, study="1.3")
    await put(context)
    for package in (theirs, other):
        lose(context, storage, chunks(context, package)[0])
    context.database.write_sync(
        lambda db: db.execute("UPDATE packages SET origin = ? WHERE id = ?", (bytes(32), theirs.id))
    )
    assert mend_study(context, STUDY) == 0
    assert mend_study(context, "1.3") == 1


async def test_package_is_superfluous_if_all_of_it_is_whole_in_closed_ones_of_ours(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    package = await put(context, SMALL)

    def superfluous() -> bool:
        return context.database.read_sync(lambda db: is_superfluous(db, package))

    assert not superfluous()
    await put(context, SMALL[:2])
    await put(context, SMALL[2:], closes=False)
    assert not superfluous(), "an import that has not ended may be given up"
    last = await put(context, SMALL[2:])
    assert superfluous()
    theirs = replace(package, origin=replace(package.origin, digest=bytes(32)))
    assert not context.database.read_sync(lambda db: is_superfluous(db, theirs))
    lose(context, storage, chunks(context, last)[0])
    assert not superfluous()
