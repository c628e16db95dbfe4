"""The audit log's rows, appended in the transaction of the fact that they record."""

import json
import secrets
import time
from collections.abc import Iterator

from node.domain.audit import FIRST, AuditEntry, entry_digest
from node.sql.database import Db

_COLUMNS = "sequence, time_milliseconds, kind, body, operator, salt, digest"
_ACKNOWLEDGED = "audit.acknowledged"
OPEN_ALARMS = (
    "kind LIKE 'alarm.%' AND sequence > (SELECT COALESCE(MAX(json_extract(body, '$.through')), 0)"
    f" FROM audit WHERE kind = '{_ACKNOWLEDGED}')"
)
"""Which entries are alarms that nobody has acknowledged, in SQL."""


def append(db: Db, kind: str, facts: dict[str, object], operator: str = "node") -> None:
    """Add one entry to the chain, inside the caller's transaction.

    Args:
        db: The database, in a transaction.
        kind: What happened, such as `peer.pinned`.
        facts: Ids and numbers; never patient data.
        operator: Who asked for it.
    """
    last = db.execute("SELECT sequence, digest FROM audit ORDER BY sequence DESC LIMIT 1")
    row = last.fetchone()
    sequence, previous = (row[0] + 1, row[1]) if row else (1, FIRST)
    body = json.dumps(facts, sort_keys=True)
    now, salt = time.time_ns() // 1_000_000, secrets.token_bytes(16)
    digest = entry_digest(previous, sequence, now, kind, body, operator, salt)
    db.execute(
        f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (sequence, now, kind, body, operator, salt, digest),
    )


def alarm(db: Db, kind: str, facts: dict[str, object]) -> None:
    """Add an alarm, unless one that says the same is open: nobody has acknowledged it yet."""
    sql = f"SELECT 1 FROM audit WHERE {OPEN_ALARMS} AND kind = ? AND body = ? LIMIT 1"
    if db.execute(sql, (kind, json.dumps(facts, sort_keys=True))).fetchone() is None:
        append(db, kind, facts)


def open_alarms(db: Db, limit: int = 0) -> Iterator[AuditEntry]:
    """Yield the latest `limit` alarms (0 for all) that nobody has acknowledged, oldest first."""
    rows = db.execute(
        f"SELECT * FROM (SELECT {_COLUMNS} FROM audit WHERE {OPEN_ALARMS}"
        " ORDER BY sequence DESC LIMIT ?) ORDER BY sequence",
        (limit or -1,),
    )
    for row in rows:
        yield AuditEntry(*row)


def acknowledge(db: Db, through: int, operator: str) -> int:
    """Record that alarms up to an entry were seen; return how many were open."""
    sql = f"SELECT COUNT(*) FROM audit WHERE {OPEN_ALARMS} AND sequence <= ?"
    count = int(db.execute(sql, (through,)).fetchone()[0])
    if count:
        append(db, _ACKNOWLEDGED, {"through": through, "alarms": count}, operator)
    return count


def entries(db: Db, limit: int = 0) -> Iterator[AuditEntry]:
    """Yield the latest `limit` entries (0 for all), oldest first."""
    rows = db.execute(
        f"SELECT * FROM (SELECT {_COLUMNS} FROM audit ORDER BY sequence DESC LIMIT ?)"
        " ORDER BY sequence",
        (limit or -1,),
    )
    for row in rows:
        yield AuditEntry(*row)
