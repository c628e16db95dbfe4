"""Lost chunks: chunks that rows name and that are missing or damaged.

A chunk's row has `present = 0` until the chunk arrives, and again once it was found missing or
damaged. The next transfer of its package then carries the chunk again, or the next import of the
same files seals it again. So damage is noted where it is found.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from node.crypto.digests import digest
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.errors import ChunkDamaged, ChunkNotFound
from node.sql.database import Db
from node.store import package_rows
from node.store.context import StoreContext


@contextmanager
def noted_if_lost(context: StoreContext, chunk_id: ChunkId) -> Iterator[None]:
    """Note that a chunk is lost if the block finds it so; the error passes through."""
    try:
        yield
    except (ChunkDamaged, ChunkNotFound):
        note_lost(context, [chunk_id])
        raise


def note_lost(context: StoreContext, chunk_ids: Sequence[ChunkId]) -> None:
    """Note durably that chunks are missing or damaged, whatever packages name them."""
    _set_present(context, chunk_ids, is_present=False)


def note_found(context: StoreContext, chunk_ids: Sequence[ChunkId]) -> None:
    """Note durably that chunks are here as they were, after they were read and synced."""
    _set_present(context, chunk_ids, is_present=True)


def _set_present(context: StoreContext, chunk_ids: Sequence[ChunkId], *, is_present: bool) -> None:
    rows = [(int(is_present), chunk_id.digest, int(is_present)) for chunk_id in chunk_ids]
    sql = "UPDATE chunks SET present = ? WHERE chunk_id = ? AND present != ?"
    if rows:
        context.database.write_sync(lambda db: db.conn.executemany(sql, rows))


def find_lost(
    context: StoreContext, entries: Sequence[ChunkEntry], *, reads_them: bool
) -> list[ChunkId]:
    """Return those chunks that are not here as they were, and note that.

    Args:
        context: The store.
        entries: The chunks to look at.
        reads_them: Digest their bytes, too; else a right size is believed.
    """
    lost = [e.chunk_id for e in entries if not _is_here(context, e, reads_it=reads_them)]
    note_lost(context, lost)
    return lost


def _is_here(context: StoreContext, entry: ChunkEntry, *, reads_it: bool) -> bool:
    if context.storage.size(entry.chunk_id) != entry.sealed_bytes:
        return False
    if not reads_it:
        return True
    try:
        return digest(context.storage.get(entry.chunk_id)) == entry.chunk_id.digest
    except (ChunkDamaged, ChunkNotFound):
        return False  # any other error says that nothing is known


def is_whole(context: StoreContext, package: int, unrecorded: Collection[int] = ()) -> bool:
    """Return whether every chunk of a package is here, by marks and sizes; note what is not.

    Chunks at the positions `unrecorded` came just now: they are here, though not marked so.
    """

    def look(db: Db) -> Sequence[ChunkEntry] | None:
        if lost_positions(db, package) - set(unrecorded):
            return None
        return package_rows.get_chunks(db, package)

    chunks = context.database.read_sync(look)
    return chunks is not None and not find_lost(context, chunks, reads_them=False)


def lost_positions(db: Db, package: int) -> frozenset[int]:
    """Return the positions of a package's chunks that are known to be lost."""
    rows = db.execute("SELECT position FROM chunks WHERE package = ? AND present = 0", (package,))
    return frozenset(row[0] for row in rows)


def count_lost(db: Db) -> int:
    """Return how many chunks of closed packages are not here, as far as it is known."""
    sql = (
        "SELECT COUNT(*) FROM chunks c JOIN packages p ON p.id = c.package"
        " WHERE c.present = 0 AND p.state = 'closed'"
    )
    return int(db.execute(sql).fetchone()[0])


def whole_attachments(db: Db, package: int) -> frozenset[tuple[bytes, str, tuple[str, ...]]]:
    """Return what a package has attached, by content, all of whose chunks are here."""
    lost = lost_positions(db, package)
    return frozenset(
        attachment.content
        for attachment in package_rows.get_attachments(db, package)
        if not any(extent.chunk_index in lost for extent in attachment.extents)
    )


def lost_instances(db: Db, package: int) -> frozenset[bytes]:
    """Return the digests of a package's instances that lie in chunks which are not here."""
    lost = lost_positions(db, package)
    if not lost:
        return frozenset()
    return frozenset(
        instance.digest
        for instance in package_rows.get_instances(db, package)
        if any(extent.chunk_index in lost for extent in instance.extents)
    )
