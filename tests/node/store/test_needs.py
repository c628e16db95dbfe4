"""A home whose chunks cannot be opened here is not opened; a package says what opening it takes."""

from pathlib import Path

import pytest
import trio

from node.codec import jpeg_ls
from node.crypto.digests import digest
from node.dicom.examine import examine_bytes
from node.documents.manifest import open_manifest
from node.documents.signed import Document
from node.domain.actors import NODE
from node.domain.capabilities import Capability
from node.errors import StoreError
from node.store import package_rows
from node.store.context import StoreContext, open_store
from node.store.imports import ImportStore
from node.store.needs import installed
from tests.support.dicom_files import make_noisy_instance
from tests.support.stores import ROOT_KEY, new_store


async def fill(context: StoreContext, *, is_small: bool) -> tuple[str, ...]:
    """Import an instance; return what its package's manifest says that opening it takes."""
    store = ImportStore(context, is_small=is_small)
    file = make_noisy_instance(1, 1)
    async with trio.open_nursery() as nursery:
        writer = await store.open_package("1.2", nursery)
        await writer.add(examine_bytes(file), digest(file), file)
        await writer.flush()
    package = (await store.close_packages([writer.row_id], NODE))[writer.row_id]
    kept = context.database.read_sync(lambda db: package_rows.manifest_document(db, package.id))
    manifest = open_manifest(Document.decode(kept))
    assert package.needs == manifest.needs
    return manifest.needs


async def test_package_says_what_opening_it_takes(tmp_path: Path) -> None:
    context = new_store(tmp_path)
    try:
        assert await fill(context, is_small=True) == ("jpeg-ls",)
        assert await fill(context, is_small=False) == ()
    finally:
        context.close()


async def test_home_is_not_opened_without_what_its_chunks_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunks would count as damaged."""
    context = new_store(tmp_path)
    assert installed() == frozenset(Capability)
    await fill(context, is_small=True)
    context.close()

    def reopen() -> StoreContext:
        return open_store(tmp_path, ROOT_KEY, context.secrets, context.signer, reserve_bytes=0)

    with monkeypatch.context() as without:
        without.setattr(jpeg_ls, "is_available", lambda: False)
        assert Capability.JPEG_LS not in installed()
        with pytest.raises(StoreError, match=r"pip install 'emix\[small\]'"):
            reopen()
    again = reopen()
    again.database.write_sync(lambda db: package_rows.set_needs(db, 1, ["jpeg-ls", "later"]))
    again.close()
    with pytest.raises(StoreError, match=r"\(later\): install the version"):
        reopen()
