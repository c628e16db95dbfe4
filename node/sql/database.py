"""One encrypted SQLite database: opened with the right pragmas, readers beside one writer.

SQLCipher encrypts the whole file, its write-ahead log and its temporary files. All work
runs on worker threads. What is written goes over one connection, under one lock: SQLite has
a single writer anyway, and our transactions are short. What several tasks write at the same time
is committed together (`node.sql.group_commit`). What is read goes over others, each in a
transaction of its own, so that a long list keeps nobody from writing.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import sqlcipher3.dbapi2 as sqlcipher
import sqlite_utils
import trio
from sqlite_utils import Migrations

from node.domain.display_text import printable
from node.errors import (
    DatabaseDamaged,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreLocked,
    SyncFailed,
)
from node.sql.group_commit import MOST_TOGETHER, GroupCommit, Job
from node.system import durable_files, safe_paths, sync_failure
from node.system.durable_files import TEMPORARY_SUFFIX

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

READERS = 4
"""How many tasks read at once; each has its own connection and page cache."""

_READER_CACHE_KIB = 4096
_DAMAGED = "the database is damaged, or belongs to another home"
_CODE = 0xFF
"""Masks an extended result code to its primary code."""

_DAMAGE = (sqlcipher.SQLITE_CORRUPT, sqlcipher.SQLITE_NOTADB)
_REFUSED = (sqlcipher.SQLITE_CANTOPEN, sqlcipher.SQLITE_READONLY, sqlcipher.SQLITE_PERM)
_CANNOT = "the database cannot be used: {}"
_SIDES = ("", "-wal", "-shm")


_UPGRADING, _EARLIER = ".before-upgrade", ".earlier"
EARLIER_SECONDS = 7 * 86400.0
"""So long a database is kept as it was before an upgrade."""


def earlier_path(path: Path) -> Path:
    """Return the path of a database's copy from before its last upgrade, kept for some days."""
    return path.with_name(f"{path.name}{_EARLIER}")


def forget_earlier(path: Path, now: float) -> bool:
    """Delete the pre-upgrade copy of a database once it is a week old; return whether it was.

    The copy still contains, in ciphertext, what was deleted since the upgrade.
    """
    earlier = earlier_path(path)
    try:
        if earlier.stat().st_mtime + EARLIER_SECONDS > now:
            return False
        earlier.unlink()
    except FileNotFoundError:
        return False
    return True


class Spare(Protocol):
    """Room on the disk for need."""

    def in_need(self) -> AbstractContextManager[None]:
        """Give it up for the time of the block, if the disk is nearly full."""


class NoSpare:
    """No spare room."""

    def in_need(self) -> AbstractContextManager[None]:
        """See `Spare.in_need`."""
        return nullcontext()


