"""Mending this facility's packages: lost chunks sealed again from other copies of their content.

How this works. Sealing is deterministic. A lost chunk's pieces are read from other copies of the
instances that lay in it (an import of the same files has just made some), held against the digest
that the manifest has, and sealed under the package's own key. If that gives the very chunk that the
manifest names, it is put back: deliveries, receipts and envelope stay true. It does not where
another version of the codec made the chunk; then the copies stay in a package of their own.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product

from node.chunks.format import Piece, digest_of_pieces, seal_chunk
from node.crypto.digests import digest
from node.crypto.sealing import Suite
from node.domain.capabilities import Capability
from node.domain.manifest import MAX_CHUNK_BYTES, ChunkEntry, InstanceEntry
from node.domain.packages import Package
from node.errors import StoreError
from node.sql.database import Db
from node.store import audit_rows, package_rows
from node.store.context import StoreContext
from node.store.lost import (
    lost_instances,
    lost_positions,
    note_found,
    noted_if_lost,
    whole_attachments,
)
from node.store.opening import open_chunk

_DAMAGED = (
    "origin = ? AND study_uid = ? AND state = 'closed' AND EXISTS"
    " (SELECT 1 FROM chunks c WHERE c.package = packages.id AND c.present = 0)"
)


def mend_study(context: StoreContext, study_uid: str) -> int:
    """Mend what can be mended of a study's packages; durable once this returns. Blocking.

    Returns:
        How many chunks are here again.
    """
    args = (context.facility.digest, study_uid)
    damaged = context.database.read_sync(lambda db: package_rows.find_packages(db, _DAMAGED, args))
    return sum(_mend_package(context, package) for package in damaged)


def _mend_package(context: StoreContext, package: Package) -> int:
    positions, chunks, instances = context.database.read_sync(
        lambda db: (
            sorted(lost_positions(db, package.id)),
            package_rows.get_chunks(db, package.id),
            package_rows.get_instances(db, package.id),
        )
    )
    copies = _Copies(context)
    mended = [
        chunks[position].chunk_id
        for position in positions
        if _mend_chunk(context, copies, package, position, chunks[position], instances)
    ]
    if not mended:
        return 0
    context.storage.sync(mended)
    note_found(context, mended)
    facts: dict[str, object] = {"package": str(package.package_id), "chunks": len(mended)}
    context.database.write_sync(lambda db: audit_rows.append(db, "package.mended", facts))
    return len(mended)


def _mend_chunk(
    context: StoreContext,
    copies: "_Copies",
    package: Package,
    position: int,
    entry: ChunkEntry,
    instances: tuple[InstanceEntry, ...],
) -> bool:
    found: list[Piece] = []
    for instance in instances:  # their pieces lie in the chunk in this order
        start = 0
        for extent in instance.extents:
            if extent.chunk_index == position:
                piece = copies.piece(instance, start, extent.length)
                if piece is None:
                    return False
                found.append(piece)
            start += extent.length
    if digest_of_pieces([piece.digest for piece in found]) != entry.pieces_digest:
        return False
    return _seal_again(context, package, entry, found)


def _seal_again(
    context: StoreContext, package: Package, entry: ChunkEntry, pieces: Sequence[Piece]
) -> bool:
    """Seal in each way until that gives the chunk that was; keep it then."""
    keys = context.data_key(package).sealing_keys()
    is_any_small = Capability.JPEG_LS in package.needs
    for suite, is_small in product(Suite, (False, True) if is_any_small else (False,)):
        made, sealed = seal_chunk(
            keys, package.package_id, entry.number, pieces, suite, is_small=is_small
        )
        if made == entry:
            context.storage.put(entry.chunk_id, sealed)
            return True
    return False


class _Copies:
    """Reads pieces of instances from whatever package has them."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        # The last package and chunk: neighbours lie in the same one, nearly always.
        self._known: dict[int, tuple[Sequence[ChunkEntry], list[list[int]]]] = {}
        self._opened = ((0, 0), b"")

    def piece(self, instance: InstanceEntry, start: int, length: int) -> Piece | None:
        """Return a piece of an instance as it was sealed; None if no copy can be read."""
        content = self._read_copy(instance.digest, start, length)
        if content is None:
            return None
        beginning: bytes | None = content
        if start:
            most = min(MAX_CHUNK_BYTES, instance.size_bytes)
            beginning = self._read_copy(instance.digest, 0, most)
        if beginning is None:
            return None
        pixels = self._context.expander.find_pixels(beginning, instance.size_bytes)
        return Piece(content, digest(content), pixels and pixels.within(start, length))

    def _read_copy(self, name: bytes, start: int, length: int) -> bytes | None:
        for package, position in self._context.database.read_sync(partial(_find_copies, name)):
            try:
                return self._read(package, position, start, length)
            except StoreError:
                continue
        return None

    def _read(self, package: Package, position: int, start: int, length: int) -> bytes:
        found = self._context.database.read_sync(
            lambda db: package_rows.get_instance(db, package.id, position)
        )
        content, offset = bytearray(), 0
        for extent in found.extents:
            first, last = max(start, offset), min(start + length, offset + extent.length)
            if first < last:
                plaintext = self._open(package, extent.chunk_index)
                at = extent.offset - offset
                content += plaintext[at + first : at + last]
            offset += extent.length
        return bytes(content)

    def _open(self, package: Package, position: int) -> bytes:
        if self._opened[0] == (package.id, position):
            return self._opened[1]
        context, keys = self._context, self._context.data_key(package).sealing_keys()
        chunks, pieces = self._chunks_of(package)
        entry = chunks[position]
        with noted_if_lost(context, entry.chunk_id):
            sealed = context.storage.get(entry.chunk_id)
            plaintext = open_chunk(
                context.expander, keys, package.package_id, entry, pieces[position], sealed
            )
        self._opened = (package.id, position), plaintext
        return plaintext

    def _chunks_of(self, package: Package) -> tuple[Sequence[ChunkEntry], list[list[int]]]:
        """Return a package's chunks, and the lengths of the pieces in each."""
        if package.id not in self._known:
            found = self._context.database.read_sync(
                lambda db: package_rows.get_chunks_and_pieces(db, package.id)
            )
            self._known = {package.id: found}
        return self._known[package.id]


def _find_copies(name: bytes, db: Db) -> list[tuple[Package, int]]:
    rows = db.execute(
        "SELECT i.package, i.position FROM instances i JOIN packages p ON p.id = i.package"
        " WHERE i.digest = ? AND p.state IN ('open', 'closed') ORDER BY p.id DESC LIMIT 8",
        (name,),
    ).fetchall()
    return [
        (package_rows.find_packages(db, "id = ?", (package,))[0], position)
        for package, position in rows
    ]


def is_superfluous(db: Db, package: Package) -> bool:
    """Return whether everything in a package is whole in other closed packages of ours."""
    me = package.origin.digest
    wanted: set[object] = {i.digest for i in package_rows.get_instances(db, package.id)}
    attached = {a.content for a in package_rows.get_attachments(db, package.id)}
    others = package_rows.find_packages(
        db,
        "origin = ? AND study_uid = ? AND state = 'closed' AND id != ?",
        (me, package.study_uid, package.id),
    )
    for other in others:
        here = {instance.digest for instance in package_rows.get_instances(db, other.id)}
        wanted -= here - lost_instances(db, other.id)
        attached -= whole_attachments(db, other.id)
    return not wanted and not attached
