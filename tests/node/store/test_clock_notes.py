"""The time that was believed last is found by who opens the store next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.domain.actors import NODE
from node.sql.database import Db
from node.store import audit_rows
from node.store.clock_notes import ClockNotes, last_believed
from node.store.context import StoreContext
from node.system import clock
from tests.support.actors import actor
from tests.support.stores import new_store

DAY = 86400.0


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = new_store(tmp_path)
    yield context
    context.close()


def believed(context: StoreContext) -> float:
    return context.database.read_sync(last_believed)


def add_entry(context: StoreContext, time: float) -> None:
    """Have the newest entry of the log be of a time."""

    def work(db: Db) -> None:
        audit_rows.append(db, "test.done", {})
        db.execute(
            "UPDATE audit SET time_milliseconds = ?"
            " WHERE sequence = (SELECT MAX(sequence) FROM audit)",
            (int(time * 1000),),
        )

    context.database.write_sync(work)


def kinds(context: StoreContext) -> list[tuple[str, str]]:
    entries = context.database.read_sync(lambda db: list(audit_rows.entries(db)))
    return [(entry.kind, entry.operator) for entry in entries]


async def test_time_that_is_noted_is_found(context: StoreContext) -> None:
    assert believed(context) == 0
    before = clock.now()
    await ClockNotes(context.database).note()
    assert before <= believed(context) <= clock.now()


async def test_what_was_recorded_after_the_note_counts_if_it_is_later(
    context: StoreContext,
) -> None:
    await ClockNotes(context.database).note()
    noted = believed(context)
    add_entry(context, noted - DAY)
    assert believed(context) == noted
    add_entry(context, noted + DAY)
    assert believed(context) == pytest.approx(noted + DAY, abs=0.01)


async def test_without_a_note_the_log_says_it(context: StoreContext) -> None:
    add_entry(context, 1.8e9)
    assert believed(context) == 1.8e9


async def test_what_a_wrong_clock_wrote_before_the_note_counts_no_more(
    context: StoreContext,
) -> None:
    """Else one entry of a year to come would be believed for ever."""
    add_entry(context, clock.now() + 365 * DAY)
    await ClockNotes(context.database).note()
    assert believed(context) <= clock.now()


async def test_suspect_clock_is_one_alarm_and_each_time_a_note(context: StoreContext) -> None:
    notes = ClockNotes(context.database)
    await notes.alarm("it is 3 days ahead")
    first = believed(context)
    await notes.alarm("it is 4 days ahead")
    assert kinds(context) == [("alarm.clock", NODE.text)]
    assert 0 < first < believed(context)


async def test_who_confirmed_the_clock_is_recorded(context: StoreContext) -> None:
    notes = ClockNotes(context.database)
    await notes.note()
    wrong = (clock.now() + 365 * DAY,)
    context.database.write_sync(
        lambda db: db.execute("UPDATE meta SET value = ? WHERE key = 'believed_time'", wrong)
    )
    await notes.confirmed("a person", actor("alice"))
    assert believed(context) <= clock.now()
    await notes.confirmed("another facility")
    assert kinds(context) == [("clock.confirmed", "alice"), ("clock.confirmed", NODE.text)]
