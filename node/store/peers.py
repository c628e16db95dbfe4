"""Pinned peers. A removal is kept: it holds for good, until a person says otherwise."""

import time

from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.ids import FacilityId
from node.errors import Conflict, NotFound
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext


class PeerStore:
    """The pins."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database

    async def all(self) -> list[Peer]:
        """Return all peers, removed ones too."""
        return await self._database.read(_all)

    async def pin(
        self,
        identity: Identity,
        *,
        endpoint: str,
        how: str,
        operator: str,
        restore_removed: bool = False,
    ) -> Peer:
        """Pin a facility, or renew the statements of one that is pinned.

        Raises:
            Conflict: it was removed here, and nobody says to bring it back.
        """

        def work(db: Db) -> Peer:
            old = _get(db, identity.facility_id)
            if old and old.is_removed and not restore_removed:
                raise Conflict(
                    f"facility {identity.facility_id.short()} was removed here;"
                    " say --restore-removed to bring it back"
                )
            db.execute(
                "INSERT INTO peers (facility, statements, endpoint, pinned_how, pinned_by,"
                " pinned_time, removed_time) VALUES (?, ?, ?, ?, ?, ?, NULL)"
                " ON CONFLICT (facility) DO UPDATE SET statements = excluded.statements,"
                " endpoint = excluded.endpoint, pinned_how = excluded.pinned_how,"
                " pinned_by = excluded.pinned_by, pinned_time = excluded.pinned_time,"
                " removed_time = NULL",
                (
                    identity.facility_id.digest,
                    identity.encoded,
                    endpoint,
                    how,
                    operator,
                    time.time(),
                ),
            )
            facts: dict[str, object] = {"facility": str(identity.facility_id), "how": how}
            audit_rows.append(db, "peer.pinned", facts, operator)
            found = _get(db, identity.facility_id)
            if found is None:
                raise NotFound("the pin was not kept")
            return found

        return await self._database.write(work)

    async def renew(self, identity: Identity) -> None:
        """Keep newer statements of a pinned facility: a new certificate, a new name."""

        def work(db: Db) -> None:
            db.execute(
                "UPDATE peers SET statements = ? WHERE facility = ? AND removed_time IS NULL",
                (identity.encoded, identity.facility_id.digest),
            )
            facts: dict[str, object] = {"facility": str(identity.facility_id)}
            audit_rows.append(db, "peer.renewed", facts)

        await self._database.write(work)

    async def remove(self, facility: FacilityId, operator: str) -> Peer:
        """Remove a peer for good; durable once this returns."""

        def work(db: Db) -> Peer:
            db.execute(
                "UPDATE peers SET removed_time = ? WHERE facility = ? AND removed_time IS NULL",
                (time.time(), facility.digest),
            )
            facts: dict[str, object] = {"facility": str(facility)}
            audit_rows.append(db, "peer.removed", facts, operator)
            found = _get(db, facility)
            if found is None:
                raise NotFound(f"facility {facility.short()} is not pinned here")
            return found

        return await self._database.write(work)

    async def note_seen(self, facility: FacilityId, when: float) -> None:
        """Keep when a peer was last heard of."""
        await self._database.write(
            lambda db: db.execute(
                "UPDATE peers SET last_seen_time = ? WHERE facility = ?", (when, facility.digest)
            )
        )


def _all(db: Db) -> list[Peer]:
    return [_row(row) for row in db.query("SELECT * FROM peers ORDER BY pinned_time")]


def _get(db: Db, facility: FacilityId) -> Peer | None:
    rows = list(db.query("SELECT * FROM peers WHERE facility = ?", (facility.digest,)))
    return _row(rows[0]) if rows else None


def _row(row: dict[str, object]) -> Peer:
    values = {k: v for k, v in row.items() if k not in ("facility", "statements")}
    statements = row["statements"]
    if not isinstance(statements, bytes):
        raise TypeError("statements are bytes")
    return Peer(identity=Identity.decode(statements), **values)  # type: ignore[arg-type]