class Database:
    """An open database. `read` and `write` run functions on it; nothing else touches it.

    Use `open_database`; call `close` when done.
    """

    def __init__(self, path: Path, key: bytes, if_damaged: str, spare: Spare) -> None:
        """Open the writer's connection; readers' are opened as they are needed."""
        self._path = path
        self._spare = spare
        self._connect = partial(_connect, path, key)
        self._unlock = partial(_unlocked, key=key)
        self._connection = self._connect()
        self._translated = partial(_Translated, path, if_damaged)
        self._db = sqlite_utils.Database(self._connection, execute_plugins=False)
        self._lock = threading.Lock()
        self._group_commit = GroupCommit(self._transact_group)
        self._writing = trio.CapacityLimiter(MOST_TOGETHER)
        self._reading = trio.CapacityLimiter(READERS)
        self._idle: list[Db] = []  # readers; appended and popped, which one thread does at a time
        self._is_closed = False

    async def read(self, work: Callable[[Db], T]) -> T:
        """Run `work` on a worker thread and return what it returns.

        It sees the database as it is when it begins, and nothing that is committed meanwhile;
        it waits for no write, nor a write for it.

        Raises:
            StoreError: the database failed, or `work` would change it.

        Cancellation:
            A checkpoint on entry; once begun, `work` runs to its end.
        """
        return await trio.to_thread.run_sync(self.read_sync, work, limiter=self._reading)

    async def write(self, work: Callable[[Db], T], *, in_need: bool = False) -> T:
        """Run `work` as one transaction; durable once this returns.

        Others' work may be in the same transaction of the database, before and after it: either
        sees what the other did, and neither fails because of the other.

        Args:
            work: What to do.
            in_need: It frees room, or has to be recorded: where the disk is nearly full, the
                spare room is given up for it.

        Raises:
            StoreError: the database failed; nothing of `work` was kept. What `work` itself
                raises passes through, and nothing is kept either.

        Cancellation:
            A checkpoint on entry; once begun, the transaction commits or fails as a whole.
        """
        write = partial(self.write_sync, work, in_need=in_need)
        return await trio.to_thread.run_sync(write, limiter=self._writing)

    def read_sync(self, work: Callable[[Db], T]) -> T:
        """Do as `read`, on the calling thread."""
        with self._translated(), self._reader() as db:
            db.conn.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.conn.execute("COMMIT")

    @contextmanager
    def _reader(self) -> Generator[Db]:
        """Lease a read-only connection; after a database error it is closed, not reused."""
        try:
            db = self._idle.pop()
        except IndexError:
            connection = self._connect()
            connection.execute("PRAGMA query_only=ON")
            connection.execute(f"PRAGMA cache_size=-{_READER_CACHE_KIB}")
            db = sqlite_utils.Database(connection, execute_plugins=False)
        try:
            yield db
        except sqlcipher.Error:
            db.conn.close()
            raise
        except BaseException:
            self._put_back(db)
            raise
        self._put_back(db)

    def _put_back(self, db: Db) -> None:
        if self._is_closed or len(self._idle) >= READERS:
            db.conn.close()
        else:
            self._idle.append(db)

    def write_sync(self, work: Callable[[Db], T], *, in_need: bool = False) -> T:
        """Do as `write`, on the calling thread."""
        if in_need:  # alone: the spare room is given up for this and nothing else
            with self._lock, self._spare.in_need():
                return self._transact(work)
        result: T = self._group_commit.run(work)
        return result

    def _transact(self, work: Callable[[Db], T]) -> T:
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._db)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return result

    def _transact_group(self, jobs: Sequence[Job]) -> None:
        """Do several things in one transaction; one that fails takes nothing along.

        If the transaction as a whole fails, so does everything in it that had not failed already.
        """

        def work(_: Db) -> None:
            for job in jobs:
                self._do_apart(job)

        try:
            with self._lock:
                if len(jobs) == 1:
                    jobs[0].succeed(self._transact(jobs[0].work))
                else:
                    self._transact(work)
        except BaseException as exc:
            for job in jobs:
                if not job.is_failed:
                    job.fail(exc)

    def _do_apart(self, job: Job) -> None:
        """Do one thing of a transaction; if it fails, the transaction goes on without it."""
        self._connection.execute("SAVEPOINT apart")
        try:
            with self._translated():
                job.succeed(job.work(self._db))
        except BaseException as exc:
            if not self._connection.in_transaction:
                raise  # SQLite has undone all of it: the disk is full, or fails
            self._connection.execute("ROLLBACK TO apart")
            job.fail(exc)
        self._connection.execute("RELEASE apart")

    def copy_to(self, path: Path, read: Callable[[Db], T]) -> T:
        """Write a consistent, encrypted copy (same key) to a path that does not exist.

        Others read and write meanwhile.

        Returns:
            What `read` finds in the copy.

        Raises:
            StoreFull: there is no room for the copy.
            StoreError: the copy could not be written. This database is as it was.
        """
        try:
            with closing(self._connect()) as connection:
                _make_private(path)  # VACUUM INTO accepts an empty file
                # VACUUM INTO keeps the cipher and key of the connection.
                connection.execute("VACUUM INTO ?", (str(path),))
            with closing(self._unlock(path)) as copy:
                copy.execute("PRAGMA query_only=ON")
                return read(sqlite_utils.Database(copy, execute_plugins=False))
        except sqlcipher.Error as exc:
            if exc.sqlite_errorcode & _CODE == sqlcipher.SQLITE_FULL:
                raise StoreFull(
                    f"{path.parent} has no room for the copy of the database that must be made"
                    " first; free space there"
                ) from exc
            raise StoreError(f"the database could not be copied: {_name(exc)}") from exc

    def used_bytes(self) -> int:
        """Return the bytes of what is in it, and of its write-ahead log.

        Free pages are left out: they are written again before the file grows.
        """
        with self._translated(), self._reader() as db:
            ask = db.conn.execute
            pages, free, size = (
                int(ask(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        log = self._path.with_name(f"{self._path.name}-wal")
        return (pages - free) * size + (log.stat().st_size if log.exists() else 0)

    def change_key(self, new_key: bytes) -> None:
        """Encrypt it under another key, as a whole or not at all; nobody reads it meanwhile.

        Raises:
            StoreError: it failed; the database is as it was.
        """
        with self._lock, self._translated():
            self._close_readers()
            self._connection.execute(f"PRAGMA rekey = \"x'{new_key.hex()}'\"")
        # The copies are encrypted under the key that is being replaced.
        for name in (_UPGRADING, _EARLIER):
            self._path.with_name(f"{self._path.name}{name}").unlink(missing_ok=True)

    def migrate(self, migrations: Migrations) -> None:
        """Copy the database, then bring its schema up to date, before any other use.

        After a kill at any point the next start continues: the copy is complete or absent, and each
        step is one transaction. The state before the first step stays under `earlier_path`.

        Raises:
            StoreFull: there is no room for the copy; nothing was changed.
            StoreError: a later version has changed the schema.
        """
        _check_known(self._db, migrations)
        copy = self._path.with_name(f"{self._path.name}{_UPGRADING}")
        if migrations.applied(self._db) and migrations.pending(self._db) and not copy.exists():
            temporary = self._path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
            try:
                self.copy_to(temporary, lambda _: None)
                durable_files.sync_file(temporary)
                _rename(temporary, copy)
            finally:
                temporary.unlink(missing_ok=True)
        migrations.apply(self._db)
        if copy.exists():
            _rename(copy, earlier_path(self._path))

    def compact(self) -> None:
        """Rewrite the database without deleted content (VACUUM), and empty the write-ahead log.

        Raises:
            StoreError: there was no room, or it failed; the database is as it was.
        """
        with self._lock, self._translated():
            self._close_readers()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Empty the write-ahead log into the file and close it."""
        with self._lock:
            self._is_closed = True
            self._close_readers()
            with suppress(sqlcipher.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def _close_readers(self) -> None:
        while self._idle:
            self._idle.pop().conn.close()


class _Translated:
    """Turn the library's errors into ours."""

    def __init__(self, path: Path, if_damaged: str, *, is_opening: bool = False) -> None:
        self._path = path
        self._if_damaged = if_damaged
        self._is_opening = is_opening

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlcipher.Error):
            raise self._of(error) from error

    def _of(self, error: sqlcipher.Error) -> StoreError:
        """Return our error for SQLite's; only SQLite's own codes for corruption mean damage."""
        code = getattr(error, "sqlite_errorcode", sqlcipher.SQLITE_ERROR) & _CODE
        if code in _DAMAGE:
            return DatabaseDamaged(self._if_damaged)
        if code in _REFUSED and (why := _denial(self._path)):
            return StoreDenied(_CANNOT.format(why))
        # SQLite makes the index of its log on opening, and reports a full disk as an I/O error.
        is_index = code == sqlcipher.SQLITE_IOERR and self._is_opening
        if code == sqlcipher.SQLITE_FULL or (is_index and _is_full(self._path)):
            return StoreFull("the disk is full; free space and try again")
        if code == sqlcipher.SQLITE_IOERR:
            sync_failure.note()
            return SyncFailed("the database could not be read, written or synced")
        if code in (sqlcipher.SQLITE_BUSY, sqlcipher.SQLITE_LOCKED):
            return StoreLocked("another process has the database open")
        return StoreError(f"the database failed: {_name(error)}")


def _name(error: sqlcipher.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def _denial(path: Path) -> str:
    """Return which of a database's files this user may not use, and why; empty for none."""
    files = (path.with_name(path.name + side) for side in _SIDES)
    return next((why for file in files if (why := safe_paths.denial(file))), "")


def _is_full(path: Path) -> bool:
    """Return whether a database's disk has no block left."""
    try:
        return shutil.disk_usage(path.parent).free == 0
    except OSError:
        return False


def open_database(
    path: Path,
    key: bytes,
    migrations: Migrations,
    *,
    if_damaged: str = _DAMAGED,
    spare: Spare | None = None,
) -> Database:
    """Open or create the database at `path` and bring its schema up to date.

    Args:
        path: The file; its folder exists.
        key: 32 bytes, the raw SQLCipher key.
        migrations: Numbered steps; each runs once, in a transaction.
        if_damaged: What to tell people of a damaged file, or another key's; with advice.
        spare: Room to be given up where the disk is full.

    Raises:
        DatabaseDamaged: the key is another one, or the file is damaged.
        StoreDenied: this user may not use one of its files; the message names it.
        StoreFull: the disk is full.
        StoreError: a newer version of emix made it, SQLite is too old, or it fails otherwise.
    """
    if sqlcipher.sqlite_version_info < _VERSION_FLOOR:
        raise StoreError(f"SQLite {sqlcipher.sqlite_version} is too old; upgrade sqlcipher3")
    if why := _denial(path):  # SQLite would open what can only be read, and fail later
        raise StoreDenied(_CANNOT.format(why))
    with _Translated(path, if_damaged, is_opening=True):
        _make_private(path)
        database = Database(path, key, if_damaged, spare or NoSpare())
        try:
            database.migrate(migrations)
        except BaseException:
            database.close()
            raise
    return database


def _rename(path: Path, to: Path) -> None:
    with durable_files.translated():
        path.rename(to)
    durable_files.sync_directories([to.parent])


def _make_private(path: Path) -> None:
    """Make a database readable by its user only, whatever the umask is.

    SQLite creates the file according to the umask, and the files beside it with the same mode. A
    group that may use a node's admin socket can enter its home.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # SQLite says what is wrong
    try:
        if os.fstat(fd).st_mode & 0o077:
            os.fchmod(fd, 0o600)
    except PermissionError:
        pass  # it belongs to another user, who may have given us access
    finally:
        os.close(fd)


def _check_known(db: Db, migrations: Migrations) -> None:
    """Check that no later version has changed the schema: this one would misread what is there."""
    ours = {step.name for step in migrations.pending(sqlite_utils.Database(memory=True))}
    theirs = [step.name for step in migrations.applied(db) if step.name not in ours]
    if theirs:
        raise StoreError(
            f"the database was made by a newer emix ({printable(theirs[-1])[:40]}). Install that"
            " version or a later one; nothing was changed"
        )


def _unlocked(path: Path, key: bytes) -> sqlcipher.Connection:
    connection = sqlcipher.connect(str(path), check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA cipher_log_level = NONE")  # its lines would come between ours
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    connection.row_factory = sqlcipher.Row
    return connection


def _connect(path: Path, key: bytes) -> sqlcipher.Connection:
    connection = _unlocked(path, key)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except sqlcipher.Error:
        connection.close()
        raise
    return connection


def opens(path: Path, key: bytes) -> bool:
    """Whether a database that nobody has open can be read with a key.

    Raises:
        StoreError: that cannot be known: it may not be used, or the disk is full.
    """
    try:
        open_database(path, key, Migrations("none")).close()
    except DatabaseDamaged:
        return False
    return True


def change_key(path: Path, key: bytes, new_key: bytes) -> None:
    """Encrypt a database that nobody has open under another key, atomically.

    Raises:
        StoreError: `key` is not its key, or it is damaged; the database is unchanged.
    """
    database = open_database(path, key, Migrations("none"))
    try:
        database.change_key(new_key)
    finally:
        database.close()


def sqlite_version() -> str:
    """Return the version of SQLite in use."""
    return str(sqlcipher.sqlite_version)
