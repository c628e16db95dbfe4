"""Transfers as rows: sent and received offers, their documents, progress, receipts.

A row is never removed before its delivery has expired: a replayed delivery or receipt must find the
one that was kept. Rows with receipts prove what was delivered: they are removed only if a policy
says so, and after their packages.
"""

from collections.abc import AsyncGenerator, Callable, Sequence

from node.documents.arrivals import Outgoing
from node.documents.delivery import Delivery
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS, Document
from node.domain.actors import NODE, Actor
from node.domain.connections import Route
from node.domain.display_text import printable
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.packages import Package, PackageState
from node.domain.patients import Patient
from node.domain.transfers import (
    NOTHING_CARRIED,
    OVERDUE_SECONDS,
    Carried,
    Direction,
    State,
    Transfer,
    can_follow,
    transfer_facts,
)
from node.errors import Conflict, NotFound
from node.sql.database import Db
from node.store import (
    audit_rows,
    choosing,
    findings,
    package_rows,
    patients,
    transfer_rows,
)
from node.store.context import StoreContext, marks
from node.store.transfer_rows import FINAL, IS_ENDED, IS_OPEN, IS_WAITING, OPEN
from node.system import clock

LATEST = 50
"""How many transfers a watch begins with, beside all that are not final."""

_NAMED = 5
_MOST_NAMED = 100
_ID_DIGITS = 32
_PAGE_ROWS = 500
_MOST_FORGOTTEN = 1000
_DAY_SECONDS = 86400
_COUNTED_DAYS = 30


def published_nowhere(_: Transfer) -> None:
    """Do nothing with a transfer that was changed: nobody subscribes."""


