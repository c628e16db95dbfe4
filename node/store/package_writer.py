"""Filling an open package: pieces are packed into chunks, sealed, written, and recorded.

How this works. Instances are grouped into *units*: many small instances that share one
chunk, or one large instance with chunks of its own. Each chunk is sealed and written on a
worker thread; units are recorded strictly in the order in which they were begun, in batches:
first the chunk directories are synced, then one transaction adds the chunks and the
instances in them. So a row never points at bytes that a power cut can take away, a killed
import resumes after its last batch, and the numbers of chunks that never got recorded are
simply not used again.
"""

from collections import deque
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import trio

from node.chunks.format import Piece, codec_of, seal_chunk
from node.chunks.storage import ChunkStorage
from node.codec.kinds import Codec
from node.crypto.digests import Hasher, digest
from node.crypto.keys import DataKey
from node.domain.capabilities import Capability
from node.domain.ids import ChunkId, PackageId
from node.domain.index import ImageIndex, PackageIndex
from node.domain.manifest import (
    MAX_ATTACHMENTS,
    MAX_CHUNK_BYTES,
    AttachmentEntry,
    ChunkEntry,
    Extent,
    InstanceEntry,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
    check_attached,
)
from node.domain.pixels import Pixels
from node.domain.verdicts import Examined
from node.errors import UsageError
from node.sql.database import Database, Db
from node.store import package_rows

BATCH_BYTES = 64 * 2**20
"""Plaintext after which a batch is recorded: what a killed import does again at most."""


_Entry = TypeVar("_Entry", InstanceEntry, AttachmentEntry)


@dataclass
class _Unit:
    """Chunks and the instances, or the attachment, whose bytes they hold, recorded together."""

    attachment: AttachmentEntry | None = None  # without its extents
    instances: list[InstanceEntry] = field(default_factory=list)  # without their extents
    images: list[ImageIndex] = field(default_factory=list)
    index: PackageIndex = field(default_factory=PackageIndex)
    chunks: dict[int, ChunkEntry | None] = field(default_factory=dict)  # by number, rising
    plaintext_bytes: int = 0
    is_complete: bool = False
    is_dropped: bool = False

    def add(self, examined: Examined, digest: bytes, size: int) -> None:
        """Note an instance; merge its index at once, since there may be ten thousand small ones."""
        self.index.add(examined.index)
        self.images.append(ImageIndex.of(examined.index))
        self.instances.append(
            InstanceEntry(
                SOPClassUID(examined.sop_class_uid),
                SOPInstanceUID(examined.sop_instance_uid),
                SeriesInstanceUID(examined.series_instance_uid),
                TransferSyntaxUID(examined.transfer_syntax_uid),
                size,
                digest,
                (),
            )
        )

    @property
    def is_ready(self) -> bool:
        return self.is_complete and all(entry is not None for entry in self.chunks.values())


