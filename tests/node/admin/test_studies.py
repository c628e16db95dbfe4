"""Studies as people bring them in, search, look at and delete: recorded first, and nothing lost."""

from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.admin.v1 import admin_pb2 as pb
from trio.testing import wait_all_tasks_blocked

from node.admin import studies as studies_module
from node.admin.studies import StudyHandlers
from node.domain.catalogue import Found
from node.domain.held import HeldInstance
from node.domain.ids import PackageId
from node.domain.imports import UnfinishedImport
from node.domain.manifest import StudyInstanceUID
from node.domain.query import Level, Query, make_query
from node.domain.studies import Chosen, Deleted, Means, StudySource
from node.errors import (
    Conflict,
    DicomError,
    NotFound,
    PeerUnreachable,
    StoreError,
    StoreFull,
    UsageError,
)
from node.exchange.catalogue import Catalogue
from node.exchange.events import Events
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Progress, Summary
from node.exchange.ingest.waiting import WaitingImports
from node.exchange.studies import Studies
from node.rpc.bounds import parse
from node.rpc.serving import Service
from node.store.context import StoreContext
from node.store.imports import ImportStore
from tests.node.store.test_import_resumes import make_store
from tests.support.admin_services import AdminCall, Log, answer, answers, facilities_of, peer_of
from tests.support.catalogue import listed
from tests.support.dicom_files import make_instance, study_uid
from tests.support.examining import LocalExaminer
from tests.support.members import BILLINGS, HELENA, ME
from tests.support.recorded import Recorded, RecordedTrail

PEER = peer_of(BILLINGS, name="Billings")
UID = StudyInstanceUID("1.2.3")
CONTENT = make_instance(1, 1)


class Node:
    """The service of a node; `log` has what was called and written, in order."""

    def __init__(self, *, imports: Any = None, audit: Any = None, **answered: Any) -> None:
        rows: Any = Recorded(**({"note_shown": None, "note_queried": None} | answered))
        self.log: Log = rows.calls
        facilities = facilities_of(PEER)
        exports: Any = Recorded(export=None)
        self.exports: Recorded = exports
        self.service: Service = StudyHandlers(
            imports,
            WaitingImports(rows, audit or RecordedTrail(self.log)),
            Studies(rows, facilities),
            Catalogue(rows),
            exports,
            facilities,
        ).service()

    @property
    def names(self) -> list[str]:
        """What was called and written, in order."""
        return [name for name, _ in self.log]


def source(number: int = 1, **more: Any) -> StudySource:
    return StudySource(UID, BILLINGS.facility, number=number, **more)


def held(number: int) -> HeldInstance:
    return HeldInstance(number, 1, 0, ("flag",), "", 1.0, 5, "1.4", UID, BILLINGS.facility)


# -- searching and looking at ---------------------------------------------------------------------


async def test_studies_are_listed_by_words_and_the_search_is_recorded_first() -> None:
    node = Node(studies=[("1.2.3", BILLINGS.facility)], sources=[source(12)])
    request = pb.ListStudiesRequest(query="Müller 2026-11-24", limit=5, arrived_only=True)
    call = AdminCall(request, log=node.log)
    page = await answer(node.service, "ListStudies", call)
    (found,) = page.studies
    assert (found.number, found.origin_name, found.origin_pinned) == (12, "Billings", True)
    assert node.names == ["studies", "note_queried", "sources", "written"]
    query = Query(words=("muller", "20261124"), limit=5, arrived_only=True)
    assert node.log[0] == ("studies", (query,))
    assert node.log[1] == ("note_queried", (query, 1, call.actor))


async def test_study_of_an_origin_that_nobody_pinned_is_listed_without_a_name() -> None:
    own = StudySource(UID, ME.facility)
    other = StudySource(UID, HELENA.facility)
    node = Node(studies=[1, 2], sources=[own, other])
    page = await answer(node.service, "ListStudies", AdminCall(pb.ListStudiesRequest()))
    found = [(one.origin_name, one.origin_pinned) for one in page.studies]
    assert found == [("Great Falls", True), ("", False)]


