"""All that a directory's database holds, in the clear."""

import shutil
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql
from sqlite_utils import Migrations

from directory_service.home import Home, database_key
from node.sql.database import open_database
from tests.support.nodes import Directory


def database_dump(directory: Directory) -> bytes:
    """Return all values of all tables of a directory's database, one to a line."""
    url = Home(directory.home).load_config().database
    values = _of_postgres(url) if url else _of_the_embedded(directory)
    return b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in values)


def _of_postgres(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        for (name,) in tables:  # bytes, where the database knows no encoding
            table = name.decode() if isinstance(name, bytes) else name
            for row in connection.execute(
                sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
            ):
                yield from row


def _of_the_embedded(directory: Directory) -> list[Any]:
    # A copy of all of it: the database is in use, and its newest rows are in its log.
    copy = directory.home.with_suffix(".copy")
    shutil.copytree(directory.home, copy, ignore=shutil.ignore_patterns("*.sock"))
    key = database_key(Home(copy).key())
    database = open_database(Home(copy).database, key, Migrations("none"))
    try:
        return database.read_sync(
            lambda db: [v for table in db.tables for row in table.rows for v in row.values()]
        )
    finally:
        database.close()
        shutil.rmtree(copy)
