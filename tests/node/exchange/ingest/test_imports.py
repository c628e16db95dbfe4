"""Imports goes on with what an earlier one of the same sources, or of a number, left open."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from node.errors import NotFound, ungrouped
from node.exchange.events import Events
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Summary
from node.store.context import StoreContext
from node.store.imports import ImportStore
from tests.node.exchange.ingest.test_job import File
from tests.node.store.test_import_resumes import Cut, CutImportStore, make_store
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.dicom_files import make_instance
from tests.support.examining import LocalExaminer

FILES = [File(str(n), make_instance(1, n)) for n in (1, 2)]
ALICE = actor("alice")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


def imports(store: ImportStore) -> Imports:
    return Imports(store, LocalExaminer(), Events().publish)


async def cut_off(context: StoreContext, source: str) -> int:
    """Have an import cut off before it closes anything; return its number."""
    store = CutImportStore(context)
    with suppress(Cut), ungrouped():
        await imports(store).job(lambda _: None, ALICE, sources=[source]).run(iter(FILES))
    (found,) = await store.list_imports()
    unfinished, is_running = found
    assert not is_running
    return unfinished.id


async def test_import_of_the_same_sources_goes_on_in_what_was_left(context: StoreContext) -> None:
    await cut_off(context, "/disc")
    assert await listed(context) == []
    store = ImportStore(context)
    job = imports(store).job(lambda _: None, ALICE, sources=["/disc"])
    summary: Summary = await job.run(iter(FILES))
    assert (summary.carried, summary.known) == (0, 2)
    assert len(await listed(context)) == 1
    assert await store.list_imports() == []


async def test_import_of_other_sources_leaves_it_and_that_of_its_number_goes_on(
    context: StoreContext,
) -> None:
    number = await cut_off(context, "/disc")
    store = ImportStore(context)
    await imports(store).job(lambda _: None, ALICE, sources=["/other"]).run(iter(()))
    assert [one.id for one, _ in await store.list_imports()] == [number]
    await (
        imports(store).job(lambda _: None, ALICE, sources=["/usb"], resumes=number).run(iter(FILES))
    )
    assert await store.list_imports() == []
    assert len(await listed(context)) == 1


async def test_number_of_no_import_is_not_found(context: StoreContext) -> None:
    job = imports(ImportStore(context)).job(lambda _: None, ALICE, resumes=7)
    with pytest.raises(NotFound), ungrouped():
        await job.run(iter(FILES))
    assert await listed(context) == []


async def test_each_job_takes_files_of_its_own(context: StoreContext) -> None:
    made = imports(ImportStore(context))
    first, second = (made.job(lambda _: None, ALICE, sources=[name]) for name in "ab")
    assert (await first.run(iter(FILES[:1]))).carried == 1
    summary = await second.run(iter(FILES))
    assert (summary.carried, summary.known) == (1, 1)


async def test_job_asks_whoever_is_told_for_room(context: StoreContext) -> None:
    asked: list[None] = []

    async def wait_room() -> None:
        await trio.lowlevel.checkpoint()
        asked.append(None)

    job = imports(ImportStore(context)).job(lambda _: None, ALICE, wait_room=wait_room)
    assert (await job.run(iter(FILES))).carried == 2
    assert asked
