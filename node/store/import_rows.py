"""Imports that run or were not finished, as rows; inside a caller's transaction.

A row stands from the beginning of an import to its end. What it has recorded lies in open packages
that name it; only an import of the same sources goes on in them, and closes them.
"""

import json
from collections.abc import Collection, Sequence

from node.domain.actors import Actor
from node.domain.ids import FacilityId
from node.domain.imports import PartialStudy, UnfinishedImport
from node.errors import NotFound
from node.sql.database import Db
from node.store import patients
from node.store.context import marks
from node.system import clock


def begin(
    db: Db, sources: Sequence[str], actor: Actor, *, resumes: int, running: Collection[int]
) -> int:
    """Note that an import begins; return its number, or that of the earlier import that it resumes.

    Args:
        db: The database.
        sources: What the person named; an import without sources resumes none.
        actor: Who asked.
        resumes: The earlier import, if the person named it; else 0.
        running: Imports that run now, which cannot be resumed.

    Raises:
        NotFound: there is none of the number that the person named, or it runs.
    """
    encoded, now = json.dumps(sorted(set(sources))), clock.now()
    if resumes:
        found = [get(db, resumes, running)]
    else:
        sql = f"SELECT id FROM imports WHERE sources = ? AND id NOT IN ({marks(list(running))})"
        rows = db.execute(f"{sql} ORDER BY id", (encoded, *running)) if sources else ()
        found = [int(row[0]) for row in rows]
    if not found:
        sql = "INSERT INTO imports (sources, operator, begun_time) VALUES (?, ?, ?)"
        return int(db.execute(sql, (encoded, actor.text, now)).lastrowid or 0)
    kept, *others = found
    for other in others:  # two that ran at once and were both cut off
        db.execute("UPDATE packages SET import_id = ? WHERE import_id = ?", (kept, other))
        db.execute("DELETE FROM imports WHERE id = ?", (other,))
    # Its sources stay: it may be resumed by number with other sources, perhaps another disc.
    db.execute(
        "UPDATE imports SET operator = ?, begun_time = ?, problem = '' WHERE id = ?",
        (actor.text, now, kept),
    )
    return kept


def get(db: Db, number: int, running: Collection[int]) -> int:
    """Return the number of an import that is not finished and does not run.

    Raises:
        NotFound: it is none.
    """
    if number in running:
        raise NotFound(f"import i{number} is running; wait for its end, or cancel it")
    if db.execute("SELECT 1 FROM imports WHERE id = ?", (number,)).fetchone() is None:
        raise NotFound(f"no import i{number} is unfinished; `emix imports` lists those that are")
    return number


def end(db: Db, number: int, problem: str) -> None:
    """Note that an import has ended: it is forgotten once nothing of it is open any more."""
    if problem:
        db.execute("UPDATE imports SET problem = ? WHERE id = ?", (problem, number))
    else:
        db.execute(f"DELETE FROM imports WHERE id = ? AND id NOT IN ({_WITH_PACKAGES})", (number,))


def open_studies(db: Db, number: int) -> dict[int, str]:
    """Return the packages that an import has left open, and the study of each."""
    sql = "SELECT id, study_uid FROM packages WHERE import_id = ? AND state = 'open'"
    return {int(row): uid for row, uid in db.execute(sql, (number,))}


def empty_rows(db: Db, number: int) -> list[int]:
    """Return those of the packages that an import has left open in which nothing is recorded."""
    sql = (
        "SELECT id FROM packages p WHERE import_id = ? AND state = 'open' AND NOT EXISTS"
        " (SELECT 1 FROM instances WHERE package = p.id) AND NOT EXISTS"
        " (SELECT 1 FROM attachments WHERE package = p.id)"
    )
    return [int(row[0]) for row in db.execute(sql, (number,))]


def unfinished(db: Db) -> list[UnfinishedImport]:
    """Return imports that run or were not finished, oldest first."""
    rows = db.execute("SELECT id, sources, operator, begun_time, problem FROM imports ORDER BY id")
    return [
        UnfinishedImport(
            id=row[0],
            sources=tuple(json.loads(row[1])),
            operator=row[2],
            begun_time=row[3],
            problem=row[4],
            studies=_studies(db, row[0]),
        )
        for row in rows.fetchall()
    ]


def of_study(db: Db, study_uid: str, origin: FacilityId) -> list[int]:
    """Return the imports that have brought a part of a study and are not finished."""
    sql = (
        "SELECT DISTINCT import_id FROM packages WHERE state = 'open' AND study_uid = ?"
        " AND origin = ? AND import_id IS NOT NULL ORDER BY import_id"
    )
    return [int(row[0]) for row in db.execute(sql, (study_uid, origin.digest))]


_WITH_PACKAGES = "SELECT import_id FROM packages WHERE import_id IS NOT NULL AND state = 'open'"


def _studies(db: Db, number: int) -> list[PartialStudy]:
    rows = db.execute(
        "SELECT p.study_uid, SUM((SELECT COUNT(*) FROM instances i WHERE i.package = p.id)),"
        " SUM(p.sealed_bytes) FROM packages p WHERE p.import_id = ? AND p.state = 'open'"
        " GROUP BY p.study_uid ORDER BY MIN(p.id)",
        (number,),
    ).fetchall()
    where = "p.import_id = ? AND p.state = 'open' AND p.study_uid = ?"
    return [
        PartialStudy(row[0], patients.of_packages(db, where, (number, row[0])), row[1], row[2])
        for row in rows
    ]
