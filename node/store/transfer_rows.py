"""Transfers as rows. Every function runs inside a caller's transaction."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from node.documents.delivery import Delivery
from node.documents.signed import Document
from node.domain.actors import Actor, Door
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.domain.transfers import Carried, Direction, Priority, State, Transfer
from node.errors import NotFound
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import marks
from node.system import clock

FINAL = "'delivered', 'declined', 'cancelled', 'failed'"
OPEN = "'pending', 'held', 'carrying', 'checking'"
IS_OPEN = f"state IN ({OPEN})"
"""SQL: a transfer that is not final."""

IS_ENDED = f"withdrawal_pending = 0 AND state IN ({FINAL})"
"""SQL: a final transfer of which the receiver knows; worded as in `transfers_ended`."""

IS_WAITING = f"direction = 'send' AND ({IS_OPEN} OR withdrawal_pending = 1)"
"""SQL: a transfer still to be sent or withdrawn; worded as in `transfers_waiting`."""


def find(db: Db, where: str, args: Sequence[object], limit: int = 0) -> list[Transfer]:
    """Return transfers that match an SQL condition written by us, newest first."""
    sql = f"SELECT * FROM transfers WHERE {where} ORDER BY id DESC LIMIT ?"
    return [_row(row) for row in db.query(sql, (*args, limit or -1))]


def by_id(db: Db, row_id: int) -> Transfer:
    """Return the transfer of that number; `NotFound` when it is gone."""
    rows = find(db, "id = ?", (row_id,))
    if not rows:
        raise NotFound("the transfer no longer exists")
    return rows[0]


def add_transfer(
    db: Db,
    direction: Direction,
    delivery: Delivery,
    document: Document,
    sealed_key: bytes,
    state: State,
    *,
    study_uid: str,
    plaintext_bytes: int = 0,
) -> int:
    """Add a transfer's row, inside the caller's transaction; return its number."""
    now = clock.now()
    peer = delivery.receiver if direction is Direction.SEND else delivery.sender
    values = {
        "transfer_id": delivery.transfer_id.value,
        "direction": direction,
        "peer": peer.digest,
        "origin": delivery.origin.digest,
        "package_id": delivery.package_id.digest,
        "study_uid": study_uid,
        "priority": int(delivery.priority),
        "state": state,
        "delivery": document.encode(),
        "delivery_digest": document.digest(),
        "sealed_key": sealed_key,
        "bytes_total": delivery.sealed_bytes,
        "instances": delivery.instances,
        "plaintext_bytes": plaintext_bytes,
        "recipient": delivery.recipient,
        "note": delivery.note,
        "created_time": now,
        "updated_time": now,
        "expires_time": delivery.stands_until,
    }
    cursor = db.execute(
        f"INSERT INTO transfers ({', '.join(values)}) VALUES ({marks(list(values))})",
        tuple(values.values()),
    )
    return int(cursor.lastrowid or 0)


def alarm_ended(db: Db, row: Transfer, state: State, reason: str, actor: Actor) -> None:
    """Raise an alarm if a transfer failed, or if the receiver declined it.

    Failures of a peer's transfers to us raise one alarm per peer until it is acknowledged: a peer
    can fail at will.
    """
    is_sent = row.direction is Direction.SEND
    if state is not State.FAILED and not (is_sent and state is State.DECLINED):
        return
    if actor.door is not Door.NODE:
        return  # whoever did it knows
    verb = "was declined" if state is State.DECLINED else "failed"
    problem = f"{row.name} {_with_whom(db, row)} {verb}: {reason or state}"
    facts = _alarm_facts(row, problem)
    audit_rows.alarm(
        db, "alarm.transfer", facts, about=("number",) if is_sent else ("direction", "peer")
    )


_OVERDUE = "alarm.transfer-overdue"


def alarm_overdue(db: Db, overdue: Sequence[Transfer], now: float) -> int:
    """Raise alarms about transfers that are overdue; return how many alarms.

    Each overdue send of ours raises one alarm. Overdue offers raise one alarm per peer until it is
    acknowledged, and afterwards only for later offers: a peer can offer at will.
    """
    sent, offered = _noted_overdue(db)
    raised = 0
    for row in overdue:
        if row.direction is Direction.SEND and row.id not in sent:
            why = f" ({row.reason})" if row.reason else ""
            problem = (
                f"{row.name} {_with_whom(db, row)} ({row.priority.name.lower()}) is not delivered"
                f" after {_hours(row, now)}{why}; see `emix transfers --open`"
            )
            audit_rows.append(db, _OVERDUE, _alarm_facts(row, problem))
            raised += 1
    offers: dict[str, list[Transfer]] = {}
    for row in sorted(overdue, key=lambda row: row.id):
        peer = str(row.peer)
        if row.direction is Direction.RECEIVE and row.id > offered.get(peer, 0):
            offers.setdefault(peer, []).append(row)
    for first, *others in offers.values():
        more = f" and {len(others)} more, wait" if others else ", waits"
        problem = (
            f"{first.name} {_with_whom(db, first)}, {first.priority.name.lower()}{more} for a"
            f" person here after {_hours(first, now)}; see `emix inbox`"
        )
        audit_rows.append(db, _OVERDUE, _alarm_facts([first, *others][-1], problem))
        raised += 1
    return raised


def _noted_overdue(db: Db) -> tuple[set[int], dict[str, int]]:
    """Return what alarms cover: our sends, and for each peer the offers up to a number.

    While an alarm about a peer is open, it covers all of that peer's offers, later ones included.
    """
    rows = db.execute(
        "SELECT json_extract(body, '$.direction'), json_extract(body, '$.number'),"
        f" json_extract(body, '$.peer'), {audit_rows.OPEN_ALARMS} FROM audit"
        " WHERE kind >= 'alarm.' AND kind < 'alarm/' AND kind = ?",
        (_OVERDUE,),
    )
    sent, offered = set[int](), dict[str, int]()
    for direction, number, peer, is_open in rows:
        if direction == Direction.SEND:
            sent.add(number)
        else:
            offered[peer] = max(offered.get(peer, 0), 2**63 if is_open else number)
    return sent, offered


def _hours(row: Transfer, now: float) -> str:
    return f"{(now - row.created_time) / 3600:.1f} h"


def _alarm_facts(row: Transfer, problem: str) -> dict[str, object]:
    return {
        "number": row.id,
        "direction": row.direction,
        "peer": str(row.peer),
        "study": row.study_uid,
        "problem": problem,
    }


def _with_whom(db: Db, row: Transfer) -> str:
    found = db.execute("SELECT name FROM peers WHERE facility = ?", (row.peer.digest,)).fetchone()
    name = (found and found[0]) or f"facility {row.peer.short()}"
    return f"to {name}" if row.direction is Direction.SEND else f"from {name}"


def forget_offer(db: Db, row_id: int) -> None:
    """Forget the content of an offer that ended without a receipt; its digest stays.

    The digest detects a replay.
    """
    db.execute(
        "UPDATE transfers SET delivery = x'', sealed_key = x'', recipient = '', note = '',"
        " summary = '' WHERE id = ? AND direction = 'receive' AND receipt IS NULL",
        (row_id,),
    )


def add_carried(db: Db, row_id: int, carried: Carried) -> None:
    """Add what went over a link to what is recorded of a transfer."""
    db.execute(
        "UPDATE transfers SET bytes_carried = bytes_carried + ?, carried_seconds = carried_seconds"
        " + ?, route = COALESCE(?, route) WHERE id = ?",
        (carried.bytes, carried.seconds, carried.route, row_id),
    )


def keep_summary(db: Db, row_id: int, summary: Summary | None) -> None:
    """Keep an offer's summary, as its sender wrote it, while the offer waits."""
    if summary is not None:
        text = json.dumps(asdict(summary))
        db.execute("UPDATE transfers SET summary = ? WHERE id = ?", (text, row_id))


