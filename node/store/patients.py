"""The patients of packages, as rows. Every function runs inside a caller's transaction."""

from collections.abc import Mapping

from node.domain.ids import FacilityId
from node.domain.patients import Patient, distinct, patient_of
from node.sql.database import Db

_MOST_KEPT, _MOST_READ = 200, 2000
"""Of one package, and of one study, in different words: a peer may send any number."""


def note(db: Db, package: int, index: Mapping[str, str]) -> bool:
    """Keep who an instance of a package is of; return whether that is somebody new."""
    patient = patient_of(index)
    if patient == Patient():
        return False
    count = db.execute("SELECT COUNT(*) FROM patients WHERE package = ?", (package,)).fetchone()[0]
    if count >= _MOST_KEPT:
        return False
    added = db.execute(
        "INSERT OR IGNORE INTO patients (package, name, patient_id, birth_date, sex)"
        " VALUES (?, ?, ?, ?, ?)",
        (package, patient.name, patient.patient_id, patient.birth_date, patient.sex),
    )
    return added.rowcount == 1


def words(db: Db, package: int) -> list[str]:
    """Return what a package is to be found by: names, IDs and birth dates of its patients."""
    rows = db.execute(
        "SELECT name, patient_id, birth_date FROM patients WHERE package = ? ORDER BY id",
        (package,),
    )
    return list(dict.fromkeys(word for row in rows for word in row if word))


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
