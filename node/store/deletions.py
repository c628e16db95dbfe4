"""Deletion notices: those that a peer has not confirmed yet, and those that peers sent us.

A row is written in the transaction that deletes a package. It is removed once the package's sender
has confirmed the notice, or once the transfer is forgotten. So a notice survives a kill at any
point, and is repeated until it is confirmed.
"""

from collections.abc import Callable, Sequence

from node.domain.deletions import MOST_AT_ONCE, Deletion
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.transfers import Transfer, transfer_facts
from node.sql.database import Db
from node.store import audit_rows, transfer_rows
from node.store.context import StoreContext, marks
from node.store.transfers import published_nowhere
from node.system import clock


def note(db: Db, origin: FacilityId, package_id: PackageId, now: float) -> None:
    """Keep for everybody who sent a package that it is deleted, in the caller's transaction."""
    db.execute(
        "INSERT OR IGNORE INTO deletions (peer, transfer_id, deleted_time)"
        " SELECT peer, transfer_id, ? FROM transfers WHERE origin = ? AND package_id = ?"
        " AND direction = 'receive' AND receipt IS NOT NULL",
        (now, origin.digest, package_id.digest),
    )


class DeletionStore:
    """Both sides of it."""

    def __init__(
        self, context: StoreContext, publish: Callable[[Transfer], None] = published_nowhere
    ) -> None:
        """Prepare; `publish` is as in `TransferStore`."""
        self._context = context
        self._publish = publish

    async def unreported(self, peer: FacilityId) -> list[Deletion]:
        """Return deletions here that a peer has not confirmed; at most what one Hello carries."""
        rows = await self._context.database.read(
            lambda db: db.execute(
                "SELECT transfer_id, deleted_time FROM deletions WHERE peer = ? LIMIT ?",
                (peer.digest, MOST_AT_ONCE),
            ).fetchall()
        )
        return [Deletion(TransferId(transfer_id), time) for transfer_id, time in rows]

    async def confirmed(self, peer: FacilityId, transfers: Sequence[TransferId]) -> None:
        """Forget what a peer knows now.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        if transfers:
            ids = [transfer.value for transfer in transfers]
            sql = f"DELETE FROM deletions WHERE peer = ? AND transfer_id IN ({marks(ids)})"
            await self._context.database.write(lambda db: db.execute(sql, (peer.digest, *ids)))

    async def take(self, peer: FacilityId, reported: Sequence[Deletion]) -> None:
        """Keep a peer's deletion notices about our deliveries; durable once this returns.

        Only the first notice about a transfer counts, and only if the peer gave a receipt for it.
        """
        if not reported:
            return

        def work(db: Db) -> list[Transfer]:
            return [row for deletion in reported for row in _take(db, peer, deletion)]

        for row in await self._context.database.write(work):
            self._publish(row)


def _take(db: Db, peer: FacilityId, reported: Deletion) -> list[Transfer]:
    rows = transfer_rows.find(
        db,
        "direction = 'send' AND peer = ? AND transfer_id = ? AND receipt IS NOT NULL"
        " AND deleted_time = 0",
        (peer.digest, reported.transfer_id.value),
    )
    for row in rows:
        when = min(max(reported.time, row.created_time), clock.now())
        db.execute("UPDATE transfers SET deleted_time = ? WHERE id = ?", (when, row.id))
        audit_rows.append(db, "transfer.deleted-there", transfer_facts(row))
    return [transfer_rows.by_id(db, row.id) for row in rows]
