"""The patients of packages, as rows. Every function runs inside a caller's transaction."""

from collections.abc import Iterable

from node.domain.ids import FacilityId
from node.domain.index import MOST_KEPT_PATIENTS
from node.domain.patients import Patient, distinct
from node.domain.query import name_forms
from node.sql.database import Db

_MOST_READ = 400
"""Of one study, in different words: a peer may send any number."""


def note(db: Db, package: int, patients: Iterable[Patient]) -> list[Patient]:
    """Add the patients of a package's instances; return those that are new."""
    count = db.execute("SELECT COUNT(*) FROM patients WHERE package = ?", (package,)).fetchone()[0]
    new: list[Patient] = []
    for patient in patients:
        if count + len(new) >= MOST_KEPT_PATIENTS:
            break
        added = db.execute(
            "INSERT OR IGNORE INTO patients (package, name, patient_id, birth_date, sex)"
            " VALUES (?, ?, ?, ?, ?)",
            (package, patient.name, patient.patient_id, patient.birth_date, patient.sex),
        )
        if added.rowcount == 1:
            new.append(patient)
            db.conn.executemany(
                "INSERT INTO patient_names VALUES (?, ?)",
                [(form, added.lastrowid) for form in name_forms(patient.name)],
            )
    return new


def of_packages(db: Db, where: str, args: tuple[object, ...]) -> list[Patient]:
    """Return the patients of packages `p` that match a condition of ours, each once."""
    rows = db.execute(
        "SELECT x.name, x.patient_id, x.birth_date, x.sex FROM packages p"
        f" JOIN patients x ON x.package = p.id WHERE {where}"
        " GROUP BY x.name, x.patient_id, x.birth_date, x.sex ORDER BY MIN(x.id) LIMIT ?",
        (*args, _MOST_READ),
    )
    return distinct(Patient(*row) for row in rows)


def of_study(db: Db, study_uid: str, origin: FacilityId) -> list[Patient]:
    """Return the patients of one origin's closed packages of a study, each once."""
    where = "p.state = 'closed' AND p.study_uid = ? AND p.origin = ?"
    return of_packages(db, where, (study_uid, origin.digest))
