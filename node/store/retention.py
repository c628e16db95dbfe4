"""Retention: received packages that are old enough are announced, and deleted a week later."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from node.domain.actors import NODE, Actor
from node.domain.ids import FacilityId, PackageId
from node.domain.retention import DAY_SECONDS, MOST_AT_ONCE, WARNING_SECONDS, Aged, Fate, Step
from node.errors import Conflict
from node.sql.database import Db
from node.store import audit_rows, deletions
from node.store.context import StoreContext, marks
from node.store.removal import finish_removals
from node.store.transfer_rows import IS_WAITING
from node.system import clock

_PAGE = 500


@dataclass(frozen=True)
class Outlook:
    """What retention will do, in numbers.

    Attributes:
        unseen: Packages that are old enough and that nobody has looked at: they are kept.
        announced: Packages that are announced, or will be with the next step.
        first_time: When the first of them is deleted at the earliest; 0 if none is announced.
    """

    unseen: int
    announced: int
    first_time: float


class RetentionStore:
    """Applies the policy to one open store."""

    def __init__(self, context: StoreContext, days: int) -> None:
        """Prepare; `days` is how long what was received is kept, 0 for always."""
        self._context = context
        self._days = days

    @property
    def days(self) -> int:
        """For how many days what was received is kept; 0 for ever."""
        return self._days

    def use_days(self, days: int) -> None:
        """Keep what was received for so many days from now on."""
        self._days = days

    async def page(self, after: int) -> list[Aged]:
        """Return the next packages, after a row number, that are older than the policy allows."""
        if not self.days:
            return []
        before = clock.now() - self.days * DAY_SECONDS
        return await self._context.database.read(
            lambda db: _aged(db, before, "p.id > ?", (after,), _PAGE)
        )

    def outlook_sync(self) -> Outlook:
        """Return what retention will do; runs on the calling thread."""
        if not self.days:
            return Outlook(0, 0, 0.0)
        before = clock.now() - self.days * DAY_SECONDS
        sql = (
            "SELECT COALESCE(SUM(looked_time IS NULL), 0), COALESCE(SUM(looked_time IS NOT NULL),"
            f" 0), COALESCE(MIN(expiring_time), 0) FROM packages p WHERE {_OLD}"
        )
        row = self._context.database.read_sync(lambda db: db.execute(sql, (before,)).fetchone())
        return Outlook(*row)

    async def step(self, actor: Actor = NODE) -> Step:
        """Announce what has become old enough, and delete some of what was announced a week ago.

        What it announced and deleted is durable once this returns; cancelled, the rest is left to
        the next step.

        Raises:
            Conflict: the clock is suspect: nothing is deleted by it.
        """
        if not self.days:
            return Step(0, 0)
        if doubt := clock.CLOCK.doubt:
            raise Conflict(f"nothing is deleted: {doubt}")
        step = await self._context.database.write(partial(_step, self.days, actor), in_need=True)
        if step.deleted:
            await trio.to_thread.run_sync(finish_removals, self._context)
        return step


_OLD = "p.state = 'closed' AND p.received_from IS NOT NULL AND p.created_time < ?"


_IS_SENDING = (
    "EXISTS (SELECT 1 FROM transfers t WHERE"
    f" t.origin = p.origin AND t.package_id = p.package_id AND {IS_WAITING})"
)


def _aged(db: Db, before: float, where: str, args: Sequence[object], limit: int) -> list[Aged]:
    rows = db.execute(
        "SELECT p.id, p.study_uid, p.package_id, p.origin, p.received_from, p.created_time,"
        f" p.looked_time IS NOT NULL, {_IS_SENDING}, p.expiring_time"
        f" FROM packages p WHERE {_OLD} AND {where} ORDER BY p.id LIMIT ?",
        (before, *args, limit),
    )
    return [
        Aged(
            number=row[0],
            study_uid=row[1],
            package=row[2],
            origin=row[3],
            received_from=row[4],
            created_time=row[5],
            is_looked_at=bool(row[6]),
            is_sending=bool(row[7]),
            expiring_time=row[8],
        )
        for row in rows
    ]


def _step(days: int, actor: Actor, db: Db) -> Step:
    now = clock.now()
    before = now - days * DAY_SECONDS
    # A policy that keeps them longer takes the announcement back.
    db.execute(
        "UPDATE packages SET expiring_time = NULL WHERE expiring_time IS NOT NULL"
        " AND created_time >= ?",
        (before,),
    )
    deleted = _delete(db, days, before, now, actor)
    # Packages that are being sent are excluded before the limit applies, here and below; otherwise
    # they would keep other packages from being announced.
    is_due = f"p.looked_time IS NOT NULL AND p.expiring_time IS NULL AND NOT {_IS_SENDING}"
    due = _aged(db, before, is_due, (), _PAGE)
    fresh = [aged.number for aged in due if aged.fate(now) is Fate.DUE]
    if fresh:
        db.execute(
            f"UPDATE packages SET expiring_time = ? WHERE id IN ({marks(fresh)})",
            (now + WARNING_SECONDS, *fresh),
        )
        facts: dict[str, object] = {"packages": len(fresh), "from": int(now + WARNING_SECONDS)}
        audit_rows.append(db, "retention.announced", facts, actor)
    return Step(len(fresh), deleted)


def _delete(db: Db, days: int, before: float, now: float, actor: Actor) -> int:
    is_due = f"p.expiring_time <= ? AND NOT {_IS_SENDING}"
    announced = _aged(db, before, is_due, (now,), MOST_AT_ONCE)
    gone = [aged for aged in announced if aged.fate(now) is Fate.DELETED]
    for aged in gone:
        facts: dict[str, object] = {
            "package": str(PackageId(aged.package)),
            "study": aged.study_uid,
            "origin": str(FacilityId(aged.origin)),
            "why": f"older than {days} days, looked at, and announced a week before",
        }
        audit_rows.append(db, "package.expired", facts, actor)
        deletions.note(db, FacilityId(aged.origin), PackageId(aged.package), now)
        db.execute("UPDATE packages SET state = 'deleting' WHERE id = ?", (aged.number,))
    return len(gone)
