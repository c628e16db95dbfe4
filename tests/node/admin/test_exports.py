"""An export is answered with every byte or with an error, and leaves no half of a study behind."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.admin.v1 import admin_pb2 as pb
from trio.testing import wait_all_tasks_blocked

from node.admin import exports as exports_module
from node.admin.exports import Exporting
from node.dicom.dicomdir import NoDicomdir, Unlisted
from node.domain.exports import PREAMBLE_BYTES, is_attached
from node.domain.held import HeldInstance
from node.domain.ids import FacilityId
from node.errors import Conflict, NotFound, PeerUnreachable, StoreError, StoreFull, UsageError
from node.exchange.export.exports import Exports
from node.exchange.export.streams import Piece
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.exporting import Exporter
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store
from tests.support.admin_services import AdminCall, facilities_of, peer_of
from tests.support.attachments import REPORT, put_package
from tests.support.dicom_files import make_instance, study_uid
from tests.support.members import BILLINGS

INSTANCES = {f"SE000001/IM00000{n}": make_instance(1, n) for n in (1, 2)}
PEER = peer_of(BILLINGS, name="Billings")


@dataclass
class Plan:
    """An export of these files."""

    files: list[tuple[str, int]] = field(default_factory=lambda: [("SE000001/IM000001", 4)])
    left_out: list[HeldInstance] = field(default_factory=list)
    origin: FacilityId = BILLINGS.facility
    older_versions: int = 0
    unfinished_imports: tuple[int, ...] = ()
    attachments: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.files)


class Faked:
    """Exports a plan as the test has it."""

    def __init__(
        self,
        plan: Any = None,
        *,
        scatter: Callable[..., Any] | None = None,
        pieces: Callable[[], AsyncGenerator[Piece]] | None = None,
    ) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._plan = plan or Plan()
        self._scatter, self._pieces = scatter, pieces

    async def plan(self, study: str, origin: str, **more: Any) -> Any:
        self.calls.append(("plan", (study, origin, more)))
        if isinstance(self._plan, Exception):
            raise self._plan
        return self._plan

    async def scatter(self, _: Any, sink: Any, *, report: Any, **more: Any) -> None:
        self.calls.append(("scatter", more))
        if self._scatter:
            await self._scatter(sink, report)

    @asynccontextmanager
    async def stream(
        self, _: Any, *, overlay: Any, **more: Any
    ) -> AsyncGenerator[AsyncIterator[Piece]]:
        self.calls.append(("stream", more))
        assert self._pieces
        yield self._pieces()


async def export(exports: Any, call: AdminCall, home: Path = Path("/nowhere")) -> list[Any]:
    handed: Any = call
    await Exporting(exports, facilities_of(PEER), home).export(handed)
    return call.got


def to_folder(folder: Path, **more: Any) -> AdminCall:
    return AdminCall(pb.ExportStudyRequest(study=study_uid(1), directory=str(folder), **more))


def streamed(**more: Any) -> AdminCall:
    return AdminCall(pb.ExportStudyRequest(study=study_uid(1), stream=True, **more))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assembled(got: list[Any]) -> dict[str, bytes]:
    """Return the files that pieces make; none may overlap, and all must be there."""
    files: dict[str, bytearray] = {}
    seen: dict[str, int] = {}
    for piece in (m.piece for m in got if m.HasField("piece")):
        content = files.setdefault(piece.name, bytearray(piece.size))
        content[piece.offset : piece.offset + len(piece.data)] = piece.data
        seen[piece.name] = seen.get(piece.name, 0) + len(piece.data)
    assert seen == {name: len(content) for name, content in files.items()}
    return {name: bytes(content) for name, content in files.items()}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


@pytest.fixture
async def stored(context: StoreContext) -> Exports[Any]:
    """The exports of a store with one study: two instances and a report."""
    await put_package(context, 1, [("application/pdf", REPORT, ())])
    return Exports(Exporter(context, StudyStore(context)))


# -- into a folder --------------------------------------------------------------------------------


async def test_folder_has_every_byte_and_nothing_else_when_the_last_answer_is_there(
    stored: Exports[Any], context: StoreContext, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    call = to_folder(folder)
    first, *_, last = await export(stored, call)
    assert contents(folder) == INSTANCES | {"ATTACHED/AT000001.pdf": REPORT}
    total = sum(map(len, INSTANCES.values())) + len(REPORT)
    assert (first.instances_total, first.bytes_total, first.attachments) == (3, total, 1)
    assert (last.instances_done, last.bytes_done, last.bytes_total) == (3, total, total)
    assert first.origin == last.origin != ""
    (entry,) = [e for e in await AuditStore(context).entries() if e.operator == call.actor.text]
    assert str(folder) in entry.body


async def test_directory_that_can_name_no_folder_is_refused() -> None:
    faked = Faked()
    for directory in ("out", "", "../out", "/o\0ut"):
        with pytest.raises(UsageError, match=r"a path must (be absolute|not contain)"):
            await export(faked, to_folder(Path(directory)))
    assert faked.calls == []


@pytest.mark.parametrize("below", ["", "chunks/out", "new"])
async def test_nothing_is_exported_into_the_encrypted_home(tmp_path: Path, below: str) -> None:
    """Nor by a link into it."""
    home = tmp_path / "home"
    (home / "chunks").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    for folder in (home / below, tmp_path / "link" / below):
        with pytest.raises(UsageError, match="must not be inside the encrypted home"):
            await export(Faked(), to_folder(folder), home)
    assert sorted(path.name for path in home.rglob("*")) == ["chunks"]


async def test_folder_that_has_something_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(0o700)
    (tmp_path / "out" / "mine").write_bytes(b"precious")
    with pytest.raises(Conflict, match="is not empty"):
        await export(Faked(), to_folder(tmp_path / "out"))
    assert contents(tmp_path) == {"out/mine": b"precious"}


async def test_study_for_which_there_is_no_room_is_not_begun(tmp_path: Path) -> None:
    faked = Faked(Plan(files=[("SE000001/IM000001", 2**60)]))
    with pytest.raises(StoreFull):
        await export(faked, to_folder(tmp_path / "out"))
    assert [name for name, _ in faked.calls] == ["plan"]
    assert list(tmp_path.iterdir()) == []


async def test_study_that_nobody_has_makes_no_folder(tmp_path: Path) -> None:
    call = to_folder(tmp_path / "out")
    with pytest.raises(NotFound, match="no study"):
        await export(Faked(NotFound("no study is called so")), call)
    assert call.got == []
    assert list(tmp_path.iterdir()) == []


async def written(folder: Path, sink: Callable[..., None]) -> None:
    """Write half of what was planned; it is there, hidden."""
    await trio.to_thread.run_sync(sink, "SE000001/IM000001", 0, b"ab")
    assert list(contents(folder).values()) == [b"ab"]


@pytest.mark.parametrize("is_made", [True, False])
async def test_export_that_fails_leaves_nothing_behind(tmp_path: Path, is_made: bool) -> None:
    folder = tmp_path / "out"
    if not is_made:
        folder.mkdir(0o700)

    async def scatter(sink: Any, _: Any) -> None:
        await written(folder, sink)
        raise StoreError("a chunk is damaged")

    with pytest.raises(StoreError, match="a chunk is damaged"):
        await export(Faked(scatter=scatter), to_folder(folder))
    assert list(tmp_path.rglob("*")) == ([] if is_made else [folder])


async def test_export_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scatter(sink: Any, _: Any) -> None:
        await written(tmp_path / "out", sink)
        scope.cancel()
        await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        await export(Faked(scatter=scatter), to_folder(tmp_path / "out"))
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


async def test_export_whose_caller_leaves_leaves_nothing_behind(
    stored: Exports[Any], tmp_path: Path
) -> None:
    call = AdminCall(
        pb.ExportStudyRequest(study=study_uid(1), directory=str(tmp_path / "out")), leaves_after=1
    )
    with pytest.raises(PeerUnreachable):
        await export(stored, call)
    assert not (tmp_path / "out").exists()


# -- where the node may write ---------------------------------------------------------------------


def compared(folder: Path, above: Path) -> AdminCall:
    found = above.stat()
    return to_folder(folder, parent_device=found.st_dev, parent_inode=found.st_ino)


async def test_folder_is_written_where_the_caller_sees_the_same_one(
    stored: Exports[Any], tmp_path: Path
) -> None:
    got = await export(stored, compared(tmp_path / "out", tmp_path))
    assert not got[0].unwritable
    assert len(contents(tmp_path / "out")) == 3


async def test_folder_of_that_name_elsewhere_is_not_written(tmp_path: Path) -> None:
    """A caller in a container may mean another file system; it then writes itself."""
    (tmp_path / "seen").mkdir()
    faked = Faked()
    call = compared(tmp_path / "out", tmp_path / "seen")
    assert [m.unwritable for m in await export(faked, call)] == [True]
    assert faked.calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


async def test_caller_writes_itself_where_others_could_change_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    faked = Faked()
    got = await export(faked, compared(tmp_path / "out", tmp_path))
    assert [m.unwritable for m in got] == [True]
    assert faked.calls == []


async def test_caller_looks_itself_for_a_parent_that_is_not_there(tmp_path: Path) -> None:
    got = await export(Faked(), compared(tmp_path / "none" / "out", tmp_path))
    assert [m.unwritable for m in got] == [True]
    assert list(tmp_path.iterdir()) == []


# -- streamed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_order", [True, False])
async def test_stream_has_every_byte_and_the_log_has_what_the_client_said(
    stored: Exports[Any], context: StoreContext, in_order: bool
) -> None:
    call = streamed(in_order=in_order, directory="E:\\cd", dicomdir=True)
    got = await export(stored, call)
    assert assembled(got) == INSTANCES | {"ATTACHED/AT000001.pdf": REPORT}
    total = sum(map(len, INSTANCES.values())) + len(REPORT)
    assert (got[-1].instances_done, got[-1].instances_total) == (3, 3)
    assert (got[-1].bytes_done, got[-1].bytes_total) == (total, total)
    (entry,) = [e for e in await AuditStore(context).entries() if e.operator == call.actor.text]
    assert "streamed to the client, which says: E:" in entry.body


@pytest.mark.parametrize("in_order", [True, False])
async def test_safe_preamble_zeroes_that_of_instances_and_no_byte_of_a_report(
    stored: Exports[Any], in_order: bool
) -> None:
    found = assembled(await export(stored, streamed(in_order=in_order, safe_preamble=True)))
    assert found.pop("ATTACHED/AT000001.pdf") == REPORT
    assert found == {
        name: bytes(PREAMBLE_BYTES) + content[PREAMBLE_BYTES:]
        for name, content in INSTANCES.items()
    }


async def test_files_in_order_come_one_after_the_other_from_their_first_byte(
    stored: Exports[Any],
) -> None:
    got = await export(stored, streamed(in_order=True))
    pieces = [(m.piece.name, m.piece.offset) for m in got if m.HasField("piece")]
    assert [name for name, offset in pieces if not offset] == [*INSTANCES, "ATTACHED/AT000001.pdf"]
    assert is_attached(pieces[-1][0])


async def test_stream_is_given_to_users_for_whom_the_node_opens_no_paths(
    stored: Exports[Any],
) -> None:
    request = pb.ExportStudyRequest(study=study_uid(1), stream=True)
    assert len(assembled(await export(stored, AdminCall(request, uid=61_234)))) == 3


async def test_large_piece_is_sent_in_parts_that_every_client_takes() -> None:
    data = bytes(range(256)) * 20_000
    name = "SE000001/IM000001"

    async def scatter(sink: Any, _: Any) -> None:
        await trio.to_thread.run_sync(sink, name, 7, data)

    plan = Plan(files=[(name, len(data) + 7)])
    got = await export(Faked(plan, scatter=scatter), streamed())
    pieces = [m.piece for m in got if m.HasField("piece")]
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.offset for piece in pieces] == [7, 7 + 2 * 2**20, 7 + 4 * 2**20]
    assert {piece.size for piece in pieces} == {len(data) + 7}
    assert max(m.ByteSize() for m in got) < 4 * 2**20


async def test_error_in_the_middle_of_a_stream_is_its_end() -> None:
    async def pieces() -> AsyncGenerator[Piece]:
        yield Piece(0, 0, b"ab")
        await trio.lowlevel.checkpoint()
        raise StoreError("a chunk is damaged")

    call = streamed(in_order=True)
    with pytest.raises(StoreError, match="a chunk is damaged"):
        await export(Faked(pieces=pieces), call)
    assert not any(m.instances_done for m in call.got)


class Slow(AdminCall):
    """A caller that reads only when it is let."""

    def __init__(self, *requests: Any) -> None:
        super().__init__(*requests)
        self.reads = trio.Event()

    async def write(self, message: Any) -> None:
        if self.got:
            await self.reads.wait()
        await super().write(message)


async def test_stream_waits_for_a_caller_that_does_not_read() -> None:
    """What waits in memory is a few pieces, not the study."""
    made = 0

    async def pieces() -> AsyncGenerator[Piece]:
        nonlocal made
        for n in range(100):
            await trio.lowlevel.checkpoint()
            made += 1
            yield Piece(0, n, b"x")

    call = Slow(pb.ExportStudyRequest(study="s1", stream=True, in_order=True))
    plan = Plan(files=[("SE000001/IM000001", 100)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(export, Faked(plan, pieces=pieces), call)
        await wait_all_tasks_blocked()
        assert 1 <= made <= 12
        call.reads.set()
    assert assembled(call.got) == {"SE000001/IM000001": b"x" * 100}
    assert (call.got[-1].instances_done, call.got[-1].bytes_done) == (1, 100)


async def test_slow_caller_misses_some_of_the_progress_and_never_the_last() -> None:
    async def scatter(_: Any, report: Any) -> None:
        for n in range(1, 1001):
            report(n, 1000, 4 * n, 4000)

    call = Slow(pb.ExportStudyRequest(study="s1", stream=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(export, Faked(Plan(older_versions=2), scatter=scatter), call)
        await wait_all_tasks_blocked()
        call.reads.set()
    assert len(call.got) < 20
    last = call.got[-1]
    assert (last.instances_done, last.bytes_done) == (1000, 4000)
    assert (last.older_versions, last.origin) == (2, str(BILLINGS.facility))


# -- what is exported -----------------------------------------------------------------------------


async def test_plan_is_of_what_the_person_asked_for() -> None:
    faked = Faked()
    call = streamed(origin="billings", all_versions=True, include_held=True, safe_preamble=True)
    await export(faked, call)
    wanted = {"all_versions": True, "include_held": True}
    assert faked.calls[0] == ("plan", (study_uid(1), str(BILLINGS.facility), wanted))
    destination = "streamed to the client, which says: "
    assert faked.calls[1] == (
        "scatter",
        {"actor": call.actor, "destination": destination, "safe_preamble": True},
    )


def held(number: int) -> HeldInstance:
    return HeldInstance(
        number, 1, 0, ("other patient",), "", 1.0, 5, "1.4", "1.2", BILLINGS.facility
    )


async def test_what_is_left_out_is_named_before_anything_is_exported() -> None:
    plan = Plan(left_out=[held(3), held(4)], older_versions=5, unfinished_imports=(6, 7))
    first, one, other, *_ = await export(Faked(plan), streamed())
    assert (first.older_versions, list(first.unfinished_imports)) == (5, [6, 7])
    assert [m.held.held_id for m in (one, other)] == [3, 4]
    assert one.held.received_from == "Billings"


async def test_study_whose_instances_are_all_held_exports_nothing_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    faked = Faked(Plan(files=[], left_out=[held(3)]))
    call = to_folder(tmp_path / "out")
    with pytest.raises(Conflict, match=r"every instance is held.*See `emix held`"):
        await export(faked, call)
    assert [m.held.held_id for m in call.got[1:]] == [3]
    assert list(tmp_path.iterdir()) == []
    assert [name for name, _ in faked.calls] == ["plan"]


# -- the DICOMDIR ---------------------------------------------------------------------------------


async def whole(sink: Any, _: Any) -> None:
    await trio.to_thread.run_sync(sink, "SE000001/IM000001", 0, b"abcd")


async def with_dicomdir(
    monkeypatch: pytest.MonkeyPatch, folder: Path, result: Any
) -> tuple[list[Any], list[Any]]:
    """Export with a DICOMDIR that comes to a result; return the answers, and what it was of."""
    looked_at = []

    def write(partial_folder: Path) -> Any:
        looked_at.append((contents(partial_folder), (folder / "SE000001").exists()))
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(exports_module, "write_dicomdir", write)
    got = await export(Faked(scatter=whole), to_folder(folder, dicomdir=True))
    assert contents(folder) == {"SE000001/IM000001": b"abcd"}
    return got, looked_at


async def test_dicomdir_is_made_of_all_files_before_they_appear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unlisted = [Unlisted("SE000001/IM000001", "no PatientID")]
    got, looked_at = await with_dicomdir(monkeypatch, tmp_path / "out", unlisted)
    assert looked_at == [({"SE000001/IM000001": b"abcd"}, False)]
    (found,) = [m.unlisted for m in got if m.HasField("unlisted")]
    assert (found.name, found.reason) == ("SE000001/IM000001", "no PatientID")
    assert not any(m.without_dicomdir for m in got)


async def test_files_are_exported_where_no_dicomdir_can_be_made_and_that_is_answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    problem = NoDicomdir("none can be listed", [Unlisted("SE000001/IM000001", "no PatientID")])
    got, _ = await with_dicomdir(monkeypatch, tmp_path / "out", problem)
    assert [m.unlisted.name for m in got if m.HasField("unlisted")] == ["SE000001/IM000001"]
    assert [m.without_dicomdir for m in got].count(True) == 1
    assert not got[-1].without_dicomdir


async def test_no_dicomdir_is_made_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exports_module, "write_dicomdir", partial(pytest.fail, "nobody asked"))
    await export(Faked(scatter=whole), to_folder(tmp_path / "out"))
    assert contents(tmp_path / "out") == {"SE000001/IM000001": b"abcd"}
