"""Files that are not DICOM: in a package, out of it again, byte for byte, and after a repair."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from node.domain.exports import attached_name
from node.domain.query import Query
from node.errors import StoreAway, StoreError, UsageError
from node.exchange.export.exports import Exports
from node.outside.export_folder import ExportFolder
from node.store import mending, package_rows, repair
from node.store.audit import AuditStore
from node.store.catalogue import CatalogueStore
from node.store.context import StoreContext
from node.store.exporting import Exporter
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.attachments import LARGE, REPORT, put_package
from tests.support.catalogue import listed
from tests.support.dicom_files import study_uid

ABOUT = ("1.2.3", "1.2.4")
ATTACHMENTS = [
    ("application/pdf", REPORT, ()),
    ("application/x-emix-test", LARGE, ABOUT),
    ("text/plain", b"ends well", ("1.2.3",)),
]
NAMES = [attached_name(n, kind) for n, (kind, _, _) in enumerate(ATTACHMENTS, 1)]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


async def export(context: StoreContext, folder: Path, *, safe_preamble: bool = False) -> None:
    exporter = Exporter(context, StudyStore(context))
    plan = await exporter.plan(study_uid(1), "", all_versions=False, include_held=False)
    with ExportFolder(folder, dict(plan.files)) as target:
        await exporter.export(
            plan,
            target.write,
            actor=actor("alice"),
            destination="",
            safe_preamble=safe_preamble,
            report=lambda *_: None,
        )
        target.publish()


@pytest.mark.parametrize("safe_preamble", [False, True])
async def test_attachments_come_out_as_they_went_in(
    context: StoreContext, tmp_path: Path, *, safe_preamble: bool
) -> None:
    package = await put_package(context, 1, ATTACHMENTS)
    manifest = context.database.read_sync(lambda db: package_rows.get_manifest(db, package, 0.0))
    assert [a.about for a in manifest.attachments] == [(), ABOUT, ("1.2.3",)]
    assert len(manifest.instances) == 2
    await export(context, tmp_path / "out", safe_preamble=safe_preamble)
    found = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").glob("*/*")}
    assert sorted(found) == sorted([*NAMES, "SE000001/IM000001", "SE000001/IM000002"])
    for name, (_, content, _) in zip(NAMES, ATTACHMENTS, strict=True):
        assert found[name].read_bytes() == content


async def test_attachments_are_in_an_ordered_stream(context: StoreContext) -> None:
    await put_package(context, 1, ATTACHMENTS)
    exporter = Exporter(context, StudyStore(context))
    plan = await exporter.plan(study_uid(1), "", all_versions=False, include_held=False)
    found = {name: b"" for name, _ in plan.files}
    async with Exports(exporter).stream(plan, actor=actor("alice"), destination="") as pieces:
        async for piece in pieces:
            found[plan.files[piece.instance][0]] += piece.data
    assert [found[name] for name in NAMES] == [content for _, content, _ in ATTACHMENTS]


async def test_package_may_have_attachments_only(context: StoreContext, tmp_path: Path) -> None:
    await put_package(context, 1, ATTACHMENTS[:1], instances=0)
    (source,) = await StudyStore(context).sources(await listed(context))
    assert (source.instances, source.plaintext_bytes) == (0, len(REPORT))
    (found,) = await CatalogueStore(context, AuditStore(context)).find(Query())
    assert found.values["NumberOfStudyRelatedInstances"] == "0"
    await export(context, tmp_path / "out")
    assert (tmp_path / "out" / NAMES[0]).read_bytes() == REPORT


class NoIndex:
    """Reads no values."""

    async def whole(self, _: bytes, places: object) -> list[dict[str, str]]:
        await trio.lowlevel.checkpoint()
        return [{} for _ in range(len(places))]  # type: ignore[arg-type]

    async def beginning(self, _: int, windows: object) -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        return {}


async def test_report_is_never_superfluous(context: StoreContext, tmp_path: Path) -> None:
    """Whatever images it comes with are whole elsewhere, too."""
    await put_package(context, 1, [])
    package = await put_package(context, 1, ATTACHMENTS[:1])
    alone = await put_package(context, 1, ATTACHMENTS[2:], instances=0)
    again = await put_package(context, 1, ATTACHMENTS[:1])
    superfluous = context.database.read_sync(
        lambda db: [mending.is_superfluous(db, p) for p in (package, alone)]
    )
    assert superfluous == [True, False]  # the first one's report is in another package, too
    context.database.write_sync(
        lambda db: db.execute("DELETE FROM packages WHERE id = ?", (again.id,))
    )
    assert not context.database.read_sync(lambda db: mending.is_superfluous(db, package))


async def test_report_that_is_lost_in_one_package_comes_from_another(
    context: StoreContext, tmp_path: Path
) -> None:
    for _ in range(2):
        await put_package(context, 1, ATTACHMENTS[:1])
    first = context.database.read_sync(
        lambda db: db.execute("SELECT extents FROM attachments ORDER BY package").fetchone()[0]
    )
    position = package_rows.unpack_extents(first)[0].chunk_index
    context.database.write_sync(
        lambda db: db.execute(
            "UPDATE chunks SET present = 0 WHERE package = 1 AND position = ?", (position,)
        )
    )
    await export(context, tmp_path / "out")
    assert (tmp_path / "out" / NAMES[0]).read_bytes() == REPORT


@pytest.mark.parametrize(
    ("media_type", "content", "about", "said"),
    [
        ("text/plain; charset=utf-8", REPORT, (), "media type"),
        ("text/plain", b"", (), "empty"),
        ("text/plain", REPORT, ("abc def",), "invalid UID"),
        ("text/plain", REPORT, ("1.2",) * 21, "too many series or instances"),
    ],
)
async def test_what_could_never_be_closed_is_not_attached(
    context: StoreContext, media_type: str, content: bytes, about: tuple[str, ...], said: str
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await put_package(context, 1, [(media_type, content, about)])
    assert caught.group_contains(UsageError, match=said)


async def test_repair_brings_attachments_back(context: StoreContext, tmp_path: Path) -> None:
    await put_package(context, 1, ATTACHMENTS)
    context.database.write_sync(lambda db: db.execute("DELETE FROM packages"))
    assert context.database.read_sync(
        lambda db: db.execute("SELECT COUNT(*) FROM attachments").fetchone()[0] == 0
    )
    (repaired,) = await repair.repair(context, NoIndex())
    assert (repaired.problem, repaired.missing_chunks) == ("", 0)
    await export(context, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_bytes() for name in NAMES] == [
        content for _, content, _ in ATTACHMENTS
    ]


async def test_package_is_repaired_later_where_its_chunks_cannot_be_read_now(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repaired without them, it would have lost what it is found by."""
    await put_package(context, 1, ATTACHMENTS)
    context.database.write_sync(lambda db: db.execute("DELETE FROM packages"))

    def fail(_: object) -> bytes:
        raise StoreAway("the server does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(context.storage, "get", fail)
        (failed,) = await repair.repair(context, NoIndex())
    assert failed.problem == "the server does not answer"
    (repaired,) = await repair.repair(context, NoIndex())
    assert (repaired.problem, repaired.missing_chunks) == ("", 0)


async def test_attachment_that_breaks_off_is_not_in_the_package(context: StoreContext) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield REPORT
        raise StoreError("the disk of whoever brings it")

    store = ImportStore(context)
    async with trio.open_nursery() as nursery:
        writer = await store.open_package(study_uid(1), nursery)
        with pytest.raises(StoreError):
            await writer.attach("application/pdf", broken())
        await writer.flush()
    assert context.database.read_sync(lambda db: package_rows.get_attachments(db, 1)) == ()
