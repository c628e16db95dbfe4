"""An import that ends before its time is seen, resumed, discarded, and never called whole."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.chunks.files import FileChunkStorage
from node.dicom.examiner import open_examiner
from node.dicom.media import find_files
from node.domain.ids import ChunkId
from node.domain.imports import UnfinishedImport
from node.errors import NotFound, StoreFull, ungrouped
from node.exchange.events import Events
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Finding, Progress, Summary
from node.store.context import StoreContext
from node.store.exporting import Exporter
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import Cut, CutImportStore, make_store
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.dicom_files import make_instance, study_uid, write_study


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


async def bring(store: ImportStore, folder: Path, *, resumes: int = 0) -> Summary:
    async with open_examiner(parsers=1) as examiner:
        imports = Imports(store, examiner, Events().publish)
        job = imports.job(lambda _: None, actor("test"), sources=[str(folder)], resumes=resumes)
        return await job.run(find_files(folder))


async def cut_off(context: StoreContext, folder: Path) -> None:
    """Import a folder, and end before anything is closed, as a kill would."""
    with suppress(Cut):
        await bring(CutImportStore(context), folder)


async def unfinished(context: StoreContext) -> list[UnfinishedImport]:
    """Return what is listed after a restart."""
    found = await ImportStore(context).list_imports()
    assert not any(is_running for _, is_running in found)
    return [one for one, _ in found]


async def test_import_that_was_cut_off_is_listed_and_its_like_resumes_it(
    context: StoreContext, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "cd", 1, 3)
    await cut_off(context, folder)
    (one,) = await unfinished(context)
    assert (one.sources, one.operator) == ((str(folder),), "test")
    assert [(s.study_uid, s.instances, s.patients[0].patient_id) for s in one.studies] == [
        (study_uid(1), 3, "P1")
    ]
    summary = await bring(ImportStore(context), folder)
    assert (summary.carried, summary.known) == (0, 3)
    assert not await unfinished(context)


async def test_import_that_was_cut_off_before_anything_was_recorded_leaves_nothing(
    context: StoreContext, tmp_path: Path
) -> None:
    """A package is opened before its first instance is recorded."""
    folder, killed = write_study(tmp_path / "cd", 1, 3), ImportStore(context)
    number = await killed.begin_import([str(folder)], actor("test"))
    async with trio.open_nursery() as nursery:
        await killed.open_package(study_uid(1), nursery, import_id=number)
        nursery.cancel_scope.cancel()
    assert [one.id for one in await unfinished(context)] == [number]
    assert (await bring(ImportStore(context), folder)).carried == 3
    assert not await unfinished(context)
    studies = StudyStore(context)
    (source,) = await studies.sources(await listed(context))
    assert source.unfinished_imports == []


async def test_one_file_of_a_half_import_makes_no_whole_study(
    context: StoreContext, tmp_path: Path
) -> None:
    await cut_off(context, write_study(tmp_path / "cd", 1, 3))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.dcm").write_bytes(make_instance(1, 1))
    summary = await bring(ImportStore(context), tmp_path / "one")
    assert (summary.carried, summary.flagged, summary.known) == (1, 0, 0)
    studies = StudyStore(context)
    (source,) = await studies.sources(await listed(context))
    (one,) = await unfinished(context)
    assert (source.instances, source.unfinished_imports) == (1, [one.id])
    plan = await Exporter(context, studies).plan(
        study_uid(1), "", all_versions=False, include_held=False
    )
    assert (len(plan.files), plan.unfinished_imports) == (1, [one.id])
    # The whole of it is one.
    await bring(ImportStore(context), tmp_path / "cd")
    (source,) = await studies.sources(await listed(context))
    assert (source.instances, source.unfinished_imports) == (3, [])


async def test_deletion_names_what_stays_of_the_study(
    context: StoreContext, tmp_path: Path
) -> None:
    await cut_off(context, write_study(tmp_path / "cd", 1, 3))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.dcm").write_bytes(make_instance(1, 1))
    (tmp_path / "one" / "2.dcm").write_bytes(b"MZ" + make_instance(1, 7)[2:])
    summary = await bring(ImportStore(context), tmp_path / "one")
    assert (summary.carried, summary.held) == (1, 1)
    deleted = await StudyStore(context).delete(study_uid(1), "", actor("test"))
    (one,) = await unfinished(context)
    (held,) = await ImportStore(context).list_held()
    assert (deleted.packages, deleted.instances) == (1, 1)
    assert [found.id for found in deleted.held] == [held.id]
    assert deleted.unfinished_imports == [one.id]
    with pytest.raises(NotFound, match=r"`emix imports` unfinished .*, `emix held` held"):
        await StudyStore(context).get(study_uid(1))


async def test_another_disc_of_the_study_in_the_same_drive_closes_nothing(
    context: StoreContext, tmp_path: Path
) -> None:
    drive = write_study(tmp_path / "drive", 1, 3)
    await cut_off(context, drive)
    for path in drive.iterdir():
        path.unlink()
    (drive / "9.dcm").write_bytes(make_instance(1, 9))
    await bring(ImportStore(context), drive)
    (one,) = await unfinished(context)
    assert [study.instances for study in one.studies] == [3]


async def test_what_is_elsewhere_now_is_resumed_by_its_number(
    context: StoreContext, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "cd", 1, 3)
    await cut_off(context, folder)
    (one,) = await unfinished(context)
    folder.rename(tmp_path / "cd1")
    summary = await bring(ImportStore(context), tmp_path / "cd1", resumes=one.id)
    assert (summary.carried, summary.known) == (0, 3)
    assert not await unfinished(context)
    with pytest.raises(NotFound, match=f"no import i{one.id}"):
        await bring(ImportStore(context), tmp_path / "cd1", resumes=one.id)


async def test_what_is_discarded_gives_its_room_back(context: StoreContext, tmp_path: Path) -> None:
    await cut_off(context, write_study(tmp_path / "cd", 1, 3))
    (one,) = await unfinished(context)
    assert chunks(tmp_path)
    store = ImportStore(context)
    assert await store.discard_import(one.id, actor("test")) == 1
    assert not chunks(tmp_path)
    assert not await unfinished(context)
    with pytest.raises(NotFound):
        await store.discard_import(one.id, actor("test"))


async def test_resumed_import_that_is_cancelled_keeps_what_it_had_before(
    context: StoreContext, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "cd", 1, 3)
    (folder / "2.dcm").write_bytes(make_instance(2, 1))
    await cut_off(context, folder)
    (before,) = await unfinished(context)
    there = chunks(tmp_path)
    (folder / "9.dcm").write_bytes(make_instance(1, 9))
    (folder / "3.dcm").write_bytes(make_instance(3, 1))
    with trio.CancelScope() as scope:
        async with open_examiner(parsers=1) as examiner:

            def tell(event: Progress | Finding) -> None:
                if isinstance(event, Progress) and event.files_done == 6:
                    job.give_up()
                    scope.cancel()

            imports = Imports(ImportStore(context), examiner, Events().publish)
            job = imports.job(tell, actor("test"), sources=[str(folder)])
            await job.run(find_files(folder))
    assert scope.cancelled_caught
    (after,) = await unfinished(context)
    assert (after.id, after.studies) == (before.id, before.studies)
    assert chunks(tmp_path) == there
    summary = await bring(ImportStore(context), folder)
    assert (summary.carried, summary.known) == (2, 4)
    assert not await unfinished(context)


class FullStorage(FileChunkStorage):
    """A disk that is full after some chunks."""

    left = 25

    def put(self, chunk_id: ChunkId, sealed: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreFull("the disk is full")
        super().put(chunk_id, sealed)


async def test_full_disk_gives_the_room_back(
    context: StoreContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_study(tmp_path / "cd", 1, 30, size=1400)
    full = replace(context, storage=FullStorage(tmp_path / "home" / "chunks", 0))
    monkeypatch.setattr("node.store.package_writer.BATCH_BYTES", 2**22)
    with pytest.raises(StoreFull), ungrouped():
        await bring(ImportStore(full), folder)
    assert not chunks(tmp_path)
    (one,) = await unfinished(context)
    assert (one.problem, one.studies) == ("the disk is full", [])
    assert (await bring(ImportStore(context), folder)).carried == 30
    assert not await unfinished(context)


async def test_import_that_runs_is_neither_resumed_nor_discarded(
    context: StoreContext, tmp_path: Path
) -> None:
    store = ImportStore(context)
    number = await store.begin_import(["/cd"], actor("first"))
    assert [runs for _, runs in await store.list_imports()] == [True]
    assert await store.begin_import(["/cd"], actor("second")) != number
    with pytest.raises(NotFound, match="is running"):
        await store.discard_import(number, actor("test"))
    with pytest.raises(NotFound, match="is running"):
        await store.begin_import(["/cd"], actor("third"), resumes=number)


def chunks(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "home" / "chunks").rglob("*") if path.is_file()]
