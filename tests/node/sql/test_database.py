"""The database: unreadable without its key, all or nothing, migrated once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlite_utils import Migrations

from node.errors import StoreError
from node.sql.database import Db, earlier_path, forget_earlier, open_database, opens

KEY = bytes(range(32))


def steps() -> Migrations:
    migrations = Migrations("test")

    @migrations()
    def first(db: Db) -> None:
        db.executescript("CREATE TABLE facts (word TEXT PRIMARY KEY) STRICT")

    return migrations


def words(db: Db) -> list[str]:
    return [row[0] for row in db.execute("SELECT word FROM facts ORDER BY word")]


def add(word: str, *, fails: bool = False) -> object:
    def work(db: Db) -> None:
        db.execute("INSERT INTO facts VALUES (?)", (word,))
        if fails:
            raise RuntimeError

    return work


def test_nothing_is_readable_in_the_files(tmp_path: Path) -> None:
    path = tmp_path / "db"
    database = open_database(path, KEY, steps())
    database.write_sync(add("planted-secret-word"))  # type: ignore[arg-type]
    for file in tmp_path.iterdir():  # the write-ahead log too
        assert b"planted-secret-word" not in file.read_bytes()
        assert b"SQLite format" not in file.read_bytes()
    database.close()
    assert b"planted-secret-word" not in path.read_bytes()


def test_files_are_their_users_alone_whatever_the_umask(tmp_path: Path) -> None:
    path, copy = tmp_path / "db", tmp_path / "copy"

    def modes() -> set[int]:
        return {found.stat().st_mode & 0o777 for found in tmp_path.iterdir()}

    before = os.umask(0o022)
    try:
        database = open_database(path, KEY, steps())
        database.write_sync(add("word"))  # type: ignore[arg-type]
        assert {found.name for found in tmp_path.iterdir()} == {"db", "db-wal", "db-shm"}
        assert modes() == {0o600}
        assert database.copy_to(copy, words) == ["word"]
        assert modes() == {0o600}
        database.close()
        path.chmod(0o644)  # as an earlier version left it
        open_database(path, KEY, steps()).close()
        assert modes() == {0o600}
    finally:
        os.umask(before)


def test_another_key_opens_nothing_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, KEY, steps()).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="belongs to another home"):
        open_database(path, bytes(32), steps())
    assert path.read_bytes() == before


def test_failed_transaction_keeps_nothing(tmp_path: Path) -> None:
    database = open_database(tmp_path / "db", KEY, steps())
    database.write_sync(add("kept"))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        database.write_sync(add("lost", fails=True))  # type: ignore[arg-type]
    assert database.read_sync(words) == ["kept"]
    database.close()


def test_migrations_run_once_and_the_copy_opens_with_the_same_key(tmp_path: Path) -> None:
    database = open_database(tmp_path / "db", KEY, steps())
    database.write_sync(add("kept"))  # type: ignore[arg-type]
    assert database.copy_to(tmp_path / "copy", words) == ["kept"]
    database.close()
    for name in ("db", "copy"):
        again = open_database(tmp_path / name, KEY, steps())
        assert again.read_sync(words) == ["kept"]
        again.close()


def later_steps(*, fails_at: str = "") -> Migrations:
    """Return the steps of a later version: a column, and what was there in it."""
    migrations = steps()

    @migrations()
    def second(db: Db) -> None:
        db.execute("ALTER TABLE facts ADD COLUMN length INTEGER NOT NULL DEFAULT 0")
        if fails_at == "second":
            raise RuntimeError

    @migrations()
    def third(db: Db) -> None:
        db.execute("UPDATE facts SET length = LENGTH(word)")
        if fails_at == "third":
            raise RuntimeError

    return migrations


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make_earlier(path: Path) -> None:
    """Make a database of the version before."""
    database = open_database(path, KEY, steps())
    database.write_sync(add("word"))  # type: ignore[arg-type]
    database.close()


def test_schema_changes_after_a_copy_and_the_copy_opens_with_the_version_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    make_earlier(path)
    assert files(tmp_path) == {"db"}  # a new one needs no copy
    database = open_database(path, KEY, later_steps())
    assert database.read_sync(lambda db: db.execute("SELECT * FROM facts").fetchone()[:]) == (
        "word",
        4,
    )
    database.close()
    assert files(tmp_path) == {"db", "db.earlier"}
    open_database(path, KEY, later_steps()).close()  # once more changes nothing
    path.unlink()
    earlier_path(path).rename(path)
    before = open_database(path, KEY, steps())
    assert before.read_sync(words) == ["word"]
    before.close()


@pytest.mark.parametrize("step", ["second", "third"])
def test_upgrade_that_fails_at_a_step_goes_on_there_and_keeps_what_was_before_the_first(
    tmp_path: Path, step: str
) -> None:
    path = tmp_path / "db"
    make_earlier(path)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            open_database(path, KEY, later_steps(fails_at=step))
        assert files(tmp_path) == {"db", "db.before-upgrade"}
    open_database(path, KEY, later_steps()).close()
    assert files(tmp_path) == {"db", "db.earlier"}
    before = open_database(earlier_path(path), KEY, steps())
    assert before.read_sync(words) == ["word"]
    before.close()


_UPGRADE = """
import os, sys
from pathlib import Path
from node.sql import database
from node.system import durable_files
from tests.node.sql.test_database import KEY, later_steps