async def test_very_many_studies_are_read_some_at_a_time() -> None:
    node = Node(studies=list(range(450)), sources=[source()])
    page = await answer(node.service, "ListStudies", AdminCall(pb.ListStudiesRequest()))
    asked = [studies for name, (studies, *_) in node.log if name == "sources"]
    assert max(map(len, asked)) <= 200
    assert [one for some in asked for one in some] == list(range(450))
    assert len(page.studies) == len(asked)


@pytest.mark.parametrize("method", ["ListStudies", "Query"])
async def test_search_that_cannot_be_recorded_shows_nothing(method: str) -> None:
    node = Node(studies=[1], find=[1], sources=[source()], note_queried=StoreError("full"))
    requests = {"ListStudies": pb.ListStudiesRequest(), "Query": pb.QueryRequest()}
    call = AdminCall(requests[method])
    with pytest.raises(StoreError):
        await answers(node.service, method, call)
    assert call.got == []
    assert "sources" not in node.names


async def test_query_is_by_keys_at_the_level_that_was_asked_for() -> None:
    found = Found(UID, BILLINGS.facility, 12, {"Modality": "CT", "SeriesDescription": ""})
    node = Node(find=[found])
    request = pb.QueryRequest(
        level="series",
        keys={"Modality": "CT", "PatientID": "P1"},
        words="doe",
        limit=5,
        offset=10,
        arrived_only=True,
    )
    call = AdminCall(request, log=node.log)
    page = await answer(node.service, "Query", call)
    assert [dict(one.values) for one in page.matches] == [{"Modality": "CT"}]
    assert node.names == ["find", "note_queried", "written"]
    (query,) = node.log[0][1]
    wanted = make_query(Level.SERIES, request.keys, ["doe"], limit=5, offset=10)
    assert (query.level, query.words, query.limit, query.offset) == ("series", ("doe",), 5, 10)
    assert query.arrived_only
    assert sorted(map(repr, query.criteria)) == sorted(map(repr, wanted.criteria))


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.QueryRequest(level="patient"), "a level is study, series or image"),
        (pb.QueryRequest(keys={"Modality": "CT"}), "search at that level"),
        (pb.QueryRequest(words="a " * 40), "at most 32 words"),
    ],
)
async def test_query_that_cannot_be_meant_is_answered_with_what_to_change(
    request_: pb.QueryRequest, reason: str
) -> None:
    node = Node(find=[])
    with pytest.raises(UsageError, match=reason):
        await answers(node.service, "Query", AdminCall(request_))
    assert node.log == []


@pytest.mark.parametrize("origin", [None, BILLINGS.facility])
async def test_study_is_shown_with_how_it_was_chosen_and_recorded_first(origin: Any) -> None:
    sources = [source(1), source(2)]
    node = Node(get=(Chosen(UID, Means.NUMBER, origin), sources))
    call = AdminCall(pb.GetStudyRequest(study="s1"), log=node.log)
    page = await answer(node.service, "GetStudy", call)
    assert (page.chosen_by, page.chosen_origin) == ("number", str(origin) if origin else "")
    assert [one.number for one in page.sources] == [1, 2]
    assert node.names == ["get", "note_shown", "written"]
    assert node.log[0] == ("get", ("s1",))
    assert node.log[1] == ("note_shown", (sources, call.actor))


@pytest.mark.parametrize(
    "answered",
    [
        {"get": (Chosen(UID, Means.UID), [source()]), "note_shown": StoreError("full")},
        {"get": NotFound("there is no study s1")},
    ],
)
async def test_study_that_is_not_there_or_cannot_be_recorded_is_not_shown(
    answered: dict[str, Any],
) -> None:
    call = AdminCall(pb.GetStudyRequest(study="s1"))
    with pytest.raises((StoreError, NotFound)):
        await answers(Node(**answered).service, "GetStudy", call)
    assert call.got == []


# -- deleting, exporting --------------------------------------------------------------------------


