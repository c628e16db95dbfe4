"""What an export writes of a study: every image, the latest version of each, nothing unsaid."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.dicom.examiner import open_examiner
from node.dicom.media import find_files
from node.domain.manifest import InstanceEntry
from node.domain.studies import StudySource
from node.domain.versions import older_versions
from node.exchange.events import Events
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Finding, Summary
from node.store.context import StoreContext
from node.store.exporting import Exporter, ExportPlan
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.dicom_files import encode, make_dataset, make_instance, study_uid


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


async def bring(
    context: StoreContext, folder: Path, files: dict[str, bytes]
) -> tuple[Summary, list[str]]:
    """Import files in one import; return its summary and what it said."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    said: list[str] = []

    def tell(event: object) -> None:
        if isinstance(event, Finding):
            said.extend(event.reasons)

    async with open_examiner(parsers=1) as examiner:
        job = Imports(ImportStore(context), examiner, Events().publish).job(tell, actor("test"))
        return await job.run(find_files(folder)), said


async def exported(
    context: StoreContext, *, all_versions: bool = False, include_held: bool = False
) -> tuple[ExportPlan, dict[str, bytes]]:
    """Export the study 1 into memory."""
    exporter = Exporter(context, StudyStore(context))
    plan = await exporter.plan(
        study_uid(1), "", all_versions=all_versions, include_held=include_held
    )
    files = {name: bytearray(size) for name, size in plan.files}

    def sink(name: str, offset: int, piece: bytes | memoryview) -> None:
        files[name][offset : offset + len(piece)] = piece

    await exporter.export(
        plan, sink, actor=actor("test"), destination="", safe_preamble=False, report=lambda *_: None
    )
    return plan, {name: bytes(content) for name, content in files.items()}


async def source(context: StoreContext) -> StudySource:
    studies = StudyStore(context)
    (found,) = await studies.sources(await listed(context))
    return found


def image(series: int, content: str) -> bytes:
    """Return an image of the one SOP Instance UID."""
    ds = make_dataset(1, 1)
    ds.SeriesInstanceUID = f"{ds.StudyInstanceUID}.{series}"
    ds.PatientComments = content
    return encode(ds)


async def test_one_sop_instance_uid_in_two_series_is_two_images(
    context: StoreContext, tmp_path: Path
) -> None:
    files = {"1": image(1, "a"), "2": image(2, "b")}
    summary, said = await bring(context, tmp_path / "s", files)
    assert (summary.carried, summary.flagged) == (2, 1)
    assert said == ["another image of this import has the same SOP Instance UID; both are kept"]
    found = await source(context)
    assert (found.series, found.instances, found.versioned_instances) == (2, 2, 0)
    plan, written = await exported(context)
    assert sorted(written.values()) == sorted(files.values())
    assert plan.older_versions == 0


async def test_same_in_a_later_import_is_two_images_too(
    context: StoreContext, tmp_path: Path
) -> None:
    files = [image(1, "a"), image(2, "b")]
    await bring(context, tmp_path / "1", {"1": files[0]})
    _, said = await bring(context, tmp_path / "2", {"2": files[1]})
    assert said == ["an image of another series has the same SOP Instance UID; both are kept"]
    found = await source(context)
    assert (found.instances, found.versioned_instances) == (2, 0)
    _, written = await exported(context)
    assert sorted(written.values()) == sorted(files)


async def test_one_sop_instance_uid_several_times_in_one_import_is_so_many_images(
    context: StoreContext, tmp_path: Path
) -> None:
    files = {str(n): image(1, "x" * n) for n in range(3)}
    summary, _ = await bring(context, tmp_path / "s", files)
    assert (summary.carried, summary.flagged) == (3, 2)
    assert (await source(context)).instances == 3
    _, written = await exported(context)
    assert sorted(written.values()) == sorted(files.values())
    # Which of them a later one would replace nobody knows.
    await bring(context, tmp_path / "later", {"4": image(1, "later")})
    found = await source(context)
    assert (found.instances, found.versioned_instances) == (4, 0)
    assert len((await exported(context))[1]) == 4


async def test_older_version_is_left_out_with_a_word_or_named_as_one(
    context: StoreContext, tmp_path: Path
) -> None:
    old, new, other = image(1, "old"), image(1, "new"), make_instance(1, 2)
    await bring(context, tmp_path / "1", {"1": old, "2": other})
    _, said = await bring(context, tmp_path / "2", {"1": new})
    assert said == ["another version of an instance in the store; both are kept"]
    found = await source(context)
    assert (found.instances, found.versioned_instances) == (2, 1)
    plan, written = await exported(context)
    assert plan.older_versions == 1
    assert sorted(written.values()) == sorted([new, other])
    plan, written = await exported(context, all_versions=True)
    assert plan.older_versions == 0
    assert written["SE000001/OV000001"] == old
    assert sorted(written.values()) == sorted([old, new, other])


async def test_imported_instance_that_is_held_is_named_or_exported(
    context: StoreContext, tmp_path: Path
) -> None:
    held = b"MZ" + make_instance(1, 2)[2:]
    await bring(context, tmp_path / "s", {"1": make_instance(1, 1), "2": held})
    plan, written = await exported(context)
    assert [found.sop_instance_uid for found in plan.left_out] == [f"{study_uid(1)}.1.2"]
    assert len(written) == 1
    plan, written = await exported(context, include_held=True)
    assert (plan.left_out, len(plan.released)) == ([], 1)
    assert held in written.values()


def test_versions_are_decided_by_series_name_and_package() -> None:
    def entry(series: str, name: str, content: bytes) -> InstanceEntry:
        return InstanceEntry("", name, series, "", 1, content, ())  # type: ignore[arg-type]

    first = [entry("1", "a", b"old"), entry("1", "b", b"b"), entry("2", "a", b"other series")]
    twice = [entry("1", "c", b"c1"), entry("1", "c", b"c2")]
    last = [entry("1", "a", b"new"), entry("1", "c", b"c3"), entry("1", "b", b"b")]
    assert older_versions([first, twice, last]) == {b"old"}
    assert older_versions([last, twice, first]) == {b"new"}
