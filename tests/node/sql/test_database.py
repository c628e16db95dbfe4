"""The database: unreadable without its key, all or nothing, migrated once."""

import os
from pathlib import Path

import pytest
from sqlite_utils import Migrations

from node.errors import StoreError
from node.sql.database import Db, open_database, opens

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
    with pytest.raises(StoreError, match="another's"):
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