async def test_deletion_says_what_is_gone_and_what_is_left_of_the_study() -> None:
    left = [held(n) for n in range(150)]
    node = Node(delete=Deleted(2, 30, left, [4]))
    call = AdminCall(pb.DeleteStudyRequest(study="s1", origin="BILLINGS"))
    found = await answer(node.service, "DeleteStudy", call)
    assert node.log == [("delete", ("s1", str(BILLINGS.facility), call.actor))]
    assert (found.packages, found.instances, list(found.unfinished_imports)) == (2, 30, [4])
    assert [one.held_id for one in found.held] == list(range(100))
    assert found.held_instances == 150


async def test_study_that_is_being_sent_is_not_deleted_and_that_is_answered() -> None:
    node = Node(delete=Conflict("it is being sent"))
    with pytest.raises(Conflict, match="being sent"):
        await answer(node.service, "DeleteStudy", AdminCall(pb.DeleteStudyRequest(study="s1")))


async def test_export_answers_the_call_itself() -> None:
    node, call = Node(), AdminCall(pb.ExportStudyRequest(study="s1"))
    await answers(node.service, "ExportStudy", call)
    assert node.exports.calls == [("export", (call,))]


# -- what waits for a person ----------------------------------------------------------------------


async def test_held_instances_are_listed_with_their_senders_and_recorded_first() -> None:
    node = Node(list_held=[held(3), held(4)])
    call = AdminCall(pb.ListHeldRequest(), log=node.log)
    page = await answer(node.service, "ListHeld", call)
    found = [(one.held_id, one.received_from) for one in page.held]
    assert found == [(3, "Billings"), (4, "Billings")]
    assert node.names == ["list_held", "held.listed", "written"]
    assert node.log[1][1] == ({"held": 2}, call.actor)


async def test_imports_that_are_not_finished_are_listed_and_recorded_first() -> None:
    both = [UnfinishedImport(n, ("/cd",), "uid 5 (bob)", 1.0, "", []) for n in (7, 8)]
    node = Node(list_imports=list(zip(both, (True, False), strict=True)))
    call = AdminCall(pb.ListImportsRequest(), log=node.log)
    page = await answer(node.service, "ListImports", call)
    assert [(one.number, one.is_running) for one in page.imports] == [(7, True), (8, False)]
    assert node.names == ["list_imports", "imports.listed", "written"]


@pytest.mark.parametrize(
    ("method", "request_"),
    [("ListHeld", pb.ListHeldRequest()), ("ListImports", pb.ListImportsRequest())],
)
async def test_list_that_names_patients_and_cannot_be_recorded_is_not_shown(
    method: str, request_: Any
) -> None:
    fails: Any = Recorded(note_list=StoreError("full"))
    node = Node(list_held=[held(1)], list_imports=[], audit=fails)
    call = AdminCall(request_)
    with pytest.raises(StoreError):
        await answers(node.service, method, call)
    assert call.got == []


@pytest.mark.parametrize(("release", "package"), [(True, PackageId(b"p" * 32)), (False, None)])
async def test_held_instance_is_decided_as_the_person_said(release: bool, package: Any) -> None:
    node = Node(decide_held=package)
    call = AdminCall(pb.DecideHeldRequest(held_id=9, release=release))
    found = await answer(node.service, "DecideHeld", call)
    assert found.package_id == (str(package) if package else "")
    assert node.log == [("decide_held", (9, release, call.actor))]


async def test_unfinished_import_is_discarded_for_who_asked() -> None:
    node, call = Node(discard_import=3), AdminCall(pb.DiscardImportRequest(number=8))
    assert (await answer(node.service, "DiscardImport", call)).packages == 3
    assert node.log == [("discard_import", (8, call.actor))]


# -- importing, into a real store -----------------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


@pytest.fixture
def importing(context: StoreContext) -> Service:
    """The service of a node with a real store."""
    imports = Imports(ImportStore(context), LocalExaminer(), Events().publish)
    return Node(imports=imports).service


