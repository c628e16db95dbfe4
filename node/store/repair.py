"""Rebuilding rows from envelopes after the database was lost, or replaced by an old copy.

An envelope is written only after all chunks of its package were opened and checked, so rows can be
made from it. Pins, the audit log and unfinished transfers are in the database only and cannot be
rebuilt.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from node.crypto.keys import DataKey, unwrap
from node.documents.delivery import Delivery, open_delivery
from node.documents.manifest import open_manifest
from node.documents.receipt import Receipt, sign_receipt
from node.documents.signed import Document
from node.domain.index import ImageIndex, ImageIndexes, PackageIndex
from node.domain.manifest import InstanceEntry, Manifest, piece_lengths
from node.domain.packages import PackageState
from node.domain.transfers import Direction, State
from node.errors import ChunkDamaged, ChunkNotFound, DocumentError, StoreError
from node.sql.database import Db
from node.store import audit_rows, findings, package_rows, transfer_rows
from node.store.context import StoreContext
from node.store.envelopes import ORIGIN_BYTES, Envelope
from node.store.lost import find_lost
from node.store.opening import open_chunk
from node.system import clock

_BEGINNING_CHUNKS = 16


class Indexer(Protocol):
    """Reads searchable values; the parsers do."""

    async def whole(
        self, plaintext: bytes, places: Sequence[tuple[int, int]]
    ) -> Sequence[Mapping[str, str]]:
        """Return those of whole instances at these places of a chunk's plaintext."""

    async def beginning(self, size: int, windows: AsyncGenerator[bytes]) -> Mapping[str, str]:
        """Return those of one instance, from as many of its first bytes as are needed."""


@dataclass(frozen=True)
class Repaired:
    """What became of one envelope."""

    name: str
    problem: str = ""
    missing_chunks: int = 0


def find_orphans(context: StoreContext) -> list[Path]:
    """Return envelopes whose packages have no row: the database is older than they are."""
    sql = f"SELECT package_id, substr(origin, 1, {ORIGIN_BYTES}) FROM packages"
    known = context.database.read_sync(lambda db: set(map(tuple, db.execute(sql))))
    envelopes = context.envelopes
    orphans = [
        envelopes.path(name) for name in envelopes.names() if envelopes.named(name) not in known
    ]
    # In the order in which they came: row numbers, by which lists are sorted, follow this order.
    return sorted(orphans, key=lambda path: (path.stat().st_mtime_ns, path.name))


async def repair(context: StoreContext, index: Indexer) -> list[Repaired]:
    """Give every envelope without a row its rows again; durable once this returns."""
    repaired = []
    for path in await trio.to_thread.run_sync(find_orphans, context):
        try:
            repaired.append(await _repair_one(context, path, index))
        except (StoreError, DocumentError) as exc:
            repaired.append(Repaired(path.name, str(exc)))
    return repaired


async def _repair_one(context: StoreContext, path: Path, index: Indexer) -> Repaired:
    envelope = await trio.to_thread.run_sync(context.envelopes.read, path)
    document = Document.decode(envelope.manifest)
    manifest = await trio.to_thread.run_sync(open_manifest, document)
    if (manifest.package_id, manifest.origin) != (envelope.package_id, envelope.origin):
        raise StoreError("the envelope holds another package's manifest")
    keys = context.secrets.epoch_keys(envelope.epoch)
    key = unwrap(keys, envelope.epoch, envelope.origin, envelope.package_id, envelope.wrapped_key)
    delivery = Document.decode(envelope.delivery) if envelope.delivery else None
    promised = open_delivery(delivery) if delivery else None

    def work(db: Db) -> None:
        row = _add_rows(db, envelope, document, manifest, promised, images)
        package_rows.merge_index(db, row, values, forms)

    values, images = await _said(context, key, manifest, index)
    forms = await trio.to_thread.run_sync(values.forms)
    await context.database.write(work)
    lost = await trio.to_thread.run_sync(
        partial(find_lost, context, manifest.chunks, reads_them=True)
    )
    if delivery is not None and promised is not None and not lost:
        # Without a receipt the sender can offer it again, and what is lost is carried then.
        reissued = partial(_reissue, context, delivery, promised, document, manifest)
        await context.database.write(reissued)
    return Repaired(path.name, missing_chunks=len(lost))


