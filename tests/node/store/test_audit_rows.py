"""The audit log's rows: chained, with the fact that they record; an alarm is open until seen."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.domain.audit import AuditEntry, ChainWalk
from node.sql.database import Db
from node.store import audit_rows
from tests.support.actors import actor
from tests.support.stores import new_rows, new_store

ALICE = actor("uid 1000 (alice)")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with new_rows(tmp_path) as db:
        yield db


def fill(db: Db, count: int) -> list[AuditEntry]:
    for n in range(count):
        audit_rows.append(db, "test.done", {"n": n})
    return list(audit_rows.entries(db))


def kinds(db: Db) -> list[str]:
    return [entry.kind for entry in audit_rows.entries(db)]


def open_numbers(db: Db) -> list[int]:
    return [entry.sequence for entry in audit_rows.open_alarms(db)]


def test_entries_are_a_chain_and_no_two_of_one_fact_look_alike(db: Db) -> None:
    for _ in range(3):
        audit_rows.append(db, "study.shown", {"study": "1.2", "peer": "A"}, ALICE)
    entries = list(audit_rows.entries(db))
    walk = ChainWalk()
    walk.feed(entries)
    assert (walk.entries, walk.problem) == (3, "")
    assert audit_rows.newest(db) == (3, walk.head)
    assert len({entry.salt for entry in entries}) == 3
    assert {entry.operator for entry in entries} == {ALICE.text}
    assert {entry.body for entry in entries} == {'{"peer": "A", "study": "1.2"}'}


def test_chain_of_nothing_has_no_newest(db: Db) -> None:
    assert audit_rows.newest(db) is None
    assert audit_rows.digest_at(db, 1) is None
    assert list(audit_rows.open_alarms(db)) == []


def test_entries_are_found_by_their_number(db: Db) -> None:
    entries = fill(db, 6)
    assert audit_rows.digest_at(db, 4) == entries[3].digest
    assert audit_rows.digest_at(db, 7) is None
    assert audit_rows.following(db, 2, 3) == entries[2:5]
    assert audit_rows.following(db, 6, 3) == []
    assert list(audit_rows.entries(db, 2)) == entries[4:], "the latest, oldest first"


def test_alarm_is_one_until_it_is_seen_and_another_about_something_else(db: Db) -> None:
    for facts in ({"peer": "A", "why": "x"}, {"peer": "B", "why": "x"}, {"peer": "A", "why": "y"}):
        for _ in range(2):
            audit_rows.alarm(db, "alarm.test", dict(facts))
    audit_rows.alarm(db, "alarm.other", {"peer": "A", "why": "x"})
    assert open_numbers(db) == [1, 2, 3, 4]
    audit_rows.alarm(db, "alarm.test", {"peer": "A", "why": "z"}, about=("peer",))
    audit_rows.alarm(db, "alarm.test", {"peer": "C", "why": "z"}, about=())
    assert open_numbers(db) == [1, 2, 3, 4]
    audit_rows.acknowledge(db, 4, ALICE)
    audit_rows.alarm(db, "alarm.test", {"peer": "A", "why": "x"})
    assert open_numbers(db) == [6]


def test_alarms_about_one_facility_are_one_whatever_the_problem_is(db: Db) -> None:
    for problem in ("it is old", "it is new"):
        for facility in ("A", "B"):
            audit_rows.alarm_about(db, "alarm.test", facility, problem)
    found = [json.loads(entry.body)["problem"] for entry in audit_rows.open_alarms(db)]
    assert found == ["it is old", "it is old"]


def test_alarms_that_came_after_what_was_seen_stay_open(db: Db) -> None:
    fill(db, 1)
    for n in range(4):
        audit_rows.alarm(db, "alarm.test", {"n": n})
    audit_rows.append(db, "alarms", {})
    audit_rows.append(db, "alarm", {})
    assert [entry.sequence for entry in audit_rows.open_alarms(db, 2)] == [4, 5], "the latest"
    assert audit_rows.acknowledge(db, 4, ALICE) == 3
    assert open_numbers(db) == [5]
    assert audit_rows.acknowledge(db, 4, ALICE) == 0
    assert kinds(db).count("audit.acknowledged") == 1, "nothing was seen by the second"
    last = next(audit_rows.entries(db, 1))
    assert (json.loads(last.body), last.operator) == ({"through": 4, "alarms": 3}, ALICE.text)


async def test_fact_that_is_not_kept_leaves_no_entry(tmp_path: Path) -> None:
    context = new_store(tmp_path)

    def work(db: Db) -> None:
        audit_rows.append(db, "study.exported", {})
        raise ValueError("the fact did not come to be")

    try:
        with pytest.raises(ValueError, match="did not come"):
            await context.database.write(work)
        assert context.database.read_sync(kinds) == []
    finally:
        context.close()
