"""Large studies do not hold up the node: what takes long runs on worker threads."""

import time
from pathlib import Path
from typing import Any

from node.crypto.keys import DataKey, SealKey
from node.documents.manifest import decode_body, sign_manifest
from node.domain.ids import ChunkId, FacilityId
from node.domain.manifest import ChunkEntry, Extent, InstanceEntry, Manifest
from node.domain.packages import PackageState
from node.domain.transfers import Priority
from node.exchange.transfer.transfers import SendOrder, Transfers
from node.sql.database import Db
from node.store import package_rows
from node.store.context import StoreContext
from node.store.transfers import TransferStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor

INSTANCES = 20_000


def add_large_package(context: StoreContext) -> bytes:
    """Add rows of a closed package of many instances; return its manifest's body."""
    key = DataKey.new()
    epoch, wrapped = context.wrap(key, context.facility)
    chunks = tuple(
        ChunkEntry(n, ChunkId(n.to_bytes(32, "big")), 10, 80, bytes(32)) for n in range(INSTANCES)
    )
    uid: Any = "1.2.840.10008.1.2.3.4.5.6.7.8.9"
    instances = tuple(
        InstanceEntry(uid, uid, uid, uid, 10, n.to_bytes(32, "big"), (Extent(n, 0, 10),))
        for n in range(INSTANCES)
    )
    manifest = Manifest(key.package_id, context.facility, uid, 1.0, instances, chunks)
    document = sign_manifest(manifest, context.signer)

    def work(db: Db) -> None:
        row = package_rows.add_package(
            db,
            package_id=key.package_id,
            origin=context.facility,
            study_uid=uid,
            state=PackageState.CLOSED,
            epoch=epoch,
            wrapped_key=wrapped,
        )
        db.execute(
            "UPDATE packages SET manifest = ?, manifest_digest = ? WHERE id = ?",
            (document.encode(), document.digest(), row),
        )
        package_rows.add_chunks(db, row, 0, chunks, present=True)
        package_rows.add_instances(db, row, 0, instances)

    context.database.write_sync(work)
    return document.body


async def test_promising_a_large_study_decodes_no_manifest_on_the_loop(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        body = add_large_package(context)
        started = time.thread_time()
        decode_body(body)
        decoding = time.thread_time() - started
        parts: dict[str, Any] = dict.fromkeys(("sender", "receiver", "links"))
        transfers = Transfers(
            signer=context.signer, book=TransferStore(context), offer_seconds=60.0, **parts
        )
        order = SendOrder(
            study="1.2",
            receiver=FacilityId(bytes(32)),
            seal_key=SealKey.new().public,
            recipient="",
            note="",
            priority=Priority.ROUTINE,
            actor=actor("test"),
        )
        started = time.thread_time()
        await transfers.send(order)
        on_the_loop = time.thread_time() - started
        assert on_the_loop < decoding / 4
    finally:
        context.close()