class PackageWriter:
    """Fills one open package of this facility.

    Sealing happens in the background, in the nursery given;
    an error there cancels that nursery.

    Attributes:
        unrecorded_ids: Chunks that were written and that no row names yet, or ever will.
    """

    def __init__(
        self,
        *,
        package: int,
        data_key: DataKey,
        next_number: int,
        database: Database,
        storage: ChunkStorage,
        nursery: trio.Nursery,
        limiter: trio.CapacityLimiter,
        needs: Sequence[str] = (),
        is_small: bool = False,
    ) -> None:
        self.package_id: PackageId = data_key.package_id
        self.row_id = package
        self.plaintext_bytes = 0
        self.sealed_bytes = 0
        self._keys = data_key.sealing_keys()
        self._next_number = next_number
        self._database = database
        self._storage = storage
        self._nursery = nursery
        self._limiter = limiter
        self._is_small = is_small
        self._recorded_needs = frozenset(needs)
        self._needs = set(needs)
        self.unrecorded_ids: set[ChunkId] = set()
        self._units: deque[_Unit] = deque()
        self._filling: tuple[_Unit, list[Piece]] | None = None
        self._unrecorded_bytes = 0
        self._changed = trio.Event()
        self._attachments = 0
        self._recording = trio.Lock()
        self._adding = trio.Lock()

    async def add(self, examined: Examined, digest: bytes, content: bytes) -> None:
        """Add one whole instance of at most a chunk's size.

        It is recorded with some later batch, at the latest by `flush`.
        """
        async with self._adding:
            await self._add(examined, digest, content)
        await self._record_if_due()  # apart: others go on adding while a batch is synced

    async def _add(self, examined: Examined, digest: bytes, content: bytes) -> None:
        filling = self._filling
        if filling is not None and filling[0].plaintext_bytes + len(content) > MAX_CHUNK_BYTES:
            await self._seal_filling()
            filling = None
        if filling is None:
            filling = self._filling = (_Unit(), [])
        unit, pieces = filling
        pieces.append(Piece(content, digest, examined.pixels))
        unit.add(examined, digest, len(content))
        unit.plaintext_bytes += len(content)

    async def _seal_filling(self) -> None:
        if self._filling is None:
            return
        unit, pieces = self._filling
        self._filling = None
        unit.is_complete = True
        self._units.append(unit)
        self._unrecorded_bytes += unit.plaintext_bytes
        await self._start_sealing(unit, pieces)

    def begin_large(self, pixels: Pixels | None) -> "LargeInstance":
        """Begin an instance that is larger than a chunk; its bytes come in windows."""
        unit = _Unit()
        self._units.append(unit)
        return LargeInstance(self, unit, pixels)

    async def attach(
        self, media_type: str, windows: AsyncIterable[bytes], about: Sequence[str] = ()
    ) -> bytes:
        """Add a file that is not DICOM; it has chunks of its own. Return its digest.

        It is recorded with some later batch, at the latest by `flush`.

        Args:
            media_type: What it is (RFC 6838), in lower case.
            windows: Its bytes, at most a chunk's worth at a time.
            about: The series or instances that it is about; none for the whole study.

        Raises:
            UsageError: it is empty, its media type or UIDs are invalid, or there are too many.

        Cancellation:
            It is not in the package; its chunks are swept later.
        """
        try:
            check_attached(media_type, about)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        if self._attachments == MAX_ATTACHMENTS:
            raise UsageError(f"a package has at most {MAX_ATTACHMENTS} attachments")
        self._attachments += 1
        unit, hasher = _Unit(), Hasher()
        self._units.append(unit)
        try:
            async for window in windows:
                piece = await trio.to_thread.run_sync(_piece, hasher, window, None)
                unit.plaintext_bytes += len(window)
                await self._start_sealing(unit, [piece])
        except BaseException:
            self._forget(unit)
            raise
        if not unit.plaintext_bytes:
            self._forget(unit)
            raise UsageError("an empty file cannot be attached")
        unit.attachment = AttachmentEntry(
            media_type, unit.plaintext_bytes, hasher.digest(), (), tuple(about)
        )
        unit.is_complete = True
        self._unrecorded_bytes += unit.plaintext_bytes
        self.note_change()
        await self._record_if_due()
        return unit.attachment.digest

    def _forget(self, unit: _Unit) -> None:
        """Give an attachment up; its chunks are swept later."""
        self._attachments -= 1
        unit.is_dropped = True
        self.note_change()

    async def _start_sealing(self, unit: _Unit, pieces: list[Piece]) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        unit.chunks[number] = None
        token = object()
        await self._limiter.acquire_on_behalf_of(token)
        self._nursery.start_soon(self._seal, unit, number, pieces, token)

    async def _seal(self, unit: _Unit, number: int, pieces: list[Piece], token: object) -> None:
        try:
            entry = await trio.to_thread.run_sync(self._seal_sync, number, pieces)
        finally:
            self._limiter.release_on_behalf_of(token)
        unit.chunks[number] = entry
        self.note_change()

    def note_change(self) -> None:
        """Wake whoever waits for units to become ready."""
        self._changed.set()
        self._changed = trio.Event()

    def _seal_sync(self, number: int, pieces: list[Piece]) -> ChunkEntry:
        entry, sealed = seal_chunk(
            self._keys, self.package_id, number, pieces, is_small=self._is_small
        )
        if codec_of(sealed) is Codec.SMALL:
            self._needs.add(Capability.JPEG_LS)
        pieces.clear()  # the sealed bytes are enough while they are written
        self.unrecorded_ids.add(entry.chunk_id)
        self._storage.put(entry.chunk_id, sealed)
        return entry

    async def _record_if_due(self) -> None:
        """Record a batch; other callers continue meanwhile, unless a second batch is due."""
        is_due = self._unrecorded_bytes >= BATCH_BYTES
        is_behind = self._unrecorded_bytes >= 2 * BATCH_BYTES
        if is_due and (is_behind or not self._recording.locked()):
            await self._record()

    async def _record(self) -> None:
        """Record the units at the head of the queue that are ready."""
        async with self._recording:
            ready: list[_Unit] = []
            while self._units and (self._units[0].is_ready or self._units[0].is_dropped):
                unit = self._units.popleft()
                if not unit.is_dropped:
                    ready.append(unit)
            if not ready:
                return
            self._unrecorded_bytes -= sum(unit.plaintext_bytes for unit in ready)
            next_number, needs = self._next_number, sorted(self._needs)
            index = PackageIndex()
            for unit in ready:
                index.merge(unit.index)

            def prepare() -> dict[str, tuple[str, str]]:
                self._storage.sync([c.chunk_id for unit in ready for c in _entries(unit)])
                return index.forms()

            forms = await trio.to_thread.run_sync(prepare)
            await self._database.write(
                lambda db: self._record_rows(db, ready, next_number, index, forms, needs)
            )
            self._recorded_needs = frozenset(needs)
            self.unrecorded_ids -= {c.chunk_id for unit in ready for c in _entries(unit)}
            self.plaintext_bytes += sum(unit.plaintext_bytes for unit in ready)
            self.sealed_bytes += sum(c.sealed_bytes for unit in ready for c in _entries(unit))

    def _record_rows(
        self,
        db: Db,
        units: Sequence[_Unit],
        next_number: int,
        index: PackageIndex,
        forms: Mapping[str, tuple[str, str]],
        needs: Sequence[str],
    ) -> None:
        position = _count(db, "chunks", self.row_id)
        instance_position = _count(db, "instances", self.row_id)
        attachment_position = _count(db, "attachments", self.row_id)
        for unit in units:
            chunks = _entries(unit)
            instances = _lay_out(unit.instances, chunks, position)
            package_rows.add_chunks(db, self.row_id, position, chunks, present=True)
            if unit.attachment is not None:
                attachments = _lay_out([unit.attachment], chunks, position)
                package_rows.add_attachments(db, self.row_id, attachment_position, attachments)
                attachment_position += 1
            images = dict(enumerate(unit.images, instance_position))
            package_rows.add_instances(db, self.row_id, instance_position, instances, images)
            position += len(chunks)
            instance_position += len(instances)
        package_rows.merge_index(db, self.row_id, index, forms)
        if self._recorded_needs != frozenset(needs):
            package_rows.set_needs(db, self.row_id, needs)
        db.execute("UPDATE packages SET next_number = ? WHERE id = ?", (next_number, self.row_id))

    @property
    def filling_bytes(self) -> int:
        """Plaintext that waits in memory for more of its kind."""
        return 0 if self._filling is None else self._filling[0].plaintext_bytes

    async def flush(self) -> None:
        """Seal what is still filling and record everything; durable once this returns."""
        async with self._adding:
            await self._seal_filling()
        while not all(unit.is_ready or unit.is_dropped for unit in self._units):
            await self._changed.wait()
        await self._record()


