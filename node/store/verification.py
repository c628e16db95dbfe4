"""Which chunks were opened since they were made: what was only sealed is not proven to open.

Chunks that arrive are opened before their receipt. What is sealed here is opened by `emix import
--verify`, by `emix store check --read-data`, and else little by little by the running node.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import trio

from node.chunks.storage import raise_if_general
from node.domain.packages import Package
from node.errors import StoreError
from node.sql.database import Db
from node.store import package_rows
from node.store.context import StoreContext
from node.store.lost import noted_if_lost
from node.store.opening import check_chunk
from node.system import clock

_AT_ONCE = 16  # a thread that opens them cannot be stopped in between
_UNOPENED = "chunks c JOIN packages p ON p.id = c.package WHERE c.opened_time = 0 AND c.present = 1"


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of the chunks that were opened next.

    Attributes:
        chunks: How many were.
        damaged: How many of them do not open; that is noted.
    """

    chunks: int = 0
    damaged: int = 0


class Verification:
    """Opens the chunks of closed packages that were not opened since they were made."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def open_next(self) -> Opened:
        """Open a few chunks of one package; nothing if nothing is left.

        Durable once this returns; cancelled, some chunks were opened and are opened again.

        Raises:
            StoreError: what keeps the chunks does not answer.
        """
        package = await self._context.database.read(_next_package)
        if package is None:
            return Opened()
        return await trio.to_thread.run_sync(self._open, package)

    def _open(self, package: Package) -> Opened:
        context = self._context
        wanted = context.database.read_sync(partial(_unopened_of, package.id))
        chunks, pieces = context.database.read_sync(
            lambda db: package_rows.get_chunks_and_pieces(db, package.id)
        )
        keys = context.data_key(package).sealing_keys()
        opened = []
        for position in wanted:
            entry = chunks[position]
            try:
                with noted_if_lost(context, entry.chunk_id):
                    sealed = context.storage.get(entry.chunk_id)
                    check_chunk(
                        context.expander, keys, package.package_id, entry, pieces[position], sealed
                    )
            except StoreError as exc:
                raise_if_general(context.storage, exc)
                continue
            opened.append(position)
        note_opened(context, package.id, opened)
        return Opened(len(wanted), len(wanted) - len(opened))


def note_opened(context: StoreContext, package: int, positions: Collection[int]) -> None:
    """Note that chunks of a package were opened and are what its manifest says. Durable."""
    if positions:
        context.database.write_sync(lambda db: mark_opened(db, package, positions))


def mark_opened(db: Db, package: int, positions: Collection[int]) -> None:
    """Mark chunks as opened now."""
    now = clock.now()
    db.conn.executemany(
        "UPDATE chunks SET opened_time = ? WHERE package = ? AND position = ?",
        [(now, package, position) for position in positions],
    )


def count_unopened(db: Db) -> int:
    """Return how many chunks of closed packages were not opened since they were made."""
    sql = f"SELECT COUNT(*) FROM {_UNOPENED} AND p.state = 'closed'"
    return int(db.execute(sql).fetchone()[0])


def _next_package(db: Db) -> Package | None:
    found = db.execute(
        f"SELECT c.package FROM {_UNOPENED} AND p.state = 'closed' ORDER BY c.package LIMIT 1"
    ).fetchone()
    return package_rows.find_packages(db, "id = ?", (found[0],))[0] if found else None


def _unopened_of(package: int, db: Db) -> list[int]:
    sql = (
        "SELECT position FROM chunks WHERE package = ? AND opened_time = 0 AND present = 1"
        " ORDER BY position LIMIT ?"
    )
    return [row[0] for row in db.execute(sql, (package, _AT_ONCE))]
