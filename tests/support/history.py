"""Years of history, put into a store: packages that are here, sent and received, each delivered."""

import secrets
import time
from dataclasses import dataclass

from node.domain.ids import FacilityId
from node.sql.database import Db
from node.store.context import StoreContext

_DOCUMENT = bytes(1200)
_YEAR_SECONDS = 365 * 86400


@dataclass(frozen=True)
class History:
    """What to put into a store.

    Attributes:
        peer: Whom everything was sent to, or came from.
        sent: How many packages were sent; each is a study of its own.
        received: How many came.
    """

    peer: FacilityId
    sent: int
    received: int


def study_of(number: int) -> str:
    """Return the Study Instance UID of one study of the history."""
    return f"1.2.826.0.1.3680043.9.{number}.1"


def fill(context: StoreContext, history: History) -> None:
    """Put a history into an open store, a row for every study, package, chunk and transfer."""
    mine, theirs = context.facility.digest, history.peer.digest
    begin = time.time() - _YEAR_SECONDS
    step = _YEAR_SECONDS / (history.sent + history.received + 1)

    def work(db: Db) -> None:
        first = db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM packages").fetchone()[0]
        db.execute(
            "INSERT OR IGNORE INTO peers VALUES (?, x'', '', '', '', 0, NULL, 0, NULL, NULL, '')",
            (theirs,),
        )
        for n in range(history.sent + history.received):
            is_sent, row, when = n < history.sent, first + n, begin + n * step
            _add_package(db, row, n, mine if is_sent else theirs, None if is_sent else theirs, when)
            _add_transfer(db, row, n, "send" if is_sent else "receive", theirs, when)

    context.database.write_sync(work)


def _add_package(
    db: Db, row: int, n: int, origin: bytes, received_from: bytes | None, when: float
) -> None:
    name, digest = secrets.token_bytes(32), secrets.token_bytes(32)
    db.execute(
        "INSERT INTO packages (id, package_id, origin, study_uid, state, epoch, wrapped_key,"
        " created_time, manifest, manifest_digest, received_from)"
        " VALUES (?, ?, ?, ?, 'closed', 1, ?, ?, ?, ?, ?)",
        (row, name, origin, study_of(n), bytes(72), when, _DOCUMENT, digest, received_from),
    )
    db.execute(
        "INSERT INTO chunks VALUES (?, 0, 0, ?, 2000, 1000, ?, 1, 1)",
        (row, secrets.token_bytes(32), secrets.token_bytes(32)),
    )
    db.execute(
        "INSERT INTO instances (package, position, sop_instance_uid, sop_class_uid, series_uid,"
        " transfer_syntax_uid, size_bytes, digest, extents)"
        " VALUES (?, 0, ?, '1.2.840.10008.5.1.4.1.1.2', ?, '1.2.840.10008.1.2.1', 2000, ?, ?)",
        (row, f"{study_of(n)}.1.1", f"{study_of(n)}.1", secrets.token_bytes(32), bytes(12)),
    )
    db.execute(
        "INSERT INTO study_index (package, patient_name, patient_id, study_date,"
        " study_description, modalities) VALUES (?, ?, ?, '20250101', 'CT HEAD', 'CT')",
        (row, f"Patient^Number{n}", f"P{n}"),
    )
    db.execute(
        "INSERT INTO study_words VALUES (?, ?)",
        (row, f"patient^number{n} p{n} 20250101 ct head ct"),
    )
    db.execute(
        "INSERT INTO patients (package, name, patient_id, birth_date, sex)"
        " VALUES (?, ?, ?, '', '')",
        (row, f"Patient^Number{n}", f"P{n}"),
    )


def _add_transfer(db: Db, package: int, n: int, direction: str, peer: bytes, when: float) -> None:
    db.execute(
        "INSERT INTO transfers (transfer_id, direction, peer, origin, package_id, study_uid,"
        " priority, state, delivery, delivery_digest, sealed_key, receipt,"
        " bytes_total, bytes_done, bytes_carried, instances, plaintext_bytes, created_time,"
        " updated_time, expires_time, received_time, route, carried_seconds)"
        " SELECT ?, ?, ?, origin, package_id, study_uid, 2, 'delivered', ?, ?, ?, ?,"
        " 1000, 1000, 1000, 1, 2000, ?, ?, ?, ?, 'direct', 0.1 FROM packages WHERE id = ?",
        (
            secrets.token_bytes(16),
            direction,
            peer,
            _DOCUMENT,
            secrets.token_bytes(32),
            bytes(80),
            _DOCUMENT,
            when,
            when + 1,
            when + 30 * 86400,
            when + 1 if direction == "receive" else 0,
            package,
        ),
    )