class TransferStore:
    """All transfers of this node."""

    def __init__(
        self, context: StoreContext, publish: Callable[[Transfer], None] = published_nowhere
    ) -> None:
        """Prepare; `publish` is called on a worker thread after every commit, with what changed."""
        self._context = context
        self.publish = publish

    async def change(self, row_id: int, work: Callable[[Db], None]) -> Transfer:
        """Change a transfer in one transaction, publish it, and return it.

        Durable once this returns; cancelled, it was done whole or not at all.
        """

        def run(db: Db) -> Transfer:
            work(db)
            return transfer_rows.by_id(db, row_id)

        row = await self._context.database.write(run)
        self.publish(row)
        return row

    # -- reading --------------------------------------------------------------------------

    async def find(
        self, where: str = "1", args: Sequence[object] = (), *, limit: int = 0
    ) -> list[Transfer]:
        """Return transfers that match an SQL condition written by us, newest first."""
        return await self._context.database.read(
            lambda db: transfer_rows.find(db, where, args, limit)
        )

    def search(
        self, *, open_only: bool = False, held_only: bool = False, limit: int = 0
    ) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers, newest first; those not final, or those a person must decide."""
        where = "1"
        if open_only:
            where += f" AND {IS_OPEN}"
        if held_only:
            where += " AND direction = 'receive' AND state = 'held' AND accepted = 0"
        return self._pages(where, limit)

    def with_receipts(self, limit: int = 0) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers that have a receipt, newest first."""
        return self._pages("receipt IS NOT NULL", limit)

    async def _pages(self, where: str, limit: int) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers, newest first, some at a time: each has documents of some kilobytes."""
        left, before = limit or 2**62, 2**62
        while left > 0:
            rows = await self.find(f"{where} AND id < ?", (before,), limit=min(left, _PAGE_ROWS))
            if not rows:
                return
            yield rows
            left, before = left - len(rows), rows[-1].id

    async def latest(self) -> list[Transfer]:
        """Return what is not final and the last few in any state, newest first."""
        open_ids = f"SELECT id FROM transfers WHERE {IS_OPEN}"
        newest = "SELECT id FROM transfers WHERE id > (SELECT MAX(id) FROM transfers) - ?"
        return await self.find(f"id IN ({open_ids} UNION {newest})", (LATEST,))

    async def numbered(self, numbers: Sequence[int]) -> list[Transfer]:
        """Return the transfers of these numbers, newest first."""
        return await self.find(f"id IN ({marks(numbers)})", list(numbers))

    async def open_ones(self) -> list[Transfer]:
        """Return transfers that are not final, oldest first."""
        return (await self.find(IS_OPEN))[::-1]

    async def waiting_for(self, peer: FacilityId) -> list[Transfer]:
        """Return what this node still has to send, or to take back, most urgent first."""
        rows = await self.find(f"{IS_WAITING} AND peer = ?", (peer.digest,))
        return sorted(rows, key=lambda row: (row.priority, row.id))

    async def waiting_one(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        """Return what this node still has to send to a peer, or to take back, by its id."""
        where = f"{IS_WAITING} AND peer = ? AND transfer_id = ?"
        rows = await self.find(where, (peer.digest, transfer_id.value))
        return rows[0] if rows else None

    async def accepted_from(self, peer: FacilityId) -> list[Transfer]:
        """Return a peer's offers that a person accepted here and that have not begun to come."""
        where = (
            "direction = 'receive' AND receipt IS NULL AND peer = ? AND state = 'held'"
            " AND accepted = 1"
        )
        return await self.find(where, (peer.digest,))

    async def sends_of(
        self, peer: FacilityId, origin: FacilityId, package_id: PackageId
    ) -> list[Transfer]:
        """Return all transfers of a package to a peer, newest first."""
        where = "direction = 'send' AND peer = ? AND origin = ? AND package_id = ?"
        return await self.find(where, (peer.digest, origin.digest, package_id.digest))

    async def sendable(self, study: str, origin: str) -> list[Outgoing]:
        """Return one origin's closed packages of a study.

        Raises:
            NotFound, Conflict: see `choosing.choose`.
        """

        def work(db: Db) -> list[Outgoing]:
            uid, chosen = choosing.choose(db, study, origin, self._context.facility)
            found = package_rows.closed_packages(db, uid, chosen)
            everybody = tuple(patients.of_study(db, uid, chosen))
            return [self._outgoing(db, package, everybody) for package in found]

        return await self._context.database.read(work)

    def _outgoing(self, db: Db, package: Package, everybody: tuple[Patient, ...]) -> Outgoing:
        document = Document.decode(package_rows.manifest_document(db, package.id))
        sql = "SELECT COUNT(*) FROM instances WHERE package = ?"
        instances = db.execute(sql, (package.id,)).fetchone()[0]
        plaintext_bytes, sealed_bytes = db.execute(
            "SELECT SUM(plaintext_bytes), SUM(sealed_bytes) FROM chunks WHERE package = ?",
            (package.id,),
        ).fetchone()
        return Outgoing(
            package=package,
            data_key=self._context.data_key(package),
            manifest_digest=document.digest(),
            manifest_bytes=len(document.encode()),
            instances=instances,
            sealed_bytes=sealed_bytes,
            plaintext_bytes=plaintext_bytes,
            held=findings.counts(db, package.id)["held"],
            summary=package_rows.summary_of(db, package, everybody),
        )

    async def get(self, name: str, *, direction: Direction | None = None) -> Transfer:
        """Return the one transfer that a person named: by its number here, or its id's beginning.

        The sender chooses the id: a peer can give its transfer the id of another one. Only the
        number is ours.

        Args:
            name: `t12`, or the beginning of an id.
            direction: Only of this direction; None for either.

        Raises:
            NotFound: there is none.
            Conflict: several are meant; the message names them by number.
        """
        wanted = name.strip().lower()
        number = wanted.removeprefix("t")
        if number != wanted and number.isascii() and number.isdigit():
            rows = await self.numbered([int(number)]) if len(number) < 19 else []
        elif wanted and not wanted.strip("0123456789abcdef"):
            rows = await self._named(wanted)
        else:
            raise NotFound("a transfer is named by its number, such as t12, or its hexadecimal id")
        rows = [row for row in rows if direction in (None, row.direction)]
        if not rows:
            raise NotFound(f"no transfer {printable(wanted[:40])}; `emix transfers` lists them")
        if len(rows) > 1:
            some = ", ".join(f"{row.name} ({row.direction})" for row in rows[:_NAMED])
            more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
            raise Conflict(f"{wanted} may be {some}{more}; name one by its number")
        return rows[0]

    async def _named(self, beginning: str) -> list[Transfer]:
        """Return the transfers whose id begins so, in hexadecimal digits."""
        if len(beginning) > _ID_DIGITS:
            return []
        ends = [bytes.fromhex(beginning.ljust(_ID_DIGITS, digit)) for digit in "0f"]
        return await self.find("transfer_id BETWEEN ? AND ?", ends, limit=_MOST_NAMED)

    async def rates(self) -> dict[FacilityId, float]:
        """Return the sealed bytes a second of the last transfer with each peer."""
        sql = (
            "SELECT facility, (SELECT bytes_carried / carried_seconds FROM transfers"
            " WHERE peer = facility AND carried_seconds > 0 ORDER BY updated_time DESC LIMIT 1)"
            " FROM peers"
        )
        rows = await self._context.database.read(lambda db: db.execute(sql).fetchall())
        return {FacilityId(peer): float(rate) for peer, rate in rows if rate is not None}

    # -- both sides -----------------------------------------------------------------------

    async def set_state(
        self, row: Transfer, state: State, reason: str = "", *, actor: Actor = NODE
    ) -> Transfer:
        """Move a transfer to a state; staying where it is only changes the reason.

        Raises:
            Conflict: it has got to a state from where it cannot go there.
        """
        return await self.change(row.id, lambda db: _move(db, row, state, reason, actor))

    async def find_received(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        """Return a transfer that a peer sends us, if it is known here."""
        where = "direction = 'receive' AND peer = ? AND transfer_id = ?"
        rows = await self.find(where, (peer.digest, transfer_id.value))
        return rows[0] if rows else None

    async def take_back(self, row: Transfer, actor: Actor) -> Transfer:
        """Cancel a transfer of ours, of which the receiver is still to be told.

        Raises:
            Conflict: it has come to another end.
        """

        def work(db: Db) -> None:
            if transfer_rows.by_id(db, row.id).state is not State.CANCELLED:
                _move(db, row, State.CANCELLED, "", actor)
                db.execute("UPDATE transfers SET withdrawal_pending = 1 WHERE id = ?", (row.id,))

        return await self.change(row.id, work)

    async def note_overdue(self, now: float) -> int:
        """Raise alarms, each once, about transfers that are overdue; return how many.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        since = now - min(OVERDUE_SECONDS.values())
        rows = await self.find(f"state IN ({OPEN}) AND created_time < ?", (since,))
        overdue = [row for row in rows if row.is_overdue(now)]
        if not overdue:
            return 0
        return await self._context.database.write(
            lambda db: transfer_rows.alarm_overdue(db, overdue, now)
        )

    async def note_withdrawal_known(self, row: Transfer) -> Transfer:
        """Note that the receiver need not be told any more that a transfer was taken back."""

        def work(db: Db) -> None:
            db.execute("UPDATE transfers SET withdrawal_pending = 0 WHERE id = ?", (row.id,))

        return await self.change(row.id, work)

    async def set_route(self, row: Transfer, route: Route) -> Transfer:
        """Keep how the peer is reached."""
        if row.route == route:
            return row

        def work(db: Db) -> None:
            db.execute("UPDATE transfers SET route = ? WHERE id = ?", (route, row.id))

        return await self.change(row.id, work)

    async def note_progress(
        self, row: Transfer, done: int, carried: int, seconds: float
    ) -> Transfer:
        """Keep how many sealed bytes are durable at the receiver; how many went by, in a time.

        Here, a chunk that is found lost makes them fewer. A sender keeps the most that it was
        promised: it hears of them only once the receiver has looked.
        """

        def work(db: Db) -> None:
            db.execute(
                "UPDATE transfers SET bytes_done ="
                " CASE direction WHEN 'receive' THEN ?1 ELSE MAX(bytes_done, ?1) END,"
                " bytes_carried = bytes_carried + ?2, carried_seconds = carried_seconds + ?3,"
                " updated_time = ?4 WHERE id = ?5",
                (done, carried, seconds, clock.now(), row.id),
            )

        return await self.change(row.id, work)

    # -- the sender's side ----------------------------------------------------------------

    async def add_sends(
        self,
        sends: Sequence[tuple[Delivery, Document, bytes, Outgoing]],
        actor: Actor,
    ) -> list[Transfer]:
        """Keep new deliveries of ours: durable once this returns.

        Args:
            sends: Delivery, its document, the sealed key, the package.
            actor: Who asked for it.
        """

        def work(db: Db) -> list[Transfer]:
            rows = []
            for delivery, document, sealed_key, outgoing in sends:
                row_id = transfer_rows.add_transfer(
                    db,
                    Direction.SEND,
                    delivery,
                    document,
                    sealed_key,
                    State.PENDING,
                    study_uid=outgoing.package.study_uid,
                    plaintext_bytes=outgoing.plaintext_bytes,
                )
                added = transfer_rows.by_id(db, row_id)
                facts = {**transfer_facts(added), "recipient": delivery.recipient}
                if outgoing.held:
                    facts["held"] = outgoing.held
                audit_rows.append(db, "transfer.offered", facts, actor)
                package_rows.note_looked(db, [outgoing.package.id])
                rows.append(added)
            return rows

        rows = await self._context.database.write(work)
        for row in rows:
            self.publish(row)
        return rows

    async def sending_manifest(self, row: Transfer) -> Document:
        """Return the manifest of the package that a transfer of ours sends.

        Raises:
            NotFound: it was deleted here meanwhile.
        """

        def work(db: Db) -> Document:
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None or package.state is not PackageState.CLOSED:
                raise NotFound("the package was deleted here before it was sent")
            return Document.decode(package_rows.manifest_document(db, package.id))

        return await self._context.database.read(work)

    async def keep_receipt(
        self, row: Transfer, receipt: Document, carried: Carried = NOTHING_CARRIED
    ) -> Transfer:
        """Keep a verified receipt: the transfer is delivered. Durable once this returns.

        A transfer that has ended otherwise keeps its state. Its receipt is kept all the same: it
        proves that the receiver has the package.

        Durable once this returns; cancelled, it was done whole or not at all.
        """

        def work(db: Db) -> None:
            now = transfer_rows.by_id(db, row.id)
            transfer_rows.add_carried(db, row.id, carried)
            if now.receipt is not None:
                return
            state = now.state if now.state.is_final else State.DELIVERED
            db.execute(
                "UPDATE transfers SET state = ?, receipt = ?, bytes_done = bytes_total,"
                " reason = CASE WHEN ? = 'delivered' THEN '' ELSE reason END,"
                " updated_time = ? WHERE id = ?",
                (state, receipt.encode(), state, clock.now(), row.id),
            )
            transfer_rows.keep_manifest(db, row)
            facts = {**transfer_facts(now), "receipt": receipt.digest().hex()}
            kind = "transfer.delivered" if state is State.DELIVERED else "receipt.late"
            audit_rows.append(db, kind, facts)

        return await self.change(row.id, work)

    # -- the receiver's side --------------------------------------------------------------

    async def decide_offer(
        self, row: Transfer, *, accept: bool, reason: str, actor: Actor
    ) -> Transfer:
        """Keep a person's decision on a held offer.

        Durable once this returns; cancelled, it was done whole or not at all.

        Raises:
            Conflict: it is not held.
        """

        def work(db: Db) -> None:
            now = transfer_rows.by_id(db, row.id)
            if now.direction is not Direction.RECEIVE or now.state is not State.HELD:
                raise Conflict(f"transfer {row.name} is not a held offer")
            if accept:
                db.execute(
                    "UPDATE transfers SET accepted = 1, reason = 'accepted; waiting for the"
                    " sender', updated_time = ? WHERE id = ?",
                    (clock.now(), row.id),
                )
            else:
                db.execute(
                    "UPDATE transfers SET state = 'declined', reason = ?, updated_time = ?"
                    " WHERE id = ?",
                    (reason, clock.now(), row.id),
                )
                transfer_rows.forget_offer(db, row.id)
            kind = "offer.accepted" if accept else "offer.declined"
            audit_rows.append(db, kind, transfer_facts(now), actor)

        return await self.change(row.id, work)

    async def stored_manifest(self, row: Transfer) -> Document | None:
        """Return the manifest kept for the package that a transfer is about, if there is one.

        A delivered transfer keeps it even when the package was deleted here.
        """

        def work(db: Db) -> Document | None:
            kept = db.execute(
                "SELECT m.manifest FROM transfers t JOIN transfer_manifests m"
                " ON m.digest = t.manifest_digest WHERE t.id = ?",
                (row.id,),
            ).fetchone()
            if kept is not None:
                return Document.decode(kept[0])
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None or package.manifest_digest is None:
                return None
            return Document.decode(package_rows.manifest_document(db, package.id))

        return await self._context.database.read(work)

    async def expired(self, now: float) -> list[Transfer]:
        """Return transfers to us that are not final and whose delivery stands no longer."""
        where = f"direction = 'receive' AND {IS_OPEN} AND expires_time < ?"
        return await self.find(where, (now,))

    async def forget_expired(self, now: float) -> int:
        """Remove offers to us that ended without a receipt and stand no longer.

        Shown again, they are refused for their age.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        sql = (
            f"DELETE FROM transfers WHERE direction = 'receive' AND state IN ({FINAL})"
            " AND receipt IS NULL AND expires_time < ?"
        )

        def work(db: Db) -> int:
            # What was counted of a peer's receipts counts for 30 days.
            earliest = now // _DAY_SECONDS - _COUNTED_DAYS
            db.execute("DELETE FROM receipt_days WHERE day < ?", (earliest,))
            return int(db.execute(sql, (now,)).rowcount)

        return await self._context.database.write(work)

    async def forget_old(self, days: int) -> int:
        """Remove transfers that ended so many days ago and whose packages are not here any more.

        Their documents are removed with them; export receipts first to keep the proofs. A transfer
        whose delivery still stands is kept, since the delivery can be shown again.

        Durable once this returns; cancelled, it was done whole or not at all.

        Returns:
            How many; at most a thousand at once.
        """

        def work(db: Db) -> int:
            now = clock.now()
            rows = db.execute(
                "SELECT id, manifest_digest FROM transfers INDEXED BY transfers_ended"
                f" WHERE {IS_ENDED} AND updated_time < ? AND expires_time < ? AND NOT EXISTS"
                " (SELECT 1 FROM packages p WHERE p.origin = transfers.origin"
                " AND p.package_id = transfers.package_id) LIMIT ?",
                (now - days * _DAY_SECONDS, now - MAX_CLOCK_SKEW_SECONDS, _MOST_FORGOTTEN),
            ).fetchall()
            if not rows:
                return 0
            ids = [row[0] for row in rows]
            db.execute(
                "DELETE FROM deletions WHERE (peer, transfer_id) IN (SELECT peer, transfer_id"
                f" FROM transfers WHERE id IN ({marks(ids)}))",
                ids,
            )
            db.execute(f"DELETE FROM transfers WHERE id IN ({marks(ids)})", ids)
            for digest in {bytes(row[1]) for row in rows if row[1] is not None}:
                db.execute(
                    "DELETE FROM transfer_manifests WHERE digest = ?1 AND NOT EXISTS"
                    " (SELECT 1 FROM transfers WHERE manifest_digest = ?1)",
                    (digest,),
                )
            facts: dict[str, object] = {"transfers": len(rows), "why": f"ended {days} days ago"}
            audit_rows.append(db, "transfers.forgotten", facts)
            return len(rows)

        return await self._context.database.write(work)

    async def by_number(self, number: int) -> Transfer:
        """Return a transfer as it now stands; `NotFound` if it is gone."""
        return await self._context.database.read(lambda db: transfer_rows.by_id(db, number))


def _move(db: Db, row: Transfer, state: State, reason: str, actor: Actor) -> None:
    now = transfer_rows.by_id(db, row.id)
    if now.state is not state and not can_follow(now.state, state):
        raise Conflict(f"transfer {row.name} is {now.state} already")
    if (now.state, now.reason) == (state, reason):
        return
    db.execute(
        "UPDATE transfers SET state = ?, reason = ?, updated_time = ? WHERE id = ?",
        (state, reason, clock.now(), row.id),
    )
    if state.is_final:
        transfer_rows.forget_offer(db, row.id)
    if now.state is not state and state.is_final:
        facts = {**transfer_facts(now), "state": state}
        audit_rows.append(db, f"transfer.{state}", facts, actor)
        transfer_rows.alarm_ended(db, now, state, reason, actor)
