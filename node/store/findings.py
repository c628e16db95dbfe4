"""Findings: this node's own verdicts on instances, as rows and in envelopes.

Every function on rows runs inside a caller's transaction.
"""

import json
from collections.abc import Iterable, Sequence

from node.domain.held import HeldInstance
from node.domain.ids import FacilityId
from node.domain.verdicts import Doubt, Verdict
from node.errors import StoreError
from node.sql.database import Db
from node.system import clock

HELD = (
    "findings f JOIN packages p ON p.id = f.package JOIN instances i"
    " ON i.package = f.package AND i.position = f.position"
    " WHERE f.verdict != 'flag' AND p.state IN ('held', 'closed')"
)
"""SQL: the instances that wait for a person."""


def add(db: Db, package: int, doubts: Iterable[Doubt], label: str = "") -> None:
    """Keep verdicts on a package's instances."""
    now = clock.now()
    db.conn.executemany(
        "INSERT INTO findings (package, position, verdict, reasons, label, found_time)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(package, d.position, d.verdict, json.dumps(d.reasons), label, now) for d in doubts],
    )


def held(db: Db, where: str = "1", args: Sequence[object] = ()) -> list[HeldInstance]:
    """Return the instances that wait for a person and match a condition of ours, oldest first."""
    rows = db.execute(
        "SELECT f.id, f.package, f.position, f.reasons, f.label, f.found_time, i.size_bytes,"
        f" i.sop_instance_uid, p.study_uid, p.received_from FROM {HELD} AND {where} ORDER BY f.id",
        tuple(args),
    )
    return [
        HeldInstance(
            id=row[0],
            package=row[1],
            position=row[2],
            reasons=tuple(json.loads(row[3])),
            label=row[4],
            found_time=row[5],
            size_bytes=row[6],
            sop_instance_uid=row[7],
            study_uid=row[8],
            received_from=FacilityId(row[9]) if row[9] is not None else None,
        )
        for row in rows
    ]


def held_imports(db: Db, study_uid: str, origin: FacilityId) -> list[HeldInstance]:
    """Return what was imported of a study here and waits for a person, in no package yet."""
    where = "p.state = 'held' AND p.study_uid = ? AND p.origin = ?"
    return held(db, where, (study_uid, origin.digest))


def counts(db: Db, package: int) -> dict[str, int]:
    """Return how many of a package's instances are held and how many are flagged."""
    sql = (
        "SELECT COUNT(*) FILTER (WHERE verdict != 'flag'), COUNT(*) FILTER (WHERE verdict = 'flag')"
        " FROM findings WHERE package = ?"
    )
    held, flagged = db.execute(sql, (package,)).fetchone()
    return {"held": held, "flagged": flagged}


def reasons(db: Db, package: int, limit: int = 5) -> tuple[str, ...]:
    """Return why instances of a package are on hold, each reason once, some of them."""
    sql = (
        "SELECT DISTINCT j.value FROM findings f, json_each(f.reasons) j"
        " WHERE f.package = ? AND f.verdict != 'flag' LIMIT ?"
    )
    return tuple(row[0] for row in db.execute(sql, (package, limit)))


def release(db: Db, found: HeldInstance) -> bool:
    """Release a held instance; False if it was decided about meanwhile."""
    sql = "UPDATE findings SET verdict = 'flag' WHERE id = ? AND verdict != 'flag'"
    return db.execute(sql, (found.id,)).rowcount == 1


def encode(doubts: Sequence[Doubt]) -> bytes:
    """Return verdicts as they stand in an envelope; empty for none."""
    if not doubts:
        return b""
    return json.dumps([[d.position, d.verdict, d.reasons] for d in doubts]).encode()


def decode(encoded: bytes) -> list[Doubt]:
    """Return the verdicts in an envelope; `StoreError` if they are none."""
    try:
        found = json.loads(encoded) if encoded else []
        return [Doubt(int(at), Verdict(verdict), tuple(why)) for at, verdict, why in found]
    except (ValueError, TypeError) as exc:
        raise StoreError("the envelope's findings are malformed") from exc