def paths(*named: Path, **more: Any) -> pb.ImportRequest:
    return pb.ImportRequest(paths=pb.ImportPaths(paths=map(str, named), **more))


def file(label: str, **more: Any) -> pb.ImportRequest:
    return pb.ImportRequest(file=pb.ImportFile(label=label, **more))


def data(content: bytes) -> pb.ImportRequest:
    return pb.ImportRequest(data=content)


def broken(reason: str) -> pb.ImportRequest:
    return pb.ImportRequest(broken=pb.ImportBroken(reason=reason))


CANCEL = pb.ImportRequest(cancel=pb.ImportCancel())


def events(got: list[Any], kind: str) -> list[Any]:
    return [getattr(m, kind) for m in got if m.HasField(kind)]


def labels(got: list[Any]) -> dict[str, str]:
    return {found.label: found.verdict for found in events(got, "finding")}


async def test_folder_is_imported_and_the_last_answer_says_what_came_of_it(
    importing: Service, context: StoreContext, tmp_path: Path
) -> None:
    folder = tmp_path / "cd"
    folder.mkdir()
    (folder / "IM1").write_bytes(CONTENT)
    (folder / "IM2").write_bytes(make_instance(2, 1))
    (folder / "readme.txt").write_text("a viewer")
    got = await answers(importing, "Import", AdminCall(paths(folder)))
    assert {Path(label).name: verdict for label, verdict in labels(got).items()} == {
        "readme.txt": "not-dicom"
    }
    summary = got[-1].summary
    assert (summary.carried, summary.not_dicom, summary.refused) == (2, 1, 0)
    uids = [uid for some in events(got, "studies") for uid in some.study_instance_uids]
    assert sorted(uids) == sorted([study_uid(1), study_uid(2)])
    assert {uid for uid, _ in await listed(context)} == set(uids)
    last = events(got, "progress")[-1]
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert (last.files_done, last.files_total) == (3, 3)
    assert (last.bytes_done, last.bytes_total) == (size, size)


async def test_streamed_files_are_imported_whole_from_their_parts(
    importing: Service, context: StoreContext
) -> None:
    requests = [file("a", size_bytes=len(CONTENT))]
    requests += [data(CONTENT[i : i + 100]) for i in range(0, len(CONTENT), 100)]
    requests += [file("empty"), file("b"), data(make_instance(1, 2))]
    got = await answers(importing, "Import", AdminCall(*requests))
    assert got[-1].summary.carried == 2
    assert list(labels(got)) == ["empty"]
    assert len(await listed(context)) == 1


async def test_file_that_the_client_cannot_read_on_is_refused_and_the_next_ones_go_on(
    importing: Service,
) -> None:
    requests = [
        file("cut"),
        data(CONTENT[:200]),
        broken("input/output error " * 100),
        file("lost"),
        broken("gone"),
        file("whole"),
        data(CONTENT),
    ]
    got = await answers(importing, "Import", AdminCall(*requests))
    assert labels(got) == {"cut": "refuse", "lost": "refuse"}
    reasons = [reason for found in events(got, "finding") for reason in found.reasons]
    assert [len(reason) for reason in reasons] == [200, 4]
    assert reasons[0].startswith("input/output error input")
    assert (got[-1].summary.carried, got[-1].summary.refused) == (1, 2)


async def test_import_that_is_given_up_leaves_nothing(
    importing: Service, context: StoreContext
) -> None:
    requests = [file("a"), data(CONTENT), file("b"), data(make_instance(1, 2)), CANCEL]
    got = await answers(importing, "Import", AdminCall(*requests))
    assert events(got, "summary") == []
    assert await listed(context) == []
    assert await ImportStore(context).list_imports() == []


# -- importing, as the job sees it ----------------------------------------------------------------


