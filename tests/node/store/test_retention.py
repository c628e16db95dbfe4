"""Retention deletes nothing that nobody has looked at, and nothing without a week's warning."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.domain.retention import MOST_AT_ONCE, WARNING_SECONDS, Fate, Step
from node.errors import Conflict
from node.sql.database import Db
from node.store import package_rows, retention
from node.store.context import StoreContext
from node.store.retention import RetentionStore
from node.store.studies import StudyStore
from node.system import clock
from tests.node.store.test_arrivals import make_signer
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.history import History, fill, study_of

DAY = 86400.0
SENT, RECEIVED = 5, 20


class Wall:
    """The time of day, as the test sets it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    judged = clock.Clock(wall, lambda: wall.ahead + time.monotonic())
    for name in ("now", "CLOCK"):
        monkeypatch.setattr(clock, name, judged.now if name == "now" else judged)
    return wall


@pytest.fixture
def context(tmp_path: Path, wall: Wall) -> Iterator[StoreContext]:
    context = make_store(tmp_path)
    fill(context, History(make_signer().facility_id, SENT, RECEIVED))
    yield context
    context.close()


def look_at(context: StoreContext, count: int) -> None:
    """Note that somebody looked at so many of what was received."""

    def work(db: Db) -> None:
        rows = db.execute("SELECT id FROM packages WHERE received_from IS NOT NULL ORDER BY id")
        package_rows.note_looked(db, [row[0] for row in rows][:count])

    context.database.write_sync(work)


async def here(context: StoreContext) -> int:
    return len(await listed(context))


async def test_what_nobody_looked_at_is_kept_however_old(context: StoreContext, wall: Wall) -> None:
    policy = RetentionStore(context, 30)
    for _ in range(5):
        assert await policy.step() == Step(0, 0)
        wall.ahead += 30 * DAY
    assert await here(context) == SENT + RECEIVED
    assert {aged.fate(clock.now()) for aged in await policy.page(0)} == {Fate.UNSEEN}


async def test_what_was_looked_at_is_announced_and_deleted_a_week_later(
    context: StoreContext, wall: Wall
) -> None:
    policy = RetentionStore(context, 30)
    look_at(context, 3)
    assert await policy.step() == Step(3, 0)
    assert await policy.step() == Step(0, 0)
    assert policy.outlook_sync().announced == 3
    wall.ahead += WARNING_SECONDS - 3600
    assert await policy.step() == Step(0, 0)
    wall.ahead += 7200
    assert await policy.step() == Step(0, 3)
    assert await here(context) == SENT + RECEIVED - 3


async def test_policy_that_keeps_longer_takes_the_announcement_back(
    context: StoreContext, wall: Wall
) -> None:
    look_at(context, RECEIVED)
    assert (await RetentionStore(context, 30).step()).announced > 0
    wall.ahead += WARNING_SECONDS + DAY
    assert await RetentionStore(context, 3650).step() == Step(0, 0)
    assert (await RetentionStore(context, 30).step()).deleted == 0, "it is announced anew"


async def test_a_step_deletes_a_hundred(context: StoreContext, wall: Wall) -> None:
    fill(context, History(make_signer().facility_id, 0, 2 * MOST_AT_ONCE))
    look_at(context, 10**6)
    policy = RetentionStore(context, 0 + 1)
    wall.ahead += 30 * DAY
    await policy.step()
    wall.ahead += WARNING_SECONDS
    assert (await policy.step()).deleted == MOST_AT_ONCE


async def test_what_is_being_sent_on_keeps_nothing_behind_it_here(
    context: StoreContext, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of it than a step looks at, and all of it older."""
    monkeypatch.setattr(retention, "_PAGE", 10)
    monkeypatch.setattr(retention, "MOST_AT_ONCE", 10)
    look_at(context, RECEIVED)
    policy = RetentionStore(context, 30)
    send_on(context, 10)
    assert (await policy.step()).announced > 0
    send_on(context, 0)
    while (await policy.step()).announced:
        pass
    wall.ahead += WARNING_SECONDS
    send_on(context, 10)
    assert (await policy.step()).deleted > 0


def send_on(context: StoreContext, count: int) -> None:
    """Have so many of the oldest that were received, and no others, on their way to others."""

    def work(db: Db) -> None:
        db.execute("UPDATE transfers SET state = 'delivered'")
        db.execute(
            "UPDATE transfers SET direction = 'send', state = 'pending' WHERE package_id IN"
            " (SELECT package_id FROM packages WHERE received_from NOT NULL ORDER BY id LIMIT ?)",
            (count,),
        )

    context.database.write_sync(work)


async def test_nothing_is_deleted_by_a_suspect_clock(context: StoreContext, wall: Wall) -> None:
    policy = RetentionStore(context, 30)
    look_at(context, RECEIVED)
    await policy.step()
    clock.CLOCK.begin(wall() - 10 * 365 * DAY)
    with pytest.raises(Conflict, match="ahead of"):
        await policy.step()
    assert await here(context) == SENT + RECEIVED


async def test_showing_a_study_is_looking_at_it(context: StoreContext, wall: Wall) -> None:
    studies = StudyStore(context)
    _, sources = await studies.get(study_of(SENT))
    await studies.note_shown(sources, actor("uid 1000 (alice)"))
    found = await RetentionStore(context, 1).page(0)
    assert [aged.study_uid for aged in found if aged.is_looked_at] == [study_of(SENT)]
