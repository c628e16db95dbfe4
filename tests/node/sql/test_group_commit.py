"""Group commit: everything is done once, in order, and nobody waits for what came later."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Migrations

from node.errors import StoreError, StoreFull
from node.sql.database import Database, Db, open_database
from node.sql.group_commit import MOST_TOGETHER, GroupCommit, Job

KEY = bytes(range(32))


def returned(n: int, _: object) -> int:
    return n


class Groups:
    """Commits groups when the test says so."""

    def __init__(self) -> None:
        self.begun, self.may_go = threading.Semaphore(0), threading.Semaphore(0)
        self.groups: list[list[Any]] = []
        self.commit = GroupCommit(self._commit)

    def _commit(self, jobs: Sequence[Job]) -> None:
        self.begun.release()
        assert self.may_go.acquire(timeout=20)
        self.groups.append([job.work(None) for job in jobs])
        for job, result in zip(jobs, self.groups[-1], strict=True):
            if result == "bad":
                job.fail(RuntimeError("bad"))
            else:
                job.succeed(result)


def test_what_comes_while_a_group_is_committed_is_the_next_group() -> None:
    here = Groups()
    with ThreadPoolExecutor(80) as threads:
        first = threads.submit(here.commit.run, lambda _: 0)
        assert here.begun.acquire(timeout=20)
        others = [threads.submit(here.commit.run, partial(returned, n)) for n in range(1, 60)]
        while len(here.commit._waiting) < 59:
            threading.Event().wait(0.001)
        here.may_go.release(3)
        assert first.result(20) == 0
        assert sorted(other.result(20) for other in others) == list(range(1, 60))
    assert [len(group) for group in here.groups] == [1, MOST_TOGETHER, 59 - MOST_TOGETHER]
    assert not here.commit._is_led


def test_error_is_raised_where_the_work_came_from() -> None:
    here = Groups()
    here.may_go.release(10)
    with ThreadPoolExecutor(2) as threads:
        bad = threads.submit(here.commit.run, lambda _: "bad")
        good = threads.submit(here.commit.run, lambda _: "good")
        assert good.result(20) == "good"
        with pytest.raises(RuntimeError):
            bad.result(20)


def test_alone_it_waits_for_nobody() -> None:
    here = Groups()
    here.may_go.release(2)
    assert [here.commit.run(lambda _: 1), here.commit.run(lambda _: 2)] == [1, 2]
    assert here.groups == [[1], [2]]


def open_words(folder: Path) -> Database:
    steps = Migrations("test")

    @steps()
    def first(db: Db) -> None:
        db.executescript("CREATE TABLE facts (word TEXT PRIMARY KEY, n INTEGER) STRICT")

    return open_database(folder / "db", KEY, steps)


def words(database: Database) -> set[str]:
    return database.read_sync(lambda db: {row[0] for row in db.execute("SELECT word FROM facts")})


def together(database: Database, works: Sequence[Callable[[Db], object]]) -> list[object]:
    """Have several things committed as one group; return their results and errors."""
    begun, may_go = threading.Event(), threading.Event()

    def hold(_: Db) -> None:
        begun.set()
        assert may_go.wait(20)

    def run(work: Callable[[Db], object]) -> object:
        try:
            return database.write_sync(work)
        except Exception as exc:
            return exc

    with ThreadPoolExecutor(len(works) + 1) as threads:
        first = threads.submit(database.write_sync, hold)
        assert begun.wait(20)
        others = []
        for n, work in enumerate(works, 1):
            others.append(threads.submit(run, work))
            while len(database._group_commit._waiting) < n:
                threading.Event().wait(0.001)
        may_go.set()
        first.result(20)
        return [other.result(20) for other in others]


def put(word: str, then: Callable[[Db], object] = lambda _: None) -> Callable[[Db], object]:
    def work(db: Db) -> object:
        db.execute("INSERT INTO facts VALUES (?, 0)", (word,))
        then(db)
        return word

    return work


def fail(_: Db) -> None:
    raise RuntimeError("on purpose")


def test_one_that_fails_takes_nothing_along(tmp_path: Path) -> None:
    database = open_words(tmp_path)
    found = together(
        database,
        [put("a"), put("b", fail), put("a"), put("c"), put("d", lambda db: db.execute("NO SQL"))],
    )
    assert (found[0], found[3]) == ("a", "c")
    assert isinstance(found[1], RuntimeError)
    assert isinstance(found[2], StoreError), "of the database: it was there already"
    assert isinstance(found[4], StoreError)
    assert words(database) == {"a", "c"}
    database.close()


def test_later_work_of_a_group_sees_the_earlier(tmp_path: Path) -> None:
    database = open_words(tmp_path)

    def count(db: Db) -> object:
        return db.execute("SELECT COUNT(*) FROM facts").fetchone()[0]

    assert together(database, [put("a"), count, put("b"), count]) == ["a", 1, "b", 2]
    database.close()


def test_full_disk_in_a_group_keeps_nothing_that_is_said_to_be_kept(tmp_path: Path) -> None:
    """SQLite undoes a whole transaction then, not only what it was at."""
    database = open_words(tmp_path)
    pages = database.write_sync(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    database.write_sync(lambda db: db.execute(f"PRAGMA max_page_count={pages + 3}").fetchone())

    def fill(db: Db) -> None:
        for n in range(3000):
            db.execute("INSERT INTO facts VALUES (?, 0)", (f"{n} {'x' * 500}",))

    found = together(database, [put("a"), fill, put("b")])
    assert isinstance(found[1], StoreFull)
    kept = words(database)
    for word, said in zip("ab", (found[0], found[2]), strict=True):
        assert (said == word) == (word in kept)
        assert said == word or isinstance(said, StoreFull)
    assert database.write_sync(put("c")) == "c"
    database.close()


def test_commit_that_fails_fails_all_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_words(tmp_path)
    plain = Database._transact

    def transact(self: Database, work: Callable[[Db], Any]) -> Any:
        def and_fail(db: Db) -> None:
            work(db)
            raise StoreError("the disk failed at the commit")

        return plain(self, and_fail)

    with monkeypatch.context() as failing:
        failing.setattr(Database, "_transact", transact)
        with pytest.raises(StoreError):
            together(database, [put("a")])
    found = together(database, [put("a"), put("b", fail)])
    assert found[0] == "a"
    assert words(database) == {"a"}
    database.close()


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    database, chance = open_words(tmp_path), random.Random(1)
    kept: list[str] = []

    def run(n: int) -> None:
        word = f"word {n}"
        try:
            database.write_sync(put(word, fail if chance.random() < 0.2 else lambda _: None))
        except RuntimeError:
            return
        kept.append(word)

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(run, range(600)))
    assert words(database) == set(kept)
    assert 400 < len(kept) < 560
    database.close()
