"""Heads of audit logs: our own for peers, peers' heads kept here, our heads that peers keep."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from node.documents.audit_head import sign_head
from node.domain.actors import Actor
from node.domain.audit import AuditEntry, link
from node.domain.heads import (
    MAX_LINKS,
    MOST_EVIDENCE,
    MOST_NODES,
    MOST_UNPROVEN,
    Confirmed,
    GivenHead,
    Head,
    Judgement,
    KeptHead,
    ReportedHead,
    contradicted,
    judge,
    own_problem,
    thinned,
)
from node.domain.ids import FacilityId, NodeId
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext
from node.system import clock

PEER_ALARM = "alarm.peer-audit-log"
OWN_ALARM = "alarm.audit-log"
_OF_LOG = "facility = ? AND node = ? AND settled = 0"


class HeadStore:
    """Both sides of holding each other's audit logs."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database
        self._facility = context.facility
        self._signer = context.signer
        self._signed: tuple[int, bytes] = (0, b"")
        self._heard: dict[FacilityId, tuple[Sequence[KeptHead], float]] = {}
        self._taken: dict[FacilityId, bytes] = {}  # the last of each that needs no second look
        self._unproven: Counter[FacilityId] = Counter()

    # -- our own --------------------------------------------------------------------------

    async def own_head(self) -> bytes:
        """Return the signed head of this node's log; empty while it has no entry."""
        found = await self._database.read(lambda db: list(audit_rows.entries(db, 1)))
        return self._sign(found[0]) if found else b""

    async def give(self, witness: FacilityId) -> GivenHead:
        """Return a head for a witness, with the proof that it continues the one that it keeps.

        It is the newest head, or an earlier one if the proof would exceed `MAX_LINKS` entries.
        """
        entries, after = await self._database.read(lambda db: _unproven_entries(db, witness))
        if not entries:
            return GivenHead(b"")
        encoded = self._sign(entries[-1])
        if not after:
            return GivenHead(encoded)
        return GivenHead(encoded, after, b"".join(map(link, entries)))

    def _sign(self, entry: AuditEntry) -> bytes:
        sequence, encoded = self._signed
        if sequence != entry.sequence:
            moment = entry.time_milliseconds
            encoded = sign_head(entry.sequence, entry.digest, moment, self._signer).encode()
            self._signed = entry.sequence, encoded
        return encoded

    async def note_reported(self, witness: FacilityId, kept: Sequence[KeptHead]) -> None:
        """Keep the heads of this node's log that a witness reports, and compare them with the log.

        A head that contradicts the log raises an alarm. Heads of other facilities are ignored, and
        so are heads of earlier nodes of this facility, which may have had other logs.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        me = self._facility, self._signer.node_id
        ours = [k for k in kept if (k.head.facility, k.head.node) == me]
        before, _ = self._heard.get(witness, (None, 0.0))
        if ours != before:
            await self._database.write(lambda db: _note_reported(db, witness, ours))
        self._heard[witness] = ours, clock.now()

    async def reported(self) -> list[ReportedHead]:
        """Return what witnesses told, by witness, newest entry first."""
        sql = (
            "SELECT witness, sequence, digest, taken_time, reported_time FROM reported_heads"
            " ORDER BY witness, sequence DESC, taken_time DESC"
        )
        rows = await self._database.read(lambda db: db.execute(sql).fetchall())
        found = [ReportedHead(FacilityId(row[0]), *tuple(row)[1:]) for row in rows]
        return [
            replace(reported, reported_time=self._heard[reported.witness][1], is_heard=True)
            if reported.witness in self._heard
            else reported
            for reported in found
        ]

    def confirmed_sync(self) -> Confirmed:
        """Return how far others confirm this log, by what they told last; on the calling thread."""
        return self._database.read_sync(_confirmed)

    # -- others' --------------------------------------------------------------------------

    async def take(self, head: Head, given: GivenHead) -> None:
        """Keep a head that a facility gave of its own log; durable once this returns.

        A head that contradicts the kept ones raises an alarm, and the newest of those that it
        contradicts stays as evidence.
        """
        facility = head.facility
        if self._taken.get(facility) == given.encoded:
            return

        def work(db: Db) -> Judgement:
            kept = _kept(db, facility, head.node)
            plain = [k.head for k in kept if not k.is_contradicted]
            judgement = judge(plain, head, given.after, given.links)
            is_unproven = judgement is Judgement.UNPROVEN
            if is_unproven and self._unproven[facility] + 1 >= MOST_UNPROVEN:
                judgement = Judgement.CONTRADICTS
            _apply(db, kept, head, given.encoded, judgement)
            return judgement

        judgement = await self._database.write(work)
        if judgement is Judgement.UNPROVEN:
            self._unproven[facility] += 1
        else:
            self._unproven.pop(facility, None)
            self._taken[facility] = given.encoded

    async def kept(self, facility: FacilityId, node: NodeId) -> list[KeptHead]:
        """Return what is kept of a node's log: the newest, what was contradicted, the others."""
        found = await self._database.read(lambda db: _kept(db, facility, node))
        evidence = [kept for kept in found if kept.is_contradicted]
        others = [kept for kept in found if not kept.is_contradicted]
        return [*others[:1], *evidence, *others[1:]]

    async def settle(self, facility: FacilityId, actor: Actor) -> int:
        """Let a facility's log begin anew here: its heads so far count no longer.

        They stay as evidence until this is done again. Returns how many they were.

        Durable once this returns; cancelled, it was done whole or not at all.
        """

        def work(db: Db) -> int:
            db.execute("DELETE FROM kept_heads WHERE facility = ? AND settled", (facility.digest,))
            sql = "UPDATE kept_heads SET settled = 1 WHERE facility = ?"
            count = int(db.execute(sql, (facility.digest,)).rowcount)
            facts: dict[str, object] = {"facility": str(facility), "heads": count}
            audit_rows.append(db, "audit.peer-accepted", facts, actor)
            return count

        count = await self._database.write(work)
        self._taken.pop(facility, None)
        return count