def _add_rows(
    db: Db,
    envelope: Envelope,
    document: Document,
    manifest: Manifest,
    promised: Delivery | None,
    images: ImageIndexes,
) -> int:
    row = package_rows.add_package(
        db,
        package_id=envelope.package_id,
        origin=envelope.origin,
        study_uid=manifest.study_instance_uid,
        state=PackageState.ARRIVING,
        epoch=envelope.epoch,
        wrapped_key=envelope.wrapped_key,
        received_from=promised.sender if promised else None,
        needs=manifest.needs,
    )
    package_rows.add_chunks(db, row, 0, manifest.chunks, present=True)
    package_rows.add_instances(db, row, 0, manifest.instances, images)
    package_rows.add_attachments(db, row, 0, manifest.attachments)
    package_rows.close_package(db, row, PackageState.ARRIVING, envelope.manifest, document.digest())
    findings.add(db, row, findings.decode(envelope.findings))
    facts: dict[str, object] = {
        "package": str(envelope.package_id),
        "study": manifest.study_instance_uid,
        "origin": str(envelope.origin),
    }
    audit_rows.append(db, "package.repaired", facts)
    return row


def _reissue(
    context: StoreContext,
    delivery: Document,
    promised: Delivery,
    document: Document,
    manifest: Manifest,
    db: Db,
) -> None:
    """Sign the lost receipt again, marked as reissued."""
    receipt = Receipt(
        transfer_id=promised.transfer_id,
        delivery_digest=delivery.digest(),
        manifest_digest=document.digest(),
        package_id=manifest.package_id,
        receiver=context.facility,
        instances=len(manifest.instances),
        plaintext_bytes=manifest.plaintext_bytes,
        received_time=clock.now(),
        reissued=True,
    )
    row = transfer_rows.add_transfer(
        db,
        Direction.RECEIVE,
        promised,
        delivery,
        b"",
        State.DELIVERED,
        study_uid=manifest.study_instance_uid,
        plaintext_bytes=manifest.plaintext_bytes,
    )
    signed = sign_receipt(receipt, context.signer).encode()
    db.execute(
        "UPDATE transfers SET receipt = ?, bytes_done = bytes_total, received_time = ?"
        " WHERE id = ?",
        (signed, receipt.received_time, row),
    )
    transfer_rows.keep_manifest(db, transfer_rows.by_id(db, row))


async def _said(
    context: StoreContext, key: DataKey, manifest: Manifest, index: Indexer
) -> tuple[PackageIndex, ImageIndexes]:
    """Return the searchable values of those instances whose chunks are not lost.

    Raises:
        StoreError: a chunk cannot be read now, though it may be there.
    """
    merged, images = PackageIndex(), ImageIndexes(len(manifest.instances))
    chunks = _Chunks(context, key, manifest)
    whole: dict[int, list[int]] = {}
    for i, instance in enumerate(manifest.instances):
        if len(instance.extents) == 1:
            whole.setdefault(instance.extents[0].chunk_index, []).append(i)
            continue
        with suppress(ChunkDamaged, ChunkNotFound):
            said = await index.beginning(instance.size_bytes, chunks.beginning(instance))
            merged.add(said)
            images.put(i, ImageIndex.of(said))
    for position, instances in sorted(whole.items()):
        with suppress(ChunkDamaged, ChunkNotFound):
            plaintext = await chunks.open(position)
            extents = [manifest.instances[i].extents[0] for i in instances]
            found = await index.whole(plaintext, [(e.offset, e.length) for e in extents])
            for i, said in zip(instances, found, strict=True):
                merged.add(said)
                images.put(i, ImageIndex.of(said))
    return merged, images


class _Chunks:
    """Opens the chunks of one package."""

    def __init__(self, context: StoreContext, key: DataKey, manifest: Manifest) -> None:
        self._context = context
        self._key = key
        self._chunks = manifest.chunks
        self._pieces = piece_lengths(
            (*manifest.instances, *manifest.attachments), len(manifest.chunks)
        )

    async def beginning(self, instance: InstanceEntry) -> AsyncGenerator[bytes]:
        """Yield the first bytes of an instance that spans chunks."""
        for extent in instance.extents[:_BEGINNING_CHUNKS]:
            plaintext = await self.open(extent.chunk_index)
            yield plaintext[extent.offset : extent.offset + extent.length]

    async def open(self, position: int) -> bytes:
        """Return a chunk's plaintext."""
        return await trio.to_thread.run_sync(self._open, position)

    def _open(self, position: int) -> bytes:
        context, key, entry = self._context, self._key, self._chunks[position]
        sealed = context.storage.get(entry.chunk_id)
        return open_chunk(
            context.expander,
            key.sealing_keys(),
            key.package_id,
            entry,
            self._pieces[position],
            sealed,
        )