class Job:
    """An import that does with its files what the test says."""

    def __init__(self, does: Callable[[Any], Any]) -> None:
        self._does = does
        self.is_given_up = False
        self.asked: list[Any] = []
        self.report: Any = None

    def job(self, report: Any, actor: Any, *, sources: Any, resumes: int, wait_room: Any) -> "Job":
        assert callable(wait_room)
        self.report = report
        self.asked.append((actor, list(sources), resumes))
        return self

    def give_up(self) -> None:
        self.is_given_up = True

    async def run(self, files: Any) -> Summary:
        await self._does(files)
        return Summary(carried=7)

    run_streamed = run


async def all_windows(files: Any) -> list[tuple[str, int, list[bytes]]]:
    return [
        (label, size, [window async for window in windows]) async for label, size, windows in files
    ]


async def test_nothing_to_stream_is_an_import_of_nothing() -> None:
    assert await answers(Node().service, "Import", AdminCall()) == [
        pb.ImportResponse(summary=pb.ImportSummary())
    ]


async def test_paths_that_are_not_there_are_named_and_no_import_begins(tmp_path: Path) -> None:
    """The client then streams them itself, or reports why it cannot."""
    (tmp_path / "IM1").write_bytes(CONTENT)
    job = Job(all_windows)
    call = AdminCall(paths(tmp_path / "none", tmp_path / "IM1"))
    (only,) = await answers(Node(imports=job).service, "Import", call)
    assert list(only.unreadable.paths) == [str(tmp_path / "none")]
    assert job.asked == []


@pytest.mark.parametrize(
    ("path", "problem"),
    [("cd", "a path must be absolute"), ("/c\0d", "a path must not contain a NUL character")],
)
async def test_path_that_can_name_no_file_is_refused(
    tmp_path: Path, path: str, problem: str
) -> None:
    job = Job(all_windows)
    call = AdminCall(paths(tmp_path, Path(path)))
    with pytest.raises(UsageError, match=problem):
        await answers(Node(imports=job).service, "Import", call)
    assert (call.got, job.asked) == ([], [])


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([data(b"x")], "an import begins with paths or a file"),
        ([CANCEL], "an import begins with paths or a file"),
        ([pb.ImportRequest()], "an import begins with paths or a file"),
        ([file("a"), data(b"x"), paths(Path("/x"))], "a file's name must come before its bytes"),
        ([file("a"), data(b"x"), pb.ImportRequest()], "a file's name must come before its bytes"),
    ],
)
async def test_stream_in_another_order_is_refused_with_what_it_must_be(
    requests: list[Any], reason: str
) -> None:
    call = AdminCall(*requests)
    with pytest.raises(UsageError, match=reason):
        await answers(Node(imports=Job(all_windows)).service, "Import", call)
    assert events(call.got, "summary") == []


async def test_import_goes_on_with_what_the_person_named(tmp_path: Path) -> None:
    async def nothing(_: Any) -> None:
        await trio.lowlevel.checkpoint()

    job = Job(nothing)
    service = Node(imports=job).service
    call = AdminCall(paths(tmp_path, resumes=8))
    got = await answers(service, "Import", call)
    assert got[-1].summary.carried == 7
    await answers(service, "Import", AdminCall(file("a", sources=["/cd", "/usb"], resumes=9)))
    assert job.asked == [
        (call.actor, [str(tmp_path)], 8),
        (call.actor, ["/cd", "/usb"], 9),
    ]


async def test_streamed_file_comes_in_windows_of_which_only_the_last_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(studies_module, "WINDOW_BYTES", 1000)
    found: list[Any] = []

    async def reads(files: Any) -> None:
        found.extend(await all_windows(files))

    one, other = bytes(range(250)) * 14, b"y" * 1000
    requests = [
        file("one", size_bytes=3500),
        *(data(one[i : i + 300]) for i in range(0, 3500, 300)),
    ]
    requests += [file("other"), data(other), file("empty")]
    await answers(Node(imports=Job(reads)).service, "Import", AdminCall(*requests))
    assert [(label, size) for label, size, _ in found] == [
        ("one", 3500),
        ("other", 0),
        ("empty", 0),
    ]
    assert [list(map(len, windows)) for _, _, windows in found] == [
        [1000, 1000, 1000, 500],
        [1000],
        [],
    ]
    assert b"".join(found[0][2]) == one


