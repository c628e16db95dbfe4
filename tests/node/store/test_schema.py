"""Every step of the schema leads to what a new database has, and every index has its question."""

import re
from dataclasses import fields

import pytest
import sqlcipher3.dbapi2 as sqlcipher
import sqlite_utils

from node.domain.query import name_forms
from node.domain.transfers import Transfer
from node.sql.database import Db
from node.store import package_rows
from node.store.audit_rows import OPEN_ALARMS
from node.store.schema import migrations
from node.store.transfer_rows import IS_ENDED, IS_WAITING, OPEN

STEPS = [step.name for step in migrations.pending(sqlite_utils.Database(memory=True))]
RENAMED = {
    "untold": "withdrawal_pending",
    "told_time": "reported_time",
    "told_heads": "reported_heads",
}
LIBRARY = {"_sqlite_migrations", "sqlite_sequence"}
KEEP_TO = {"state": "closed", "verdict": "hold", "direction": "send", "name": "Müller^Jörg"}


def made(until: str | None = None) -> Db:
    """Return a database in memory with the steps before one, or with all of them."""
    connection = sqlcipher.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlcipher.Row
    connection.execute("PRAGMA foreign_keys = ON")
    db = sqlite_utils.Database(connection, execute_plugins=False)
    migrations.apply(db, stop_before=until)
    return db


def tables(db: Db) -> list[str]:
    return [name for name in db.table_names() if name not in LIBRARY]


def schema(db: Db) -> set[tuple[str, str, str]]:
    return {
        (row["type"], row["name"], row["sql"] or "")
        for row in db.query("SELECT * FROM sqlite_master")
    }


def rows(db: Db) -> dict[str, list[dict[str, object]]]:
    return {table: list(db.table(table).rows) for table in tables(db)}


def fill(db: Db) -> None:
    """Put a row into each table: each value is of its column's type, and a 1 wherever it can."""
    plain = {"INTEGER": 1, "REAL": 1.0, "TEXT": "1", "BLOB": b"1", "ANY": 1}
    db.execute("PRAGMA foreign_keys = OFF")
    for table in tables(db):
        values = {
            column.name: KEEP_TO.get(column.name, plain[column.type.upper()])
            for column in db.table(table).columns
        }
        db.execute(
            " ".join(["INSERT INTO", table, "VALUES (", ", ".join("?" * len(values)), ")"]),
            list(values.values()),
        )
    db.execute("PRAGMA foreign_keys = ON")


def is_sound(db: Db) -> bool:
    strays = list(db.query("PRAGMA foreign_key_check"))
    (found,) = db.query("PRAGMA integrity_check")
    return not strays and found == {"integrity_check": "ok"}


def test_steps_are_numbered_in_their_order() -> None:
    assert [re.sub("_.*", "", step) for step in STEPS] == [
        f"{number:04}" for number in range(1, len(STEPS) + 1)
    ]


@pytest.mark.parametrize("step", STEPS)
def test_database_of_each_time_becomes_what_a_new_one_is(step: str) -> None:
    db = made(step)
    fill(db)
    before = rows(db)
    migrations.apply(db)
    assert schema(db) == schema(made())
    assert is_sound(db)
    after = rows(db)
    for table, kept in before.items():
        for old, new in zip(kept, after[RENAMED.get(table, table)], strict=True):
            kept_as = {RENAMED.get(column, column): value for column, value in old.items()}
            assert kept_as.items() - new.items() <= {("search", "1")}, table


def test_step_that_fails_leaves_the_database_as_it_was() -> None:
    db = made("0005_catalogue")
    db.execute("CREATE TABLE attachments (x)")  # the last that the step makes
    before = schema(db)
    with pytest.raises(sqlcipher.Error):
        migrations.apply(db)
    assert schema(db) == before


def test_what_people_search_by_is_found_as_before_by_the_catalogue() -> None:
    db = made("0005_catalogue")
    fill(db)
    db.execute("UPDATE study_index SET search = 'muller thorax'")
    migrations.apply(db)
    assert list(db.table("study_words").rows) == [{"package": 1, "words": "muller thorax"}]
    forms = {(row["form"], row["patient"]) for row in db.table("patient_names").rows}
    assert forms == {(form, 1) for form in name_forms("Müller^Jörg")}


def test_verdict_that_is_new_needs_no_step() -> None:
    db = made()
    fill(db)
    db.execute("UPDATE findings SET verdict = 'quarantine'")
    assert is_sound(db)


