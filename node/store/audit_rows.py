"""The audit log's rows, appended in the transaction of the fact that they record."""

import json
import secrets
from collections.abc import Collection, Iterator

from node.domain.actors import NODE, Actor
from node.domain.audit import FIRST, AuditEntry, AuditFilter, body_digest, entry_digest
from node.sql.database import Db
from node.system import clock

_COLUMNS = "sequence, time_milliseconds, kind, body, operator, salt, digest"
_ACKNOWLEDGED = "audit.acknowledged"
OPEN_ALARMS = (
    "kind >= 'alarm.' AND kind < 'alarm/' AND sequence > (SELECT"
    " COALESCE(MAX(json_extract(body, '$.through')), 0)"
    f" FROM audit WHERE kind = '{_ACKNOWLEDGED}')"
)
"""Which entries are alarms that nobody has acknowledged, in SQL."""


_STUDY = "json_extract(body, '$.study')"
_PEER = "COALESCE(json_extract(body, '$.peer'), json_extract(body, '$.facility'))"
# Of an operator such as `uid 1000 (alice), says: bob`; see node.domain.actors.
_KNOWN = "substr(operator, 1, instr(operator, ')'))"
_UID = f"substr({_KNOWN}, 5, instr({_KNOWN}, ' (') - 5)"
_USER = f"rtrim(substr({_KNOWN}, instr({_KNOWN}, '(') + 1), ')')"
_SAID = "substr(operator, length(" + _KNOWN + ") + length(', says: ') + 1)"


def append(db: Db, kind: str, facts: dict[str, object], actor: Actor = NODE) -> None:
    """Add one entry to the chain, inside the caller's transaction.

    Args:
        db: The database, in a transaction.
        kind: What happened, such as `peer.pinned`.
        facts: What it is about. Studies, facilities and places are named: `study`, `origin`,
            `peer`, `destination`. This is inside the encrypted database; no log has it.
        actor: Who asked for it.
    """
    last, previous = newest(db) or (0, FIRST)
    sequence = last + 1
    body = json.dumps(facts, sort_keys=True)
    now, salt = int(clock.now() * 1000), secrets.token_bytes(16)
    digest = entry_digest(previous, sequence, body_digest(now, kind, body, actor.text, salt))
    db.execute(
        f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (sequence, now, kind, body, actor.text, salt, digest),
    )


def alarm(
    db: Db, kind: str, facts: dict[str, object], *, about: Collection[str] | None = None
) -> None:
    """Add an alarm, unless a similar one is open, that is, not yet acknowledged.

    An event that a peer can repeat at will, perhaps with varying texts, must not fill the log.

    Args:
        db: The database, in a transaction.
        kind: What happened.
        facts: As in `append`.
        about: The facts that must be equal for two alarms to be similar; None for all of them.
    """
    alike = {name: facts[name] for name in (facts if about is None else about)}
    sql = f"SELECT 1 FROM audit WHERE {OPEN_ALARMS} AND kind = ?" + "".join(
        f" AND json_extract(body, '$.{name}') = ?" for name in alike
    )
    if db.execute(f"{sql} LIMIT 1", (kind, *alike.values())).fetchone() is None:
        append(db, kind, facts)


def alarm_about(db: Db, kind: str, facility: str, problem: str) -> None:
    """Add an alarm about a facility, unless one of this kind about it is open."""
    alarm(db, kind, {"facility": facility, "problem": problem}, about=("facility",))


def newest(db: Db) -> tuple[int, bytes] | None:
    """Return number and digest of the newest entry; None while there is none."""
    sql = "SELECT sequence, digest FROM audit ORDER BY sequence DESC LIMIT 1"
    row = db.execute(sql).fetchone()
    return (row[0], row[1]) if row else None


def digest_at(db: Db, sequence: int) -> bytes | None:
    """Return the digest of an entry; None if there is none of that number."""
    row = db.execute("SELECT digest FROM audit WHERE sequence = ?", (sequence,)).fetchone()
    return bytes(row[0]) if row else None


def following(db: Db, sequence: int, limit: int) -> list[AuditEntry]:
    """Return the next entries after one."""
    sql = f"SELECT {_COLUMNS} FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?"
    return [AuditEntry(*row) for row in db.execute(sql, (sequence, limit))]


def find(
    db: Db, wanted: AuditFilter, low: int, high: int, limit: int, *, is_newest_first: bool
) -> list[AuditEntry]:
    """Return entries numbered from `low` to below `high` that are asked for, at most so many."""
    where, args = ["sequence >= ?", "sequence < ?"], list[object]((low, high))
    if wanted.is_whole_study:
        where.append(f"{_STUDY} = ?")
        args.append(wanted.study)
    elif wanted.study:  # after all that go on with a digit or a full stop
        where.append(f"{_STUDY} >= ? AND {_STUDY} < ? || ':'")
        args += [wanted.study, wanted.study]
    if wanted.peer:
        where.append(f"{_PEER} = ?")
        args.append(wanted.peer)
    if wanted.operator:
        where.append(f"? IN (operator, {_UID}, {_USER}, {_SAID})")
        args.append(wanted.operator)
    if wanted.kind:
        where.append("kind >= ? AND kind < ? || '~'")
        args += [wanted.kind, wanted.kind]
    if wanted.since_milliseconds:
        where.append("time_milliseconds >= ?")
        args.append(wanted.since_milliseconds)
    if wanted.until_milliseconds:
        where.append("time_milliseconds < ?")
        args.append(wanted.until_milliseconds)
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(where)}"
        f" ORDER BY sequence {'DESC' if is_newest_first else 'ASC'} LIMIT ?",
        [*args, limit],
    )
    return [AuditEntry(*row) for row in rows]


def open_alarms(db: Db, limit: int = 0) -> Iterator[AuditEntry]:
    """Yield the latest `limit` alarms (0 for all) that nobody has acknowledged, oldest first."""
    rows = db.execute(
        f"SELECT * FROM (SELECT {_COLUMNS} FROM audit WHERE {OPEN_ALARMS}"
        " ORDER BY sequence DESC LIMIT ?) ORDER BY sequence",
        (limit or -1,),
    )
    for row in rows:
        yield AuditEntry(*row)


def acknowledge(db: Db, through: int, actor: Actor) -> int:
    """Record that alarms up to an entry were seen; return how many were open."""
    sql = f"SELECT COUNT(*) FROM audit WHERE {OPEN_ALARMS} AND sequence <= ?"
    count = int(db.execute(sql, (through,)).fetchone()[0])
    if count:
        append(db, _ACKNOWLEDGED, {"through": through, "alarms": count}, actor)
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
