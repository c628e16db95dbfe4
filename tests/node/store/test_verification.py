"""What was only sealed is opened, once, and what does not open is noted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.chunks.testing import MemoryChunkStorage
from node.errors import StoreAway
from node.store import package_rows, verification
from node.store.context import StoreContext
from node.store.lost import count_lost
from node.store.verification import Opened, Verification, count_unopened, note_opened
from tests.support.attachments import put_package
from tests.support.stores import new_store

REPORT = b"a report " * 1000


@pytest.fixture
def storage() -> MemoryChunkStorage:
    return MemoryChunkStorage()


@pytest.fixture
def context(tmp_path: Path, storage: MemoryChunkStorage) -> Iterator[StoreContext]:
    context = new_store(tmp_path / "home", storage)
    yield context
    context.close()


def unopened(context: StoreContext) -> int:
    return context.database.read_sync(count_unopened)


async def test_what_was_sealed_is_opened_once(context: StoreContext) -> None:
    for study in (1, 2):
        await put_package(context, study, [("text/plain", REPORT, ())])
    assert unopened(context) == 4
    found = Verification(context)
    assert await found.open_next() == Opened(2)
    assert unopened(context) == 2
    assert await found.open_next() == Opened(2)
    assert await found.open_next() == Opened()
    assert unopened(context) == 0


async def test_much_is_opened_a_few_at_a_time(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_AT_ONCE", 1)
    await put_package(context, 1, [("text/plain", REPORT, ())] * 3)
    found = Verification(context)
    assert [await found.open_next() for _ in range(5)] == [*[Opened(1)] * 4, Opened()]


@pytest.mark.parametrize("is_gone", [True, False])
async def test_chunk_that_does_not_open_is_noted_and_not_tried_again(
    context: StoreContext, storage: MemoryChunkStorage, *, is_gone: bool
) -> None:
    package = await put_package(context, 1, [("text/plain", REPORT, ())])
    first, _ = context.database.read_sync(lambda db: package_rows.get_chunks(db, package.id))
    damaged = bytes(first.sealed_bytes)
    storage.replace(first.chunk_id, None if is_gone else damaged)
    assert await Verification(context).open_next() == Opened(2, damaged=1)
    assert context.database.read_sync(count_lost) == 1
    assert await Verification(context).open_next() == Opened()
    assert unopened(context) == 0, "it is lost, which is counted apart"


async def test_place_that_is_away_makes_no_chunk_lost(
    context: StoreContext, storage: MemoryChunkStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> bytes:
        raise StoreAway("nobody answers")

    await put_package(context, 1, [])
    with monkeypatch.context() as broken:
        broken.setattr(storage, "get", away)
        with pytest.raises(StoreAway):
            await Verification(context).open_next()
    assert context.database.read_sync(count_lost) == 0
    assert await Verification(context).open_next() == Opened(1)


async def test_only_closed_packages_are_looked_at(context: StoreContext) -> None:
    package = await put_package(context, 1, [])
    context.database.write_sync(
        lambda db: db.execute("UPDATE packages SET state = 'open' WHERE id = ?", (package.id,))
    )
    assert await Verification(context).open_next() == Opened()
    assert unopened(context) == 0


async def test_noting_nothing_writes_nothing(context: StoreContext) -> None:
    package = await put_package(context, 1, [])
    note_opened(context, package.id, [])
    assert unopened(context) == 1
    note_opened(context, package.id, [0])
    assert unopened(context) == 0