def test_every_table_holds_each_column_to_its_type() -> None:
    db = made()
    assert [table for table in tables(db) if not db.table(table).strict] == []


def columns(db: Db, table: str) -> set[str]:
    return {column.name for column in db.table(table).columns}


def test_tables_have_the_columns_that_the_code_asks_for() -> None:
    db = made()
    assert columns(db, "transfers") == {field.name for field in fields(Transfer)}
    study = {*package_rows.STUDY_COLUMNS.values(), "package", "modalities"}
    assert columns(db, "study_index") == study
    series = {*package_rows.SERIES_COLUMNS.values(), "package", "series_uid"}
    assert columns(db, "series_index") == series
    assert columns(db, "instances") >= set(package_rows.IMAGE_COLUMNS.values())


def test_all_of_a_package_goes_with_it() -> None:
    db = made()
    fill(db)
    of_it = {table for table in tables(db) if "package" in columns(db, table)} | {"patient_names"}
    assert len(of_it) >= 8
    db.execute("DELETE FROM packages")
    assert {table for table in tables(db) if not db.table(table).count} == {*of_it, "packages"}


@pytest.mark.parametrize(
    ("owner", "gone"),
    [("networks", {"records", "revocations"}), ("peers", {"claims"}), ("imports", set[str]())],
)
def test_what_belongs_to_another_row_goes_with_it(owner: str, gone: set[str]) -> None:
    db = made()
    fill(db)
    db.table(owner).delete_where()
    assert {table for table in tables(db) if not db.table(table).count} == {*gone, owner}
    assert db.execute("SELECT import_id FROM packages").fetchone()[0] == (
        owner != "imports" or None
    )


def test_manifest_that_a_proof_names_is_not_deleted() -> None:
    db = made()
    fill(db)
    with pytest.raises(sqlcipher.IntegrityError):
        db.execute("DELETE FROM transfer_manifests")


@pytest.mark.parametrize("table", ["packages", "imports", "transfers", "findings"])
def test_number_that_people_see_is_never_anothers(table: str) -> None:
    db = made()
    fill(db)
    (row,) = db.table(table).rows
    db.execute("PRAGMA foreign_keys = OFF")
    db.table(table).delete_where()
    db.table(table).insert({**row, "id": None})
    assert [again["id"] for again in db.table(table).rows] == [2]


@pytest.mark.parametrize("step", STEPS[1:])
def test_number_that_was_shown_is_not_given_again_after_any_step(step: str) -> None:
    db = made(step)
    fill(db)
    numbered = [table for table in tables(db) if "AUTOINCREMENT" in db.table(table).schema]
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("UPDATE sqlite_sequence SET seq = 9 WHERE name != '_sqlite_migrations'")
    migrations.apply(db)
    highest = {row["name"]: row["seq"] for row in db.table("sqlite_sequence").rows}
    assert {highest[table] for table in numbered} == {9}


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("packages", {"study_uid": "other"}),
        ("packages", {"package_id": b"2", "state": "unheard of"}),
        ("transfers", {"package_id": b"2"}),
        ("transfers", {"transfer_id": b"2", "direction": "around"}),
        ("findings", {"verdict": "flag"}),
        ("patients", {}),
        ("deletions", {"deleted_time": 2.0}),
        ("packages", {"package_id": b"2", "created_time": "yesterday"}),
    ],
)
def test_what_there_is_once_is_not_kept_twice_and_nothing_odd(
    table: str, changes: dict[str, object]
) -> None:
    db = made()
    fill(db)
    (row,) = db.table(table).rows
    with pytest.raises(sqlcipher.IntegrityError):
        db.table(table).insert({**row, "id": None, **changes})


def asked(select: str, *conditions: str) -> str:
    return f"{select} WHERE {' AND '.join(conditions)}"


