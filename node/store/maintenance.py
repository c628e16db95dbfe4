"""Looking after a store: counts, checks, retention, backup."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

from node.chunks.storage import Requests, raise_if_general
from node.domain.backups import Piece
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.packages import Package
from node.errors import ChunkDamaged, StoreError
from node.outside.copies import DATABASE
from node.sql.database import Db, forget_earlier
from node.store import audit_rows, findings, package_rows
from node.store.backup import Backup
from node.store.context import StoreContext
from node.store.lost import count_lost, lost_positions, note_found, noted_if_lost
from node.store.opening import check_chunk
from node.store.removal import finish_removals, sweep
from node.store.repair import find_orphans
from node.store.transfer_rows import FINAL
from node.store.verification import count_unopened, note_opened
from node.system import clock
from node.system.durable_files import TEMPORARY_SUFFIX

_REMOVE_SECONDS = 60.0  # what is left is removed at the next start
_REPORT_EVERY = 64
_PAGE = 1000  # chunks


class Maintenance:
    """Maintenance of one open store."""

    def __init__(self, context: StoreContext, home: Path) -> None:
        self._context = context
        self._home = home

    async def tidy_at_start(self) -> int:
        """Complete what a kill interrupted and delete chunks that nothing names.

        Call it only before anything is imported or received. Nothing is deleted while an envelope
        has no rows: the database is then incomplete, and chunks only seem to be unnamed.
        """
        return await trio.to_thread.run_sync(self._tidy_at_start)

    def _tidy_at_start(self) -> int:
        for path in self._home.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink(missing_ok=True)
        # A kill came between sealing a held instance and noting its reason. The package is removed:
        # a new import examines the file again.
        self._context.database.write_sync(
            lambda db: db.execute(
                "UPDATE packages SET state = 'deleting' WHERE state = 'held'"
                " AND id NOT IN (SELECT package FROM findings)"
            ),
            in_need=True,
        )
        # A kill came between the end of a transfer and the removal of its partial package.
        self._context.database.write_sync(
            lambda db: db.execute(
                "UPDATE packages SET state = 'deleting' WHERE state = 'arriving' AND NOT EXISTS"
                " (SELECT 1 FROM transfers t WHERE t.direction = 'receive'"
                " AND t.origin = packages.origin AND t.package_id = packages.package_id"
                f" AND t.state NOT IN ({FINAL}))"
            ),
            in_need=True,
        )
        removed = finish_removals(self._context)
        orphans = find_orphans(self._context)
        if not orphans:
            return removed + sweep(self._context)
        facts: dict[str, object] = {"envelopes": len(orphans)}
        self._context.database.write_sync(
            lambda db: audit_rows.alarm(db, "alarm.envelopes-without-rows", facts, about=()),
            in_need=True,
        )
        return removed

    @property
    def chunk_place(self) -> str:
        """Where chunks are kept, as a person wrote it; empty for the home."""
        return self._context.storage.where()

    async def counts(self) -> dict[str, int]:
        """Return how much is here: studies, instances, sealed bytes, held, free bytes."""
        return await trio.to_thread.run_sync(self.counts_sync)

    def counts_sync(self) -> dict[str, int]:
        """Do as `counts`, on the calling thread."""
        counts = self._context.database.read_sync(_counts)
        counts["free_bytes"] = self._context.storage.free_bytes()
        return counts

    def forget_earlier_database(self) -> bool:
        """Delete the database of before an upgrade after a week; whether it went. Blocks."""
        return forget_earlier(self._home / DATABASE, clock.now())

    def chunks_here(self) -> Iterator[ChunkId]:
        """Yield every chunk that a package names and that is to be here, by its id. Blocks."""
        after = b""
        while page := self._context.database.read_sync(
            partial(package_rows.chunks_after, after=after, limit=_PAGE)
        ):
            yield from (chunk_id for chunk_id, is_here in page if is_here)
            after = page[-1][0].digest

    def chunk_requests(self) -> Mapping[tuple[str, str], Requests]:
        """Return what an object store was asked since the start, by operation and outcome."""
        return self._context.storage.requests()

    def transfers_sync(self) -> dict[tuple[str, str], int]:
        """Return how many transfers there are by direction and state."""
        rows = self._context.database.read_sync(
            lambda db: db.execute(
                "SELECT direction, state, COUNT(*) FROM transfers GROUP BY 1, 2"
            ).fetchall()
        )
        return {(row[0], row[1]): row[2] for row in rows}

    async def check(
        self,
        *,
        read_data: bool,
        report: Callable[[int, int, str], Awaitable[None]],
        studies: Collection[str] = (),
    ) -> int:
        """Hold every closed package against its envelope and its chunks.

        What is damaged is noted: the next transfer of its package carries it again, the next
        import of the same files seals it again.

        Args:
            read_data: Open every chunk too, instead of looking at sizes only.
            report: Called with chunks done and in all, and a problem or an empty text.
            studies: Look at this facility's packages of these studies only; at all if there are
                none.

        Returns:
            How many problems were found.

        Raises:
            StoreError: what keeps the chunks does not answer, or refuses this node.
        """
        context, problems, done = self._context, 0, 0
        packages = await context.database.read(partial(self._packages_of, studies))
        total = await context.database.read(partial(_count_chunks, [p.id for p in packages]))
        names = frozenset(context.envelopes.names())
        for package in packages:
            if context.envelopes.name(package.origin, package.package_id) not in names:
                problems += 1
                await report(done, total, f"package {package.package_id.short()}: no envelope")
            noted = await context.database.read(partial(_lost_of, package))
            chunks = await context.database.read(partial(_chunks_of, package))
            opened: list[int] = []
            for position, (entry, pieces) in enumerate(chunks):
                look = partial(self._look, package, entry, pieces)
                try:
                    await trio.to_thread.run_sync(look, read_data, position in noted)
                    if read_data:
                        opened.append(position)
                except StoreError as exc:
                    await trio.to_thread.run_sync(raise_if_general, context.storage, exc)
                    problems += 1
                    await report(done, total, f"chunk {entry.chunk_id.short()}: {exc}")
                done += 1
                if done % _REPORT_EVERY == 0:
                    await report(done, total, "")
            await trio.to_thread.run_sync(note_opened, context, package.id, opened)
        await report(done, total, "")
        return problems

    def _look(
        self,
        package: Package,
        entry: ChunkEntry,
        pieces: Sequence[int],
        read_data: bool,
        is_noted: bool,
    ) -> None:
        """Check a chunk, and note if it was lost or found again since the last check."""
        context = self._context
        with noted_if_lost(context, entry.chunk_id):
            if context.storage.size(entry.chunk_id) != entry.sealed_bytes:
                raise ChunkDamaged("it is missing or has another size")
            if not read_data and not is_noted:
                return
            sealed = context.storage.get(entry.chunk_id)
            keys = context.data_key(package).sealing_keys()
            check_chunk(context.expander, keys, package.package_id, entry, pieces, sealed)
        if is_noted:  # it was noted as lost, and is intact again
            context.storage.sync([entry.chunk_id])
            note_found(context, [entry.chunk_id])

    def _packages_of(self, studies: Collection[str], db: Db) -> list[Package]:
        if not studies:
            return package_rows.find_packages(db, "state = 'closed'", ())
        me, found = self._context.facility.digest, list[Package]()
        for study in studies:
            where = "state = 'closed' AND study_uid = ? AND origin = ?"
            found += package_rows.find_packages(db, where, (study, me))
        return found

    async def backup(
        self,
        report: Callable[[int, int], Awaitable[None]],
        send: Callable[[Piece], Awaitable[None]],
        had: Collection[bytes] = frozenset(),
    ) -> None:
        """Hand a copy of the whole node to whoever writes it; see `node.store.backup`.

        Args:
            report: Called with how many files and bytes it has, about, before the first.
            send: Called with each piece of a file; the next is read when it returns.
            had: Digests of chunks that whoever writes it has: they are only named.

        Raises:
            StoreFull: there is no room in the home for a copy of the database.

        Cancellation:
            Nothing is left of it in the home.
        """

        def run() -> None:
            with Backup(self._context, self._home, had).begun() as backup:
                trio.from_thread.run(report, *backup.size())
                with closing(backup.pieces()) as pieces:
                    for piece in pieces:
                        trio.from_thread.run(send, piece)

        try:
            await trio.to_thread.run_sync(run)
        finally:
            with trio.move_on_after(_REMOVE_SECONDS, shield=True):
                await trio.to_thread.run_sync(finish_removals, self._context)


def _chunks_of(package: Package, db: Db) -> list[tuple[ChunkEntry, list[int]]]:
    """Return a package's chunks, each with the lengths of the pieces in it."""
    return list(zip(*package_rows.get_chunks_and_pieces(db, package.id), strict=True))


def _count_chunks(packages: Sequence[int], db: Db) -> int:
    sql = "SELECT COUNT(*) FROM chunks WHERE package = ?"
    return sum(int(db.execute(sql, (package,)).fetchone()[0]) for package in packages)


def _lost_of(package: Package, db: Db) -> frozenset[int]:
    return lost_positions(db, package.id)


def _counts(db: Db) -> dict[str, int]:
    sql = {
        "studies": "SELECT COUNT(DISTINCT study_uid) FROM packages WHERE state = 'closed'",
        "instances": "SELECT COALESCE(SUM(instances), 0) FROM packages WHERE state = 'closed'",
        "sealed_bytes": "SELECT COALESCE(SUM(sealed_bytes), 0) FROM packages",
        "held_instances": f"SELECT COUNT(*) FROM {findings.HELD}",
        "unfinished_imports": "SELECT COUNT(*) FROM imports",
        "alarms": f"SELECT COUNT(*) FROM audit WHERE {audit_rows.OPEN_ALARMS}",
    }
    counts = {name: int(db.execute(query).fetchone()[0]) for name, query in sql.items()}
    return {**counts, "lost_chunks": count_lost(db), "unopened_chunks": count_unopened(db)}