@pytest.mark.parametrize("most", [0, 1])
async def test_bytes_that_nobody_wants_go_by_and_the_next_file_begins_at_its_own(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A file that is refused early is not read to its end."""
    monkeypatch.setattr(studies_module, "WINDOW_BYTES", 2)
    found: list[tuple[str, bytes]] = []

    async def reads(files: Any) -> None:
        async for label, _, windows in files:
            async with aclosing(windows):
                found.append((label, await anext(windows, b"") if most else b""))

    requests = [file("a"), *[data(b"aa")] * 3, broken("x"), file("b"), *[data(b"bb")] * 2]
    await answers(Node(imports=Job(reads)).service, "Import", AdminCall(*requests))
    assert found == [("a", b"aa"[: 2 * most]), ("b", b"bb"[: 2 * most])]


async def test_cancelled_import_of_paths_stops_at_once_and_is_given_up(tmp_path: Path) -> None:
    async def for_ever(_: Any) -> None:
        await trio.sleep_forever()

    job = Job(for_ever)
    got = await answers(Node(imports=job).service, "Import", AdminCall(paths(tmp_path), CANCEL))
    assert job.is_given_up
    assert events(got, "summary") == []


async def test_connection_that_breaks_gives_nothing_up(tmp_path: Path) -> None:
    """So that the import goes on when it is repeated."""

    class Breaks(AdminCall):
        async def read(self) -> Any:
            request = await super().read()
            if request is None:
                raise PeerUnreachable("the caller's connection is gone")
            return request

    async def reads(files: Any) -> None:
        await all_windows(files)

    async def for_ever(_: Any) -> None:
        await trio.sleep_forever()

    for does, requests in ((reads, [file("a"), data(b"x")]), (for_ever, [paths(tmp_path)])):
        job = Job(does)
        with pytest.raises(PeerUnreachable):
            await answers(Node(imports=job).service, "Import", Breaks(*requests))
        assert not job.is_given_up


async def test_progress_is_written_now_and_then_and_the_last_before_the_summary(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async def progresses(_: Any) -> None:
        for n in range(1, 101):
            job.report(Progress(n, 100, 10 * n, 1000))
            await wait_all_tasks_blocked()
            if n == 50:
                mock_clock.jump(0.3)

    job = Job(progresses)
    got = await answers(Node(imports=job).service, "Import", AdminCall(paths(tmp_path)))
    assert [p.files_done for p in events(got, "progress")] == [1, 51, 100]
    assert got[-2].progress.bytes_done == 1000
    assert got[-1].HasField("summary")


async def test_import_of_paths_goes_on_after_the_client_has_nothing_more_to_say(
    tmp_path: Path,
) -> None:
    ends = trio.Event()

    async def waits(_: Any) -> None:
        await ends.wait()

    call = AdminCall(paths(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answers, Node(imports=Job(waits)).service, "Import", call)
        await wait_all_tasks_blocked()
        assert events(call.got, "summary") == []
        ends.set()
    assert call.got[-1].summary.carried == 7


@pytest.mark.parametrize("error", [StoreFull("the disk is full"), DicomError("damaged")])
async def test_error_that_ends_an_import_is_answered_as_it_is(error: Exception) -> None:
    async def fails(_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    call = AdminCall(file("a"), data(b"x"))
    with pytest.raises(type(error), match=str(error)):
        await answers(Node(imports=Job(fails)).service, "Import", call)
    assert events(call.got, "summary") == []


def test_import_alone_takes_large_requests() -> None:
    service = Node().service
    assert set(service.bounds) == {"Import"}
    bound = service.bound("Import")
    largest = data(bytes(2**20)).SerializeToString()
    assert len(parse(pb.ImportRequest, largest, bound).data) == 2**20
    many = paths(*(Path(f"/media/cd/{n}") for n in range(5_000)))
    assert len(parse(pb.ImportRequest, many.SerializeToString(), bound).paths.paths) == 5_000
