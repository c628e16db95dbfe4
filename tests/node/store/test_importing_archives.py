"""Importing archives and discs that mean harm: bounded, told, and ended when it is asked for."""

import gzip
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.abc import Instrument
from trio.testing import wait_all_tasks_blocked

from node.dicom.examiner import open_examiner
from node.dicom.media import MediaFile, find_files
from node.domain.verdicts import Verdict
from node.exchange.events import Events
from node.exchange.ingest import media_directories
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Finding, Progress, Summary
from node.exchange.ingest.reading import open_members
from node.store.context import StoreContext
from node.store.imports import ImportStore
from tests.cases.encoding import directory, without_item
from tests.node.dicom.archives import claiming, tarred, zipped
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.dicom_files import make_instance, study_uid


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


async def bring(context: StoreContext, path: Path) -> tuple[Summary, list[Finding], list[Progress]]:
    """Import a path; return its summary and what it told."""
    findings: list[Finding] = []
    progress: list[Progress] = []

    def tell(event: Progress | Finding) -> None:
        if isinstance(event, Finding):
            findings.append(event)
        else:
            progress.append(event)

    async with open_examiner(parsers=1) as examiner:
        imports = Imports(ImportStore(context), examiner, Events().publish)
        job = imports.job(tell, actor("test"))
        return await job.run(find_files(path)), findings, progress


async def test_bytes_are_counted_that_came_and_not_those_that_were_said(
    context: StoreContext, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.zip").write_bytes(claiming({str(n): 2**63 - 1 for n in range(3)}))
    (folder / "b.zip").write_bytes(claiming({str(n): 2**41 for n in range(3)}))
    image = make_instance(1, 1)
    (folder / "c.zip").write_bytes(zipped({"IM1": image}))
    summary, _, progress = await bring(context, folder)
    assert (summary.refused, summary.carried) == (6, 1)
    size = len(image) + sum(path.stat().st_size for path in folder.iterdir())
    last = progress[-1]
    assert (last.bytes_total, last.bytes_done) == (size, size)
    assert (last.files_total, last.files_done) == (10, 10)


async def test_archive_that_is_silent_for_long_is_left_at_once(tmp_path: Path) -> None:
    """Its process reads zeros behind the end of a tar, for many seconds."""
    path = tmp_path / "a.tar.gz"
    zeros = gzip.compress(bytes(64 * 2**20))
    path.write_bytes(tarred({"IM1": make_instance(1, 1)}, is_packed=True) + zeros * 100)
    is_ended = False

    async def read() -> None:
        nonlocal is_ended
        async with open_members(next(find_files(path))) as next_member:
            assert await next_member()
            is_first.set()
            assert await next_member() is None
            is_ended = True

    async with trio.open_nursery() as nursery:
        is_first = trio.Event()
        nursery.start_soon(read)
        await is_first.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not is_ended
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_many_small_files_of_an_archive_are_taken_while_others_come(
    context: StoreContext, tmp_path: Path
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({f"{n}.txt": b"text" for n in range(5000)}))
    summary, _, progress = await bring(context, path)
    assert summary.not_dicom == 5000
    first = next(told for told in progress if told.files_done)
    assert first.files_total < 4000


@pytest.mark.parametrize("is_large", [False, True])
async def test_damaged_dicomdir_is_told_and_what_it_names_is_looked_for(
    is_large: bool, context: StoreContext, tmp_path: Path
) -> None:
    names = [f"{n:0100d}" for n in range(60_000 if is_large else 3)]
    disc = tmp_path / "disc"
    disc.mkdir()
    made = without_item(directory(["IM1", "IM2", *names]), 3)
    (disc / "DICOMDIR").write_bytes(made)
    (disc / "IM1").write_bytes(make_instance(1, 1))
    summary, findings, _ = await bring(context, disc)
    assert (summary.carried, summary.refused, summary.missing) == (1, 1, 1)
    said = {Path(found.label).name: found for found in findings}
    assert said["IM2"].verdict == Verdict.MISSING
    assert said["DICOMDIR"].verdict == Verdict.REFUSE
    assert "damaged" in said["DICOMDIR"].reasons[0]


async def test_what_is_called_dicomdir_and_is_none_is_told(
    context: StoreContext, tmp_path: Path
) -> None:
    disc = tmp_path / "disc"
    disc.mkdir()
    (disc / "DICOMDIR").write_bytes(b"\xa7" * 5000)
    (disc / "IM1").write_bytes(make_instance(1, 1))
    summary, findings, _ = await bring(context, disc)
    assert (summary.carried, summary.refused, summary.not_dicom) == (1, 1, 0)
    assert findings[0].reasons == ("not DICOM, despite its name",)


async def test_disc_with_too_many_files_to_compare_says_so(
    context: StoreContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_directories, "MOST_KEPT", 2)
    disc = tmp_path / "disc"
    disc.mkdir()
    (disc / "DICOMDIR").write_bytes(directory(["IM1", "IM9"]))
    for number in (1, 2, 3):
        (disc / f"IM{number}").write_bytes(make_instance(1, number))
    summary, findings, _ = await bring(context, disc)
    assert (summary.carried, summary.refused, summary.missing) == (3, 1, 0)
    assert findings[0].label == str(disc / "DICOMDIR")
    assert "too many files to tell which are missing" in findings[0].reasons[0]


class Steps(Instrument):
    """The longest that a task computed at a stretch, in seconds."""

    def __init__(self) -> None:
        self.longest, self._begun = 0.0, time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, time.thread_time() - self._begun)


