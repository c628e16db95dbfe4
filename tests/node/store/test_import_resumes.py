"""An import that is cut off anywhere goes on when it is repeated, and hides nothing."""

import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from node.crypto.certificates import make_tls_identity
from node.crypto.keyring import RootKey, Secrets
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.dicom.examiner import Examiner, open_examiner
from node.dicom.media import find_files
from node.documents.signed import DocumentSigner, certify_node
from node.domain.ids import PackageId
from node.errors import StoreError
from node.exchange.importing import ImportJob, Summary
from node.store.context import StoreContext, open_store
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.dicom_files import study_uid, write_study


def make_store(home: Path) -> StoreContext:
    facility, node = SigningKey.new(), SigningKey.new()
    now = time.time()
    content = Secrets(
        node,
        (SealKey.new(),),
        (make_tls_identity(node_id(node.public), now),),
        {1: secrets.token_bytes(32)},
    )
    signer = DocumentSigner(node, certify_node(facility, node.public, now))
    return open_store(home, RootKey.new(), content, signer, reserve_bytes=0)


class Cut(StoreError):
    """Stands for a kill."""


class CutImportStore(ImportStore):
    """Ends before anything is closed, as a kill at that moment would."""

    async def close_packages(self, rows: Iterable[int], operator: str) -> list[PackageId]:
        raise Cut(f"{list(rows)} of {operator} stay open")


async def run_import(store: ImportStore, examiner: Examiner, folder: Path) -> Summary:
    job = ImportJob(store, examiner, lambda _: None, "test")
    return await job.run(find_files(folder))


@pytest.mark.parametrize("more", [0, 2])
async def test_import_cut_off_before_its_end_is_closed_when_repeated(
    tmp_path: Path, more: int
) -> None:
    context = make_store(tmp_path)
    try:
        folder = write_study(tmp_path / "s", 1, 3)
        async with open_examiner(parsers=1) as examiner:
            with suppress(Cut):
                await run_import(CutImportStore(context), examiner, folder)
            studies = StudyStore(context)
            assert not await studies.search()
            write_study(folder, 1, 3 + more)
            summary = await run_import(ImportStore(context), examiner, folder)
        assert (summary.carried, summary.known) == (more, 3)
        found = await studies.search()
        assert [s.study_uid for s in found] == [study_uid(1)]
        assert found[0].instances == 3 + more
    finally:
        context.close()
