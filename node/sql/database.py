"""One encrypted SQLite database: opened with the right pragmas, one writer at a time.

SQLCipher encrypts the whole file, its write-ahead log and its temporary files. All work
runs on worker threads under one lock: SQLite has a single writer anyway, and our
transactions are short.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlcipher3.dbapi2 as sqlcipher
import sqlite_utils
import trio
from sqlite_utils import Migrations

from node import failure
from node.errors import StoreError, StoreFull, StoreLocked, SyncFailed

T = TypeVar("T")
Db = sqlite_utils.Database

_VERSION_FLOOR = (3, 51, 3)  # older ones can lose commits when a WAL is reset
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "secure_delete=ON",
    "temp_store=MEMORY",
    "busy_timeout=10000",
    "cache_size=-8192",
)

_DAMAGED = "the database is damaged, or is another's"


class Database:
    """An open database. `read` and `write` run functions on it; nothing else touches it.

    Use `open_database`; call `close` when done.
    """

    def __init__(self, connection: sqlcipher.Connection, if_damaged: str) -> None:
        self._connection = connection
        self._translated = partial(_Translated, if_damaged)
        self._db = sqlite_utils.Database(connection, execute_plugins=False)
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(1)

    async def read(self, work: Callable[[Db], T]) -> T:
        """Run `work` on a worker thread and return what it returns.

        Raises:
            StoreError: the database failed.

        Cancellation:
            A checkpoint on entry; once begun, `work` runs to its end.
        """
        return await trio.to_thread.run_sync(self.read_sync, work, limiter=self._limiter)

    async def write(self, work: Callable[[Db], T]) -> T:
        """Run `work` in one transaction; durable once this returns.

        Raises:
            StoreError: the database failed; nothing of `work` was kept. What `work` itself
                raises passes through, and nothing is kept either.

        Cancellation:
            A checkpoint on entry; once begun, the transaction commits or fails as a whole.
        """
        return await trio.to_thread.run_sync(self.write_sync, work, limiter=self._limiter)

    def read_sync(self, work: Callable[[Db], T]) -> T:
        """Do as `read`, on the calling thread."""
        with self._lock, self._translated():
            return work(self._db)

    def write_sync(self, work: Callable[[Db], T]) -> T:
        """Do as `write`, on the calling thread."""
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._db)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return result

    def copy_to(self, path: Path, read: Callable[[Db], T]) -> T:
        """Write a consistent, encrypted copy (same key) to a path that does not exist.

        Returns:
            What `read` finds in the database at the moment of the copy.

        Raises:
            StoreError: the copy could not be written; this database is as it was.
        """
        with self._lock:
            try:
                # VACUUM INTO keeps the cipher and key of the connection.
                self._connection.execute("VACUUM INTO ?", (str(path),))
                return read(self._db)
            except sqlcipher.Error as exc:
                raise StoreError("a copy of the database could not be written there") from exc

    def used_bytes(self) -> int:
        """Return the bytes of what is in it, and of its write-ahead log.

        Free pages are left out: they are written again before the file grows.
        """
        with self._lock, self._translated():
            ask = self._connection.execute
            pages, free, size = (
                int(ask(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            path = Path(ask("PRAGMA database_list").fetchone()[2])
        log = path.with_name(f"{path.name}-wal")
        return (pages - free) * size + (log.stat().st_size if log.exists() else 0)

    def compact(self) -> None:
        """Write the database anew without what was deleted, and empty the write-ahead log.

        Raises:
            StoreError: there was no room, or it failed; the database is as it was.
        """
        with self._lock, self._translated():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Empty the write-ahead log into the file and close it."""
        with self._lock:
            with suppress(sqlcipher.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()


class _Translated:
    """Turns the library's errors into ours."""

    def __init__(self, if_damaged: str) -> None:
        self._if_damaged = if_damaged

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlcipher.Error):
            text = str(error)
            if "disk I/O error" in text:
                failure.note()
                raise SyncFailed("the database could not be written or synced") from error
            if "full" in text:
                raise StoreFull("the disk is full; free space and try again") from error
            if any(word in text for word in ("malformed", "not a database", "hmac")):
                raise StoreError(self._if_damaged) from error
            if "locked" in text:
                raise StoreLocked("another process has the database open") from error
            raise StoreError(f"the database failed: {type(error).__name__}") from error


def open_database(
    path: Path, key: bytes, migrations: Migrations, *, if_damaged: str = _DAMAGED
) -> Database:
    """Open or create the database at `path` and bring its schema up to date.

    Args:
        path: The file; its folder exists.
        key: 32 bytes, the raw SQLCipher key.
        migrations: Numbered steps; each runs once, in a transaction.
        if_damaged: What to tell people of a damaged file, or another key's; with advice.

    Raises:
        StoreError: SQLite is too old, the key is another one, or the file is damaged.
    """
    if sqlcipher.sqlite_version_info < _VERSION_FLOOR:
        raise StoreError(f"SQLite {sqlcipher.sqlite_version} is too old; upgrade sqlcipher3")
    with _Translated(if_damaged):
        connection = sqlcipher.connect(str(path), check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA cipher_log_level = NONE")  # its lines would come between ours
        connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlcipher.DatabaseError as exc:
            connection.close()
            raise StoreError(if_damaged) from exc
        connection.row_factory = sqlcipher.Row
        migrations.apply(sqlite_utils.Database(connection, execute_plugins=False))
    return Database(connection, if_damaged)


def opens(path: Path, key: bytes) -> bool:
    """Whether a database that nobody has open can be read with a key."""
    try:
        open_database(path, key, Migrations("none")).close()
    except StoreError:
        return False
    return True


def change_key(path: Path, key: bytes, new_key: bytes) -> None:
    """Encrypt a database that nobody has open under another key; all of it or nothing.

    Raises:
        StoreError: `key` is not its key, or it is damaged; it is as it was.
    """
    database = open_database(path, key, Migrations("none"))
    try:
        database.read_sync(lambda db: db.execute(f"PRAGMA rekey = \"x'{new_key.hex()}'\""))
    finally:
        database.close()


def sqlite_version() -> str:
    """Return the version of SQLite in use."""
    return str(sqlcipher.sqlite_version)
