"""Importing archives and discs that mean harm: bounded, told, and ended when it is asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.dicom.examiner import open_examiner
from node.dicom.media import find_files
from node.exchange.importing import Finding, ImportJob, Progress, Summary
from node.store.context import StoreContext
from node.store.imports import ImportStore
from tests.dicom_files import make_instance
from tests.node.dicom.archives import claiming, zipped
from tests.node.store.test_import_resumes import make_store


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
        job = ImportJob(ImportStore(context), examiner, tell, "test")
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
