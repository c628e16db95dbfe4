"""Every file of an import is counted once, and told of if it was not carried."""

import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.domain.actors import NODE
from node.domain.verdicts import Verdict
from node.errors import DicomError
from node.exchange.events import Events
from node.exchange.ingest.intake import Intake
from node.exchange.ingest.job import Finding, ImportJob, Progress, Summary
from node.exchange.ingest.reading import WINDOW_BYTES
from node.store.context import StoreContext
from node.store.imports import ImportStore
from tests.cases.encoding import directory
from tests.node.store.test_import_resumes import make_store
from tests.support.dicom_files import make_instance, study_uid
from tests.support.examining import LocalExaminer
from tests.support.incoming import PlainFile

LARGE = make_instance(1, 9, size=1700)  # more than a window
assert len(LARGE) > WINDOW_BYTES


class File(PlainFile):
    """A file in memory, or one that cannot be read."""

    def __init__(self, label: str, content: bytes, problem: str = "") -> None:
        self.label = label
        self.size_bytes = len(content)
        self._content, self._problem = content, problem

    def open(self) -> BinaryIO:
        if self._problem:
            raise DicomError(self._problem)
        return BytesIO(self._content)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


class Import:
    """One import into a store, and what it told."""

    def __init__(self, context: StoreContext) -> None:
        self.findings: list[Finding] = []
        self.progress: list[Progress] = []
        intake = Intake(ImportStore(context), Events().publish, NODE, sources=["here"])
        self.job = ImportJob(intake, LocalExaminer(), self._tell)

    def _tell(self, event: Progress | Finding) -> None:
        if isinstance(event, Finding):
            self.findings.append(event)
        else:
            self.progress.append(event)

    @property
    def said(self) -> dict[str, tuple[Verdict, str]]:
        return {one.label: (one.verdict, "; ".join(one.reasons)) for one in self.findings}

    async def run(self, *files: File) -> Summary:
        with trio.fail_after(30):
            return await self.job.run(iter(files))


def packages(context: StoreContext) -> int:
    sql = "SELECT count(*) FROM packages"
    return int(context.database.read_sync(lambda db: db.execute(sql).fetchone())[0])


async def test_each_file_is_counted_once_and_told_of_if_it_was_not_carried(
    context: StoreContext,
) -> None:
    files = [
        File("a", make_instance(1, 1)),
        File("b", make_instance(2, 1)),
        File("again", make_instance(1, 1)),
        File("notes.txt", b"nothing of DICOM's"),
        File("scan.dcm", b"nothing of DICOM's"),
        File("cut", make_instance(1, 2)[:600]),
        File("locked", b"x" * 10, "it may not be read"),
        File("large", LARGE),
    ]
    one = Import(context)
    summary = await one.run(*files)
    assert (summary.carried, summary.known, summary.refused, summary.not_dicom) == (3, 1, 3, 1)
    assert summary.study_instance_uids == [study_uid(1), study_uid(2)]
    assert summary.plaintext_bytes == len(LARGE) + sum(len(make_instance(s, 1)) for s in (1, 2))
    assert one.said.keys() == {"notes.txt", "scan.dcm", "cut", "locked"}
    assert one.said["notes.txt"] == (Verdict.NOT_DICOM, "not DICOM")
    assert one.said["scan.dcm"] == (Verdict.REFUSE, "not DICOM, despite its name")
    assert one.said["locked"] == (Verdict.REFUSE, "it may not be read")
    last, size = one.progress[-1], sum(file.size_bytes for file in files)
    assert last == Progress(len(files), len(files), size, size)


async def test_same_files_again_make_no_package_and_are_told_to_be_known(
    context: StoreContext,
) -> None:
    files = [File("a", make_instance(1, 1)), File("b", make_instance(1, 2))]
    await Import(context).run(*files)
    before = packages(context)
    again = Import(context)
    summary = await again.run(*files)
    assert (summary.carried, summary.known, again.findings) == (0, 2, [])
    assert summary.study_instance_uids == [study_uid(1)]
    assert packages(context) == before