def _summary(text: str) -> Summary | None:
    if not text:
        return None
    values = json.loads(text)
    return Summary(**{**values, "patients": tuple(Patient(**p) for p in values["patients"])})


def keep_manifest(db: Db, row: Transfer) -> None:
    """Keep the manifest beside delivery and receipt: the proof outlives the package.

    It is kept once for all transfers of the package, so a redelivery costs a row and no second
    copy.
    """
    where = "origin = ? AND package_id = ? AND manifest IS NOT NULL"
    package = (row.origin.digest, row.package_id.digest)
    db.execute(
        "INSERT OR IGNORE INTO transfer_manifests"
        f" SELECT manifest_digest, manifest FROM packages WHERE {where}",
        package,
    )
    db.execute(
        "UPDATE transfers SET manifest_digest ="
        f" (SELECT manifest_digest FROM packages WHERE {where}) WHERE id = ?",
        (*package, row.id),
    )


def _row(row: dict[str, object]) -> Transfer:
    values = dict(row)
    values["transfer_id"] = TransferId(row["transfer_id"])  # type: ignore[arg-type]
    values["direction"] = Direction(str(row["direction"]))
    values["peer"] = FacilityId(row["peer"])  # type: ignore[arg-type]
    values["origin"] = FacilityId(row["origin"])  # type: ignore[arg-type]
    values["package_id"] = PackageId(row["package_id"])  # type: ignore[arg-type]
    values["priority"] = Priority(row["priority"])  # type: ignore[arg-type]
    values["state"] = State(str(row["state"]))
    values["summary"] = _summary(str(row["summary"]))
    values["accepted"] = bool(row["accepted"])
    values["withdrawal_pending"] = bool(row["withdrawal_pending"])
    return Transfer(**values)  # type: ignore[arg-type]


def forget_sealed_keys(db: Db) -> None:
    """Forget the data keys, as they were sealed to us, of what arrived and was deleted since."""
    db.execute(
        "UPDATE transfers SET sealed_key = x'' WHERE direction = 'receive'"
        " AND state IN ('delivered', 'declined', 'cancelled', 'failed') AND NOT EXISTS"
        " (SELECT 1 FROM packages p WHERE p.origin = transfers.origin"
        " AND p.package_id = transfers.package_id)"
    )