# What the code asks with each index, in its own words.
QUESTIONS: dict[str, str] = {
    "packages_import": "SELECT id FROM packages WHERE import_id = ?",
    "packages_study": "SELECT id FROM packages WHERE study_uid = ? AND origin = ?",
    "packages_open": "SELECT COUNT(*) FROM packages WHERE state = 'open'",
    "packages_held": "SELECT 1 FROM packages WHERE state = 'held'",
    "packages_deleting": "SELECT * FROM packages WHERE state = 'deleting' ORDER BY id",
    "packages_needs": "SELECT DISTINCT needs FROM packages WHERE needs != ''",
    "packages_expiring": "SELECT MIN(expiring_time) FROM packages WHERE expiring_time IS NOT NULL",
    "packages_closed": "SELECT COUNT(DISTINCT study_uid) FROM packages WHERE state = 'closed'",
    "packages_arriving": (
        "SELECT SUM(LENGTH(p.manifest)) FROM packages p"
        " WHERE p.state = 'arriving' AND p.received_from = ?"
    ),
    "packages_sizes": "SELECT SUM(sealed_bytes), SUM(LENGTH(manifest)) FROM packages",
    "packages_listed": (
        "SELECT id, study_uid, origin FROM packages WHERE state = 'closed' ORDER BY id DESC"
    ),
    "chunks_id": "SELECT chunk_id FROM chunks WHERE chunk_id IN (?, ?)",
    "chunks_unopened": "SELECT c.package FROM chunks c JOIN packages p ON p.id = c.package"
    " WHERE c.opened_time = 0 AND c.present = 1 AND p.state = 'closed' ORDER BY c.package LIMIT 1",
    "chunks_absent": "SELECT position FROM chunks WHERE package = ? AND present = 0",
    "instances_sop": "SELECT package FROM instances WHERE sop_instance_uid IN (?, ?)",
    "instances_digest": "SELECT package, position FROM instances WHERE digest = ?",
    "instances_series": "SELECT package FROM instances WHERE series_uid IN (?, ?)",
    "study_index_accession": (
        "SELECT package FROM study_index"
        " WHERE accession_number = ? COLLATE NOCASE AND accession_number != ''"
    ),
    "study_index_date": "SELECT package FROM study_index WHERE study_date BETWEEN ? AND ?",
    "patients_id": "SELECT package FROM patients WHERE patient_id = ?",
    "patient_names_patient": "SELECT form FROM patient_names WHERE patient = ?",
    "claims_facility": "SELECT digest FROM claims WHERE facility = ?",
    "transfers_state": "SELECT state, COUNT(*) FROM transfers GROUP BY 1",
    "transfers_ended": asked(
        "SELECT id FROM transfers INDEXED BY transfers_ended", IS_ENDED, "updated_time < ?"
    ),
    "transfers_id": "SELECT * FROM transfers WHERE transfer_id BETWEEN ? AND ?",
    "transfers_package": "SELECT id FROM transfers WHERE origin = ? AND package_id = ?",
    "transfers_waiting": asked("SELECT * FROM transfers", IS_WAITING, "peer = ?"),
    "transfers_manifest": "SELECT 1 FROM transfers WHERE manifest_digest = ?",
    "transfers_sent": (
        "SELECT peer FROM transfers WHERE direction = 'send' AND state = 'delivered'"
        " AND study_uid = ? AND origin = ?"
    ),
    "transfers_offers": asked(
        "SELECT COUNT(*), SUM(LENGTH(delivery)) FROM transfers",
        "direction = 'receive'",
        "receipt IS NULL",
        "peer = ?",
        f"state IN ({OPEN})",
    ),
    "transfers_rates": (
        "SELECT bytes_carried FROM transfers WHERE peer = ? AND carried_seconds > 0"
        " ORDER BY updated_time DESC LIMIT 1"
    ),
    "audit_study": "SELECT * FROM audit WHERE json_extract(body, '$.study') = ?",
    "audit_peer": (
        "SELECT * FROM audit WHERE"
        " COALESCE(json_extract(body, '$.peer'), json_extract(body, '$.facility')) = ?"
    ),
    "audit_alarms": asked("SELECT COUNT(*) FROM audit", OPEN_ALARMS),
    "audit_acknowledged": asked("SELECT COUNT(*) FROM audit", OPEN_ALARMS),
}


@pytest.fixture(scope="module")
def latest() -> Db:
    return made()


@pytest.mark.parametrize("index", QUESTIONS)
def test_question_is_answered_by_its_index(latest: Db, index: str) -> None:
    question = QUESTIONS[index]
    arguments = [None] * question.count("?")
    found = latest.query(f"EXPLAIN QUERY PLAN {question}", arguments)
    steps = [row["detail"] for row in found]
    assert any(re.search(rf"INDEX {index}\b", step) for step in steps), steps
    assert not any(re.fullmatch(r"SCAN \w+", step) for step in steps), steps


def test_every_index_has_its_question(latest: Db) -> None:
    sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    names = {row["name"] for row in latest.query(sql)}
    ours = {name for name in names if "_sqlite_migrations_" not in name}
    assert ours == set(QUESTIONS)