left = int(sys.argv[2])

def counted(work):
    def run(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return work(*arguments, **named)
    return run

for of, name in (
    (durable_files, "sync_file"), (durable_files, "sync_directories"), (Path, "rename"),
    (Path, "unlink"), (database.Database, "copy_to"), (database.Migrations, "apply"),
):
    setattr(of, name, counted(getattr(of, name)))
database.open_database(Path(sys.argv[1]), KEY, later_steps()).close()
"""


def test_upgrade_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    statuses = []
    for kill in range(12):
        folder = tmp_path / str(kill)
        folder.mkdir()
        path = folder / "db"
        make_earlier(path)
        arguments = [sys.executable, "-c", _UPGRADE, str(path), str(kill)]
        statuses.append(subprocess.run(arguments, check=False).returncode)
        for temporary in folder.glob(".*.tmp"):
            temporary.unlink()  # as every start does
        open_database(path, KEY, later_steps()).close()
        assert files(folder) == {"db", "db.earlier"}
        before = open_database(earlier_path(path), KEY, steps())
        assert before.read_sync(words) == ["word"]
        before.close()
    assert (statuses[0], statuses[-1]) == (-9, 0)
    assert statuses.count(-9) >= 7


def test_what_was_before_an_upgrade_goes_after_a_week_and_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make_earlier(path)
    database = open_database(path, KEY, later_steps())
    now = earlier_path(path).stat().st_mtime
    assert not forget_earlier(path, now + 6 * 86400)
    database.change_key(bytes(32))
    database.close()
    assert files(tmp_path) == {"db"}
    earlier_path(path).touch()
    os.utime(earlier_path(path), (now, now))
    assert forget_earlier(path, now + 8 * 86400)
    assert not forget_earlier(path, now + 8 * 86400)
    assert files(tmp_path) == {"db"}


async def test_work_of_many_tasks_is_serial(tmp_path: Path) -> None:
    import trio

    database = open_database(tmp_path / "db", KEY, steps())
    running, most = 0, 0

    def work(db: Db) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        db.execute("SELECT 1").fetchone()
        running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(database.write, work)
    assert most == 1
    database.close()


def test_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    later = steps()
    later(name="second")(lambda db: db.execute("CREATE TABLE more (word TEXT)"))
    open_database(tmp_path / "db", KEY, later).close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(StoreError, match=r"made by a newer emix \(second\)"):
        open_database(tmp_path / "db", KEY, steps())
    assert (tmp_path / "db").read_bytes() == before
    open_database(tmp_path / "db", KEY, later).close()
    assert opens(tmp_path / "db", KEY)