async def test_dicomdir_with_a_long_name_takes_no_long_turn_and_little_memory(
    context: StoreContext, tmp_path: Path
) -> None:
    path = tmp_path / "a.zip"
    names = [f"IM{n:05d}" for n in range(80_000)]
    path.write_bytes(zipped({"d" * 4000 + "/DICOMDIR": directory(names)}))
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    summary, findings, _ = await bring(context, path)
    assert (summary.directories, summary.missing) == (1, 80_000)
    assert sum(len(found.label) for found in findings) < 20 * 2**20
    assert steps.longest < 0.4


async def test_dicomdir_that_is_named_is_imported_with_what_it_names_and_nothing_else(
    context: StoreContext, tmp_path: Path
) -> None:
    disc = tmp_path / "disc"
    (disc / "DICOM").mkdir(parents=True)
    (disc / "DICOMDIR").write_bytes(directory(["DICOM\\IM1", "DICOM\\IM9"]))
    for number in (1, 2):
        (disc / "DICOM" / f"im{number}.dcm").write_bytes(make_instance(number, number))
    summary, findings, _ = await bring(context, disc / "DICOMDIR")
    assert (summary.carried, summary.directories, summary.missing) == (1, 1, 1)
    assert summary.study_instance_uids == [study_uid(1)]
    assert [found.label for found in findings] == [f"{disc}/DICOM/IM9"]


async def test_dicomdir_that_cannot_be_followed_is_refused_with_what_to_do(
    context: StoreContext, tmp_path: Path
) -> None:
    (tmp_path / "DICOMDIR").write_bytes(without_item(directory(["IM1", "IM2"]), 2))
    (tmp_path / "IM1").write_bytes(make_instance(1, 1))
    summary, (found,), _ = await bring(context, tmp_path / "DICOMDIR")
    assert (summary.carried, summary.refused, summary.missing) == (0, 1, 0)
    assert "name the folder instead" in found.reasons[0]


async def test_import_is_cancelled_at_once_whatever_looks_for_its_files(
    context: StoreContext,
) -> None:
    asked, is_over = threading.Event(), threading.Event()

    def files() -> Iterator[MediaFile]:
        asked.set()
        is_over.wait(20)
        yield from ()

    async with open_examiner(parsers=1) as examiner:
        imports = Imports(ImportStore(context), examiner, Events().publish)
        job = imports.job(lambda _: None, actor("test"))
        begun = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job.run, files())
            await trio.to_thread.run_sync(asked.wait)
            nursery.cancel_scope.cancel()
        is_over.set()
    assert time.monotonic() - begun < 15
