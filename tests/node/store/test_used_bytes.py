"""What the quota looks at: always the sum over all chunks, and never read chunk by chunk."""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.crypto.keys import DataKey
from node.dicom.examiner import open_examiner
from node.documents.delivery import sign_delivery
from node.documents.signed import DocumentSigner
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.packages import PackageState
from node.domain.transfers import State, Transfer
from node.sql.database import Db
from node.store import package_rows
from node.store.arrivals import ArrivalStore
from node.store.chunk_access import ChunkAccess
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.removal import finish_removals, remove_packages
from node.store.transfers import TransferStore
from tests.node.store.test_arrivals import ROOM, make_delivery, make_signer
from tests.node.store.test_import_resumes import make_store, run_import
from tests.support.dicom_files import write_study

_SCAN = "SELECT COALESCE(SUM(sealed_bytes), 0) FROM chunks"
_MANIFESTS = "SELECT COALESCE(SUM(LENGTH(manifest)), 0) FROM packages"
_STEPS = 40


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path)
    yield context
    context.close()


def make_manifest(chance: random.Random, chunks: int) -> Any:
    entries = tuple(
        ChunkEntry(n, ChunkId(chance.randbytes(32)), 1, chance.randrange(1, 2**20), bytes(32))
        for n in range(chunks)
    )
    size = sum(c.sealed_bytes for c in entries)
    return SimpleNamespace(
        needs=(), study_instance_uid="1.2", plaintext_bytes=1, sealed_bytes=size, chunks=entries
    )


async def begin(context: StoreContext, signer: DocumentSigner, manifest: Any) -> Transfer:
    store = ArrivalStore(context, TransferStore(context))
    key = DataKey.new()
    delivery = replace(make_delivery(signer, context.facility)[0], package_id=key.package_id)
    document = sign_delivery(delivery, signer)
    row = await store.keep_offer(delivery, document, b"", is_held=False)
    await store.begin_arrival(row, key, manifest, document, *ROOM)
    return row


def scanned(db: Db) -> int:
    return int(db.execute(_SCAN).fetchone()[0] + db.execute(_MANIFESTS).fetchone()[0])


def close(row_id: int, db: Db) -> None:
    package_rows.close_package(db, row_id, PackageState.ARRIVING, bytes(200), bytes(32))


async def test_sum_stays_what_a_scan_finds(context: StoreContext, tmp_path: Path) -> None:
    chance = random.Random(7)
    transfers, signer = TransferStore(context), make_signer()
    store = ArrivalStore(context, transfers)
    begun: list[Transfer] = []
    async with open_examiner(parsers=1) as examiner:
        for n in range(_STEPS):
            match chance.choice(("begin", "begin", "close", "discard", "import", "delete")):
                case "begin":
                    begun.append(await begin(context, signer, make_manifest(chance, n % 5)))
                case "close" if begun:
                    package = await store.find_package(begun.pop())
                    assert package is not None
                    context.database.write_sync(partial(close, package.id))
                case "discard" if begun:
                    row = await transfers.set_state(begun.pop(), State.CANCELLED)
                    remove_packages(context, await store.discard_arrival(row))
                case "import":
                    folder = write_study(tmp_path / f"in{n}", n + 1, 2)
                    await run_import(ImportStore(context), examiner, folder)
                case "delete":
                    context.database.write_sync(
                        lambda db: db.execute(
                            "UPDATE packages SET state = 'deleting' WHERE id ="
                            " (SELECT MIN(id) FROM packages WHERE state = 'closed')"
                        )
                    )
                    finish_removals(context)
            used = context.database.read_sync(package_rows.used_bytes)
            assert used == context.database.read_sync(scanned), f"after step {n}"
    assert used


async def test_quota_looks_at_packages_and_not_at_chunks(context: StoreContext) -> None:
    """Counted in the database's own steps: they are many times fewer than the chunks."""
    await begin(context, make_signer(), make_manifest(random.Random(7), 20_000))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 100
        return 0

    context.database.read_sync(lambda db: db.conn.set_progress_handler(count, 100))
    used = ChunkAccess(context).used_bytes()
    context.database.read_sync(lambda db: db.conn.set_progress_handler(None, 0))
    assert used > 20_000
    assert steps < 2_000


async def test_database_itself_counts_against_the_quota(context: StoreContext) -> None:
    carrier = ChunkAccess(context)
    before = carrier.used_bytes()
    context.database.write_sync(
        lambda db: db.execute("INSERT INTO meta VALUES ('large', ?)", (bytes(10**7),))
    )
    assert carrier.used_bytes() - before >= 10**7
