"""What is given away is in the audit log before its first byte leaves, and only as was planned."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.domain.exports import Place
from node.domain.manifest import Extent
from node.errors import Conflict, NotFound, StoreError
from node.exchange.export.exports import Exports
from node.exchange.export.streams import ZeroedPreamble
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.exporting import Exporter, ExportPlan
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.attachments import put_package
from tests.support.dicom_files import make_instance, study_uid

ALICE = actor("alice")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


class Here:
    """A store with one study of two instances."""

    def __init__(self, context: StoreContext) -> None:
        self.context = context
        self.exports = Exports(Exporter(context, StudyStore(context)))

    async def plan(self) -> ExportPlan:
        return await self.exports.plan(study_uid(1), "", all_versions=False, include_held=False)

    async def logged(self) -> list[str]:
        """Return where exports went, by the audit log."""
        entries = await AuditStore(self.context).entries()
        return [
            json.loads(e.body)["destination"]
            for e in entries
            if "destination" in json.loads(e.body) and e.operator == ALICE.text
        ]


@pytest.fixture
async def here(context: StoreContext) -> Here:
    await put_package(context, 1, [])
    return Here(context)


async def test_scattered_bytes_make_the_files_that_were_planned(here: Here) -> None:
    plan = await here.plan()
    files = {name: bytearray(size) for name, size in plan.files}
    logged: list[bool] = []

    def sink(name: str, offset: int, piece: bytes | memoryview) -> None:
        sql = "SELECT count(*) FROM audit WHERE body LIKE '%/media/usb%'"
        count = here.context.database.read_sync(lambda db: db.execute(sql).fetchone()[0])
        logged.append(count == 1)
        files[name][offset : offset + len(piece)] = piece

    told: list[tuple[int, ...]] = []
    await here.exports.scatter(
        plan,
        sink,
        actor=ALICE,
        destination="/media/usb",
        safe_preamble=False,
        report=lambda *numbers: told.append(numbers),
    )
    assert sorted(map(bytes, files.values())) == sorted(make_instance(1, n) for n in (1, 2))
    assert logged
    assert all(logged), "a byte left before the log had it"
    assert told[-1] == (2, 2, plan.total_bytes, plan.total_bytes)


async def test_error_of_whoever_writes_ends_it_and_it_is_in_the_log_all_the_same(
    here: Here,
) -> None:
    def sink(name: str, offset: int, piece: bytes | memoryview) -> None:
        raise StoreError("the medium is full")

    with pytest.raises(ExceptionGroup) as raised:
        await here.exports.scatter(
            await here.plan(),
            sink,
            actor=ALICE,
            destination="/media/usb",
            safe_preamble=False,
            report=lambda *_: None,
        )
    assert raised.group_contains(StoreError, match="the medium is full")
    assert await here.logged() == ["/media/usb"]


async def test_stream_is_in_the_log_before_its_first_piece_and_comes_whole_and_in_order(
    here: Here,
) -> None:
    plan = await here.plan()
    found = [b""] * len(plan.files)
    async with here.exports.stream(plan, actor=ALICE, destination="a client") as pieces:
        assert await here.logged() == ["a client"]
        async for piece in pieces:
            assert piece.offset == len(found[piece.instance])
            found[piece.instance] += piece.data
    assert found == [make_instance(1, n) for n in (1, 2)]
    assert await here.logged() == ["a client"]


async def test_overlay_changes_the_instance_of_its_number_and_nothing_that_is_kept(
    here: Here,
) -> None:
    class Marked(ZeroedPreamble):
        def end(self) -> bytes:
            return b"changed"

    plan = await here.plan()
    plain = [make_instance(1, n) for n in (1, 2)]
    for is_changed in (True, False):
        found = [b"", b""]
        changes = {"overlay": lambda _: Marked()} if is_changed else {}
        stream = here.exports.stream(plan, actor=ALICE, destination="", **changes)
        async with stream as pieces:
            async for piece in pieces:
                found[piece.instance] += piece.data
        assert found == ([one + b"changed" for one in plain] if is_changed else plain)


async def test_what_cannot_be_streamed_is_not_said_to_have_left(here: Here) -> None:
    plan = await here.plan()
    plan.places = [Place(plan.places[0].package, [Extent(n % 9, n, 1)]) for n in range(500)]
    with pytest.raises(Conflict, match="spread over its chunks"):
        async with here.exports.stream(plan, actor=ALICE, destination="a client"):
            pytest.fail("nothing is to be given away")
    assert await here.logged() == []


async def test_study_that_nobody_has_is_not_planned(here: Here) -> None:
    with pytest.raises(NotFound):
        await here.exports.plan("1.2.3", "", all_versions=False, include_held=False)
    assert await here.logged() == []