def _unproven_entries(db: Db, witness: FacilityId) -> tuple[list[AuditEntry], int]:
    """Return the entries after the head that a witness keeps, and its number; else newest and 0."""
    sql = (
        "SELECT t.sequence FROM reported_heads t JOIN audit a ON a.sequence = t.sequence"
        " AND a.digest = t.digest WHERE t.witness = ? ORDER BY t.sequence DESC LIMIT 1"
    )
    row = db.execute(sql, (witness.digest,)).fetchone()
    after = row[0] if row else 0
    entries = audit_rows.following(db, after, MAX_LINKS) if after else []
    return (entries, after) if entries else (list(audit_rows.entries(db, 1)), 0)


def _confirmed(db: Db) -> Confirmed:
    entries, _ = audit_rows.newest(db) or (0, b"")
    row = db.execute(
        "SELECT MAX(a.sequence), COUNT(DISTINCT t.witness), COUNT(*) - COUNT(a.sequence)"
        " FROM reported_heads t"
        " LEFT JOIN audit a ON a.sequence = t.sequence AND a.digest = t.digest"
    ).fetchone()
    sequence = row[0] or 0
    sql = "SELECT time_milliseconds FROM audit WHERE sequence = ?"
    following = db.execute(sql, (sequence + 1,)).fetchone()
    return Confirmed(entries, sequence, following[0] / 1000 if following else 0.0, row[1], row[2])


def _note_reported(db: Db, witness: FacilityId, kept: Sequence[KeptHead]) -> None:
    db.execute("DELETE FROM reported_heads WHERE witness = ?", (witness.digest,))
    for found in kept:
        head = found.head
        values = (witness.digest, head.sequence, head.digest, found.taken_time, clock.now())
        db.execute("INSERT OR IGNORE INTO reported_heads VALUES (?, ?, ?, ?, ?)", values)
        digest = audit_rows.digest_at(db, head.sequence)
        if problem := own_problem(head.sequence, head.digest, digest):
            audit_rows.alarm_about(db, OWN_ALARM, str(witness), f"this node's own: {problem}")


def _kept(db: Db, facility: FacilityId, node: NodeId) -> list[KeptHead]:
    rows = db.execute(
        "SELECT sequence, digest, time_milliseconds, document, taken_time, contradicted"
        f" FROM kept_heads WHERE {_OF_LOG} ORDER BY sequence DESC",
        (facility.digest, node.digest),
    )
    return [
        KeptHead(Head(facility, node, *tuple(row)[:3]), row[3], row[4], bool(row[5]))
        for row in rows
    ]


def _apply(
    db: Db, kept: Sequence[KeptHead], shown: Head, encoded: bytes, judgement: Judgement
) -> None:
    """Bring what is kept of a log up to date."""
    plain = [k for k in kept if not k.is_contradicted]
    match judgement:
        case Judgement.FIRST | Judgement.GREW:
            added = KeptHead(shown, encoded, clock.now(), is_contradicted=False)
            _insert(db, added)
            stays = thinned([*plain, added])
            for gone in [k.head for k in plain if k.head not in stays]:
                db.execute(f"DELETE FROM kept_heads WHERE {_OF_ENTRY}", _key(gone))
            _forget_earlier_nodes(db, shown.facility)
        case Judgement.CONTRADICTS:
            _alarm(db, shown.facility)
            if len(kept) - len(plain) >= MOST_EVIDENCE:
                return  # enough of it: a person has to decide
            newest, *others = contradicted([k.head for k in plain], shown)
            db.execute(f"UPDATE kept_heads SET contradicted = 1 WHERE {_OF_ENTRY}", _key(newest))
            for gone in others:
                db.execute(f"DELETE FROM kept_heads WHERE {_OF_ENTRY}", _key(gone))
            _insert(db, KeptHead(shown, encoded, clock.now(), is_contradicted=False))


_OF_ENTRY = f"{_OF_LOG} AND sequence = ? AND digest = ?"


def _key(head: Head) -> tuple[object, ...]:
    return head.facility.digest, head.node.digest, head.sequence, head.digest


def _alarm(db: Db, facility: FacilityId) -> None:
    problem = (
        f"the audit log of facility {facility.short()} does not continue from its earlier head: the"
        " log was truncated or rewritten, or an old copy of the home was restored"
    )
    audit_rows.alarm_about(db, PEER_ALARM, str(facility), problem)


def _insert(db: Db, kept: KeptHead) -> None:
    db.execute(
        "INSERT OR REPLACE INTO kept_heads (facility, node, sequence, digest, time_milliseconds,"
        " taken_time, document) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*_key(kept.head), kept.head.time_milliseconds, kept.taken_time, kept.encoded),
    )


def _forget_earlier_nodes(db: Db, facility: FacilityId) -> None:
    db.execute(
        "DELETE FROM kept_heads WHERE facility = ?1 AND node NOT IN (SELECT node FROM kept_heads"
        " WHERE facility = ?1 GROUP BY node ORDER BY MAX(taken_time) DESC LIMIT ?2)",
        (facility.digest, MOST_NODES),
    )
