"""Removing packages, and sweeping chunks that nothing names any more.

The order is what makes it safe to be killed: the state first (no more answers for it), then
the envelope (or a repair would bring it back), then the rows, then the chunks.
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice

from node.domain.ids import ChunkId
from node.domain.packages import Package
from node.sql.database import Db
from node.store import package_rows
from node.store.context import StoreContext

_SLICE = 500


def remove_packages(context: StoreContext, rows: Sequence[int]) -> int:
    """Remove packages that were never closed, with their unshared chunks; return how many chunks.

    A package that was closed meanwhile stays. If a kill interrupts the removal, `finish_removals`
    completes it at the next start.
    """

    def mark(db: Db) -> None:
        for row in rows:
            db.execute(
                "UPDATE packages SET state = 'deleting'"
                " WHERE id = ? AND state IN ('open', 'held', 'arriving')",
                (row,),
            )

    context.database.write_sync(mark, in_need=True)
    return finish_removals(context)


def finish_removals(context: StoreContext) -> int:
    """Complete every removal that was begun; return how many chunks were deleted.

    Not while a backup is made: it completes them at its end.
    """
    with context.removals.allowed() as is_allowed:
        if not is_allowed:
            return 0
        packages = context.database.read_sync(
            lambda db: package_rows.find_packages(db, "state = 'deleting'", ())
        )
        removed = sum(_finish_removal(context, package) for package in packages)
    if packages:
        context.ballast.fill()  # the freed room refills the ballast first
    return removed


def _finish_removal(context: StoreContext, package: Package) -> int:
    context.envelopes.remove(package.origin, package.package_id)

    def work(db: Db) -> list[ChunkId]:
        chunk_ids = [chunk.chunk_id for chunk in package_rows.get_chunks(db, package.id)]
        db.execute("DELETE FROM packages WHERE id = ?", (package.id,))
        return chunk_ids

    return delete_unnamed(context, context.database.write_sync(work, in_need=True))


def sweep(context: StoreContext) -> int:
    """Delete every chunk that no package names; return how many.

    Only for when nothing is being imported or received: at start.
    """
    deleted, ids = 0, context.storage.ids()
    while some := list(islice(ids, _SLICE)):
        deleted += delete_unnamed(context, some)
    return deleted


def delete_unnamed(context: StoreContext, chunk_ids: Sequence[ChunkId]) -> int:
    """Delete those of these chunks that no package names; return how many.

    Looked up and deleted under the writer's lock: a package that arrives again meanwhile has
    its rows either before the look or after the deletion, and then its chunks are written anew.
    """
    deleted = 0
    for i in range(0, len(chunk_ids), _SLICE):
        deleted += context.database.write_sync(
            partial(_delete_unnamed, context, chunk_ids[i : i + _SLICE]), in_need=True
        )
    return deleted


def _delete_unnamed(context: StoreContext, chunk_ids: Sequence[ChunkId], db: Db) -> int:
    unnamed = package_rows.unnamed(db, chunk_ids)
    if unnamed:
        context.storage.delete(unnamed)
    return len(unnamed)
