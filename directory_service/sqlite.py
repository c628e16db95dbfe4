"""The embedded database: one encrypted file, one process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Migrations

from directory_service.bus import BusMessage
from directory_service.storage import SCHEMA, Transaction
from node.sql.database import Db, forget_earlier, open_database

T = TypeVar("T")
_IF_DAMAGED = (
    "the database is damaged, or another directory's: move directory.db* away and restart; the"
    " nodes restore its contents"
)


class _Transaction:
    def __init__(self, db: Db) -> None:
        self._db = db

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See `Transaction.execute`."""
        return [tuple(row) for row in self._db.execute(sql, values).fetchall()]


class SqliteEngine:
    """See `directory_service.storage.Engine`."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Open or make the database at `path`, encrypted under `key` (32 bytes).

        Raises:
            StoreError: it is damaged, or encrypted under another key.
        """
        self._database = open_database(path, key, _migrations(), if_damaged=_IF_DAMAGED)
        forget_earlier(path, time.time())

    async def run(self, work: Callable[[Transaction], T], message: BusMessage | None = None) -> T:
        """See `Engine.run`; `message` is ignored, since there is no other process."""
        del message
        return await self._database.write(lambda db: work(_Transaction(db)))

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        self._database.close()


def _migrations() -> Migrations:
    migrations = Migrations("directory")
    for number, statements in enumerate(SCHEMA, 1):

        def step(db: Db, statements: tuple[str, ...] = statements) -> None:
            for statement in statements:
                db.execute(statement.replace("BYTEA", "BLOB"))

        step.__name__ = f"step_{number}"
        migrations()(step)
    return migrations
