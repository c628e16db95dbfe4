"""Pinned peers. A removal is recorded and permanent, unless a person restores the peer."""

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from node.crypto.certificates import fingerprint
from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.actors import Actor
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.errors import Conflict, NotFound, PeerUntrusted
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext
from node.system import clock

T = TypeVar("T")


class PeerStore:
    """The pins. What was verified once is not verified again: a statement never changes."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database
        self._verified: dict[FacilityId, Identity] = {}  # used on worker threads, one at a time

    async def all(self) -> list[Peer]:
        """Return all peers, removed ones too."""
        rows = await self._database.read(
            lambda db: list(db.query("SELECT * FROM peers ORDER BY pinned_time"))
        )
        # Outside the database's lock: verifying statements that are not cached takes 0.7 ms each.
        return await trio.to_thread.run_sync(lambda: [self._peer(row) for row in rows])

    async def get(self, facility: FacilityId) -> Peer | None:
        """Return one peer, removed or not."""
        return await self._database.read(lambda db: self._get(db, facility))

    def _get(self, db: Db, facility: FacilityId) -> Peer | None:
        rows = list(db.query("SELECT * FROM peers WHERE facility = ?", (facility.digest,)))
        return self._peer(rows[0]) if rows else None

    def _peer(self, row: dict[str, Any]) -> Peer:
        facility, encoded = FacilityId(row["facility"]), bytes(row["statements"])
        identity = self._verified.get(facility)
        if identity is None or identity.encoded != encoded:
            identity = self._verified[facility] = Identity.decode(encoded)
        return _with_identity(row, identity)

    async def pin(
        self,
        identity: Identity,
        *,
        endpoint: str,
        how: str,
        actor: Actor,
        restore_removed: bool = False,
        name: str = "",
        member: tuple[NetworkId, InvitationId] | None = None,
    ) -> Peer:
        """Pin a facility, or renew the statements of one that is pinned.

        Durable once this returns; cancelled, it was done whole or not at all.

        Args:
            identity: The facility's verified statements.
            endpoint: The address that a person gave; empty to use the stated endpoints.
            how: How it was pinned.
            actor: Who asked.
            restore_removed: Pin it even if it was removed before.
            name: Its local name; empty to keep the earlier one, or to use its own.
            member: Trust it only as a member of that network, by that invitation.

        Raises:
            Conflict: it was removed here, and `restore_removed` is false.
            PeerUntrusted: its node has been replaced; or its node key or certificate is
                another peer's, which is an alarm.
        """

        def work(db: Db) -> Peer:
            old = self._get(db, identity.facility_id)
            if old and old.is_removed and not restore_removed:
                raise Conflict(
                    f"facility {identity.facility_id.short()} was removed here;"
                    " to accept it again, add --restore-removed"
                )
            if old and member and old.network is None and not old.is_removed:
                return old  # a person's pin is worth more
            kept = identity
            if old and old.identity.cert.generation > identity.cert.generation:
                raise PeerUntrusted(
                    f"facility {identity.facility_id.short()} has replaced the node that"
                    " made these statements; get its current ones"
                )
            if old and old.identity.order > identity.order:
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
                    actor.text,
                    clock.now(),
                    member[0].digest if member else None,
                    member[1].digest if member else None,
                    name or (old.name if old else kept.profile.display_name),
                ),
            )
            _claim(db, kept)
            facts: dict[str, object] = {"facility": str(identity.facility_id), "how": how}
            audit_rows.append(db, "peer.pinned", facts, actor)
            found = self._get(db, identity.facility_id)
            if found is None:
                raise NotFound("the pin was not stored")
            return found

        return await self._write(identity, work)

    async def renew(self, identity: Identity) -> bool:
        """Keep newer statements of a pinned facility: a new certificate, a new name.

        Durable once this returns; cancelled, it was done whole or not at all.

        Returns:
            False: newer ones than these are kept, or the facility is not pinned any more.

        Raises:
            PeerUntrusted: its node key or certificate is another peer's, which is an alarm.
        """

        def work(db: Db) -> bool:
            # Checked inside the transaction: the holder of a stolen node key may race the new node.
            old = self._get(db, identity.facility_id)
            if old is None or old.is_removed or old.identity.order >= identity.order:
                return False
            db.execute(
                "UPDATE peers SET statements = ? WHERE facility = ?",
                (identity.encoded, identity.facility_id.digest),
            )
            _claim(db, identity)
            if _ways_in(old.identity) != _ways_in(identity):
                facts: dict[str, object] = {
                    "facility": str(identity.facility_id),
                    "node": identity.cert.generation,
                }
                audit_rows.append(db, "peer.renewed", facts)
            return True

        return await self._write(identity, work)

    async def alarm(self, facility: FacilityId, problem: str) -> None:
        """Record an alarm about a pinned facility's statements, unless the same one is open."""
        facts: dict[str, object] = {"facility": str(facility), "problem": problem}
        await self._database.write(lambda db: audit_rows.alarm(db, "alarm.peer", facts))

    async def _write(self, identity: Identity, work: Callable[[Db], T]) -> T:
        try:
            return await self._database.write(work)
        except _Claimed as exc:
            problem = f"its node key or TLS certificate is facility {exc.owner.short()}'s"
            await self.alarm(identity.facility_id, problem)
            raise PeerUntrusted(
                f"facility {identity.facility_id.short()} was not accepted: {problem}; find out"
                " which of the two is genuine"
            ) from exc

    async def remove(self, facility: FacilityId, actor: Actor) -> Peer:
        """Remove a peer for good; durable once this returns."""

        def work(db: Db) -> Peer:
            db.execute(
                "UPDATE peers SET removed_time = ? WHERE facility = ? AND removed_time IS NULL",
                (clock.now(), facility.digest),
            )
            facts: dict[str, object] = {"facility": str(facility)}
            audit_rows.append(db, "peer.removed", facts, actor)
            db.execute("DELETE FROM claims WHERE facility = ?", (facility.digest,))
            found = self._get(db, facility)
            if found is None:
                raise NotFound(f"facility {facility.short()} is not pinned here")
            return found

        return await self._database.write(work)

    async def note_seen(self, facility: FacilityId, when: float) -> None:
        """Keep when a peer was last heard of.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        await self._database.write(
            lambda db: db.execute(
                "UPDATE peers SET last_seen_time = ? WHERE facility = ?", (when, facility.digest)
            )
        )


def _ways_in(identity: Identity) -> tuple[object, ...]:
    """Return those parts of a peer's statements whose changes are recorded."""
    return identity.certificates, identity.seal_key, identity.profile.endpoints


class _Claimed(Exception):
    """A node key or certificate that a facility states is another peer's."""

    def __init__(self, owner: FacilityId) -> None:
        super().__init__(owner)
        self.owner = owner


def _claim(db: Db, identity: Identity) -> None:
    """Replace a peer's claims to its node key and certificates; `_Claimed` if one is another's."""
    own = [identity.node_id.digest, *map(fingerprint, identity.certificates)]
    facility = identity.facility_id.digest
    db.execute("DELETE FROM claims WHERE facility = ?", (facility,))
    for digest in own:
        row = db.execute("SELECT facility FROM claims WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            db.execute("INSERT INTO claims VALUES (?, ?)", (digest, facility))
        elif row[0] != facility:
            raise _Claimed(FacilityId(row[0]))


def _with_identity(row: dict[str, Any], identity: Identity) -> Peer:
    read: dict[str, Callable[[Any], object]] = {"network": NetworkId, "invitation": InvitationId}
    values: dict[str, Any] = {
        k: read[k](v) if k in read and v is not None else v
        for k, v in row.items()
        if k not in ("facility", "statements")
    }
    return Peer(identity=identity, **values)