async def test_large_file_that_need_not_be_read_to_its_end_is_closed(
    context: StoreContext, recwarn: pytest.WarningsRecorder
) -> None:
    text = b"text" * len(LARGE)
    summary = await Import(context).run(File("large", LARGE))
    again = await Import(context).run(File("large", LARGE), File("text", text))
    assert (summary.carried, again.carried, again.known, again.not_dicom) == (1, 0, 1, 1)
    summary = await Import(context).job.run_streamed(streamed(("text", text)))
    assert summary.not_dicom == 1
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


async def test_import_of_nothing_is_no_error(context: StoreContext) -> None:
    assert await Import(context).run() == Summary()
    assert packages(context) == 0


async def test_what_a_dicomdir_names_is_missed_where_it_is_not_there(
    context: StoreContext,
) -> None:
    one = Import(context)
    summary = await one.run(
        File("/disc/DICOMDIR", directory(["IM1", "IM2", "IM3"])),
        File("/disc/IM1", make_instance(1, 1)),
        File("/disc/IM2", b"nothing of DICOM's"),
        File("/disc/viewer.exe", b"nothing of DICOM's"),
    )
    assert (summary.directories, summary.carried, summary.missing) == (1, 1, 1)
    assert one.said["/disc/IM3"][0] is Verdict.MISSING
    assert one.said["/disc/IM2"] == (Verdict.REFUSE, "not DICOM, though in a DICOMDIR")
    assert one.said["/disc/viewer.exe"][0] is Verdict.NOT_DICOM
    assert (summary.refused, summary.not_dicom) == (1, 1)


Streamed = tuple[str, int, AsyncGenerator[bytes]]


async def streamed(*files: tuple[str, bytes]) -> AsyncIterator[Streamed]:
    for label, content in files:
        yield label, len(content), windows_of(content)


async def windows_of(content: bytes) -> AsyncGenerator[bytes]:
    for i in range(0, len(content), WINDOW_BYTES):
        await trio.lowlevel.checkpoint()
        yield content[i : i + WINDOW_BYTES]


async def broken(content: bytes) -> AsyncGenerator[bytes]:
    yield content[:WINDOW_BYTES]
    yield content[WINDOW_BYTES:-1]
    raise DicomError("it cannot be read to its end")


async def test_streamed_files_are_taken_as_those_of_this_machine(context: StoreContext) -> None:
    one = Import(context)
    files = [("small", make_instance(1, 1)), ("large", LARGE), ("empty", b""), ("x.txt", b"text")]
    summary = await one.job.run_streamed(streamed(*files))
    assert (summary.carried, summary.not_dicom + summary.refused) == (2, 2)
    size = sum(len(content) for _, content in files)
    assert one.progress[-1] == Progress(4, 4, size, size)


async def test_large_file_that_breaks_off_leaves_nothing_and_the_others_are_carried(
    context: StoreContext,
) -> None:
    one = Import(context)

    async def files() -> AsyncIterator[Streamed]:
        yield "large", len(LARGE), broken(LARGE)
        yield "small", 1, windows_of(make_instance(2, 1))

    summary = await one.job.run_streamed(files())
    assert (summary.carried, summary.refused) == (1, 1)
    assert one.said["large"] == (Verdict.REFUSE, "it cannot be read to its end")
    assert packages(context) == 1
    again = Import(context)
    assert (await again.run(File("large", LARGE))).carried == 1


@pytest.mark.parametrize("gives_up", [True, False])
async def test_import_that_a_person_gives_up_keeps_nothing_and_one_that_is_stopped_goes_on(
    context: StoreContext, *, gives_up: bool
) -> None:
    one = Import(context)

    async def files() -> AsyncIterator[Streamed]:
        yield "small", 1, windows_of(make_instance(1, 1))
        if gives_up:
            one.job.give_up()
        scope.cancel()
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        await one.job.run_streamed(files())
    assert scope.cancelled_caught
    assert packages(context) == (0 if gives_up else 1)


async def test_no_batch_is_taken_before_whoever_is_told_has_room(context: StoreContext) -> None:
    has_room = trio.Event()
    told: list[Any] = []
    intake = Intake(ImportStore(context), Events().publish, NODE)
    asked = trio.Event()

    async def wait_room() -> None:
        asked.set()
        await has_room.wait()

    job = ImportJob(intake, LocalExaminer(), told.append, wait_room=wait_room)
    files = [File("a", make_instance(1, 1))]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job.run, iter(files))
            await asked.wait()
            await wait_all_tasks_blocked()
            assert told == []
            has_room.set()
    assert told