class LargeInstance:
    """One instance that spans chunks, while its bytes come."""

    def __init__(self, writer: PackageWriter, unit: _Unit, pixels: Pixels | None) -> None:
        self._writer = writer
        self._unit = unit
        self._pixels = pixels
        self._hasher = Hasher()

    async def add(self, window: bytes) -> None:
        """Add the next bytes, at most a chunk's worth."""
        start = self._unit.plaintext_bytes
        pixels = self._pixels and self._pixels.within(start, len(window))
        piece = await trio.to_thread.run_sync(_piece, self._hasher, window, pixels)
        self._unit.plaintext_bytes += len(window)
        await self._writer._start_sealing(self._unit, [piece])

    async def finish(self, examined: Examined) -> bytes:
        """Complete the instance and return its digest."""
        digest = self._hasher.digest()
        self._unit.add(examined, digest, self._unit.plaintext_bytes)
        self._unit.is_complete = True
        self._writer.note_change()
        self._writer._unrecorded_bytes += self._unit.plaintext_bytes
        await self._writer._record_if_due()
        return digest

    def drop(self) -> None:
        """Give the instance up; its chunks are swept later."""
        self._unit.is_dropped = True
        self._writer.note_change()

    def digest(self) -> bytes:
        """Return the digest of the bytes so far."""
        return self._hasher.digest()


def _piece(hasher: Hasher, window: bytes, pixels: Pixels | None) -> Piece:
    hasher.update(window)
    return Piece(window, digest(window), pixels)


def _entries(unit: _Unit) -> list[ChunkEntry]:
    return [entry for entry in unit.chunks.values() if entry is not None]


def _lay_out(
    entries: Sequence[_Entry], chunks: Sequence[ChunkEntry], first_position: int
) -> list[_Entry]:
    """Return a unit's entries with their extents over its chunks, in order."""
    laid, index, offset = [], 0, 0
    for entry in entries:
        extents, left = [], entry.size_bytes
        while left:
            room = chunks[index].plaintext_bytes - offset
            if room == 0:
                index, offset = index + 1, 0
                continue
            length = min(room, left)
            extents.append(Extent(first_position + index, offset, length))
            offset, left = offset + length, left - length
        laid.append(replace(entry, extents=tuple(extents)))
    return laid


def _count(db: Db, table: str, package: int) -> int:
    sql = f"SELECT COUNT(*) FROM {table} WHERE package = ?"
    return int(db.execute(sql, (package,)).fetchone()[0])
