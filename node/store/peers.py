"""Pinned peers. A removal is kept: it holds for good, until a person says otherwise."""

import time
from collections.abc import Callable
from typing import Any

from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.ids import FacilityId, InvitationId, NetworkId
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

    async def get(self, facility: FacilityId) -> Peer | None:
        """Return one peer, removed or not."""
        return await self._database.read(lambda db: _get(db, facility))

    async def pin(
        self,
        identity: Identity,
        *,
        endpoint: str,
        how: str,
        operator: str,
        restore_removed: bool = False,
        name: str = "",
        member: tuple[NetworkId, InvitationId] | None = None,
    ) -> Peer:
        """Pin a facility, or renew the statements of one that is pinned.

        Args:
            identity: The facility's.
            endpoint: Where a person says that it is; empty for what it states.
            how: How it came to be pinned.
            operator: Who asked.
            restore_removed: Bring back one that was removed.
            name: What it is called here; empty for what it was called before, or calls itself.
            member: Trust it only as a member of that network, by that invitation.

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
            if old and member and old.network is None and not old.is_removed:
                return old  # a person's pin is worth more
            kept = identity
            if old and old.identity.profile.issued_seconds > identity.profile.issued_seconds:
                kept = old.identity  # never back to older statements
            db.execute(
                "INSERT INTO peers (facility, statements, endpoint, pinned_how, pinned_by,"
                " pinned_time, removed_time, network, invitation,"
                " name) VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?)"
                " ON CONFLICT (facility) DO UPDATE SET statements = excluded.statements,"
                " endpoint = excluded.endpoint, pinned_how = excluded.pinned_how,"
                " pinned_by = excluded.pinned_by, pinned_time = excluded.pinned_time,"
                " removed_time = NULL, network = excluded.network,"
                " invitation = excluded.invitation, name = excluded.name",
                (
                    identity.facility_id.digest,
                    kept.encoded,
                    endpoint,
                    how,
                    operator,
                    time.time(),
                    member[0].digest if member else None,
                    member[1].digest if member else None,
                    name or (old.name if old else kept.profile.display_name),
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
            old = _get(db, identity.facility_id)
            db.execute(
                "UPDATE peers SET statements = ? WHERE facility = ? AND removed_time IS NULL",
                (identity.encoded, identity.facility_id.digest),
            )
            if old is None or _ways_in(old.identity) != _ways_in(identity):
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


def _ways_in(identity: Identity) -> tuple[object, ...]:
    """Return what of a peer's statements is recorded when it changes."""
    return identity.certificates, identity.seal_key, identity.profile.endpoints


def _all(db: Db) -> list[Peer]:
    return [_row(row) for row in db.query("SELECT * FROM peers ORDER BY pinned_time")]


def _get(db: Db, facility: FacilityId) -> Peer | None:
    rows = list(db.query("SELECT * FROM peers WHERE facility = ?", (facility.digest,)))
    return _row(rows[0]) if rows else None


def _row(row: dict[str, Any]) -> Peer:
    read: dict[str, Callable[[Any], object]] = {"network": NetworkId, "invitation": InvitationId}
    values: dict[str, Any] = {
        k: read[k](v) if k in read and v is not None else v
        for k, v in row.items()
        if k not in ("facility", "statements")
    }
    return Peer(identity=Identity.decode(row["statements"]), **values)
