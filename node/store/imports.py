"""What import needs of the store: open packages, known instances, held instances."""

import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

import trio

from node.crypto.keys import DataKey
from node.documents.manifest import sign_manifest
from node.domain.ids import ChunkId, PackageId
from node.domain.packages import Package
from node.domain.texts import encodable
from node.domain.verdicts import Doubt, Examined
from node.errors import Conflict, NotFound
from node.sql.database import Db
from node.store import audit_rows, findings, package_rows
from node.store.context import StoreContext, marks
from node.store.envelopes import Envelope
from node.store.findings import HeldInstance
from node.store.package_writer import PackageWriter
from node.store.removal import delete_unnamed, remove_packages

T = TypeVar("T")

SEALING_THREADS = 3
_SQL_VARIABLES = 500


class ImportStore:
    """Packages of this facility, while they fill and when they close."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        # Bounds plaintext in memory: that many chunks are being sealed at once.
        self._limiter = trio.CapacityLimiter(SEALING_THREADS)
        # Rows that some running import fills: two imports of one study at the same time
        # fill a package each.
        self._in_use: set[int] = set()
        self._opening = trio.Lock()
        # A package is closed once: two decisions about one instance follow each other.
        self._deciding = trio.Lock()

    async def open_package(
        self,
        study_uid: str,
        nursery: trio.Nursery,
        *,
        state: str = "open",
        mine: Collection[int] = (),
    ) -> PackageWriter:
        """Return a writer for the study's open package: a killed import's, or a new one.

        A killed import's may be among `mine` already, through `find_known`.
        The package row is durable before this returns. Sealing runs in `nursery`.
        """
        context = self._context

        def work(db: Db) -> Package:
            where = "state = 'open' AND origin = ? AND study_uid = ?"
            args = (context.facility.digest, study_uid)
            found = package_rows.find_packages(db, where, args) if state == "open" else []
            left = [p for p in found if p.id in mine or p.id not in self._in_use]
            if left:
                return left[0]
            key = DataKey.new()
            epoch, wrapped = context.wrap(key, context.facility)
            row_id = package_rows.add_package(
                db,
                package_id=key.package_id,
                origin=context.facility,
                study_uid=study_uid,
                state=state,
                epoch=epoch,
                wrapped_key=wrapped,
            )
            return package_rows.find_packages(db, "id = ?", (row_id,))[0]

        async with self._opening:
            package = await context.database.write(work)
            self._in_use.add(package.id)
        return PackageWriter(
            package=package.id,
            data_key=context.data_key(package),
            next_number=package.next_number,
            database=context.database,
            storage=context.storage,
            nursery=nursery,
            limiter=self._limiter,
        )

    def release_packages(self, rows: Iterable[int]) -> None:
        """Let the next import of their studies go on in packages that are still open."""
        self._in_use.difference_update(rows)

    async def find_known(
        self, digests: Sequence[bytes], mine: Collection[int]
    ) -> dict[bytes, int | None]:
        """Return those digests whose instances this facility has imported already.

        With each stands the package that a killed import left open around it: it is the
        caller's now, to close; None for one that is closed, held, or among `mine`. What
        another running import has recorded is not known yet: it may still be given up.
        """
        me = self._context.facility.digest

        def work(db: Db) -> dict[bytes, int | None]:
            found: dict[bytes, int | None] = {}
            for some in _slices(digests):
                sql = (
                    "SELECT i.digest, p.id, p.state FROM instances i"
                    " JOIN packages p ON p.id = i.package WHERE p.origin = ?"
                    " AND p.state IN ('open', 'closed', 'held')"
                    f" AND i.digest IN ({marks(some)})"
                )
                for digest, package, state in db.execute(sql, (me, *some)):
                    if state != "open" or package in mine:
                        found[digest] = None
                    elif package not in self._in_use:
                        found.setdefault(digest, package)
            return found

        async with self._opening:
            known = await self._context.database.read(work)
            self._in_use.update(row for row in known.values() if row is not None)
        return known

    async def find_versioned(
        self, sop_instance_uids: Sequence[str], mine: Collection[int]
    ) -> set[str]:
        """Return those SOP Instance UIDs of which this facility has imported some version.

        What another running import has recorded does not count; see `find_known`.
        """
        me = self._context.facility.digest

        def work(db: Db) -> set[str]:
            found: set[str] = set()
            for some in _slices(sop_instance_uids):
                sql = (
                    "SELECT i.sop_instance_uid, p.id FROM instances i JOIN packages p"
                    " ON p.id = i.package WHERE p.origin = ? AND p.state IN ('open', 'closed')"
                    f" AND i.sop_instance_uid IN ({marks(some)})"
                )
                found.update(
                    uid
                    for uid, package in db.execute(sql, (me, *some))
                    if package in mine or package not in self._in_use
                )
            return found

        return await self._context.database.read(work)

    async def is_held(self, digest: bytes) -> bool:
        """Return whether an instance with that digest waits for a person."""
        sql = (
            "SELECT 1 FROM instances i JOIN packages p ON p.id = i.package"
            " WHERE p.state = 'held' AND i.digest = ?"
        )
        return await self._context.database.read(
            lambda db: db.execute(sql, (digest,)).fetchone() is not None
        )

    async def close_packages(self, rows: Iterable[int], operator: str) -> list[PackageId]:
        """Sign and close packages that are flushed; those without instances are removed.

        Durable once this returns: the envelopes first, then the rows.
        """
        closed = []
        for row in rows:
            package_id = await trio.to_thread.run_sync(self._close, row, operator)
            if package_id:
                closed.append(package_id)
        return closed

    def _close(self, row: int, operator: str, held: HeldInstance | None = None) -> PackageId | None:
        """Sign and close one package; None if it has no instances, or is closed already."""
        context = self._context
        state = "open" if held is None else "held"
        found = context.database.read_sync(
            lambda db: package_rows.find_packages(db, "id = ? AND state = ?", (row, state))
        )
        if not found:
            return None  # another import has closed it meanwhile
        package = found[0]
        count = context.database.read_sync(lambda db: _count_instances(db, row))
        if not count:
            context.database.write_sync(lambda db: db.execute(_REMOVE, (row,)))
            return None
        manifest = context.database.read_sync(
            lambda db: package_rows.get_manifest(db, package, time.time())
        )
        document = sign_manifest(manifest, context.signer)
        encoded = document.encode()
        context.envelopes.put(
            Envelope(
                package.package_id,
                package.origin,
                package.epoch,
                package.wrapped_key,
                encoded,
                b"",
            )
        )

        def work(db: Db) -> None:
            package_rows.close_package(db, row, state, encoded, document.digest())
            facts: dict[str, object] = {
                "package": str(package.package_id),
                "instances": len(manifest.instances),
                "bytes": manifest.plaintext_bytes,
            }
            audit_rows.append(db, "package.closed", facts, operator)
            if held is not None:
                findings.release(db, held)
                audit_rows.append(db, "held.released", {**facts, "held": held.id}, operator)

        context.database.write_sync(work)
        return package.package_id

    async def discard_packages(self, rows: Iterable[int]) -> None:
        """Forget open packages and their chunks: a cancelled import leaves nothing."""
        await trio.to_thread.run_sync(remove_packages, self._context, list(rows))

    async def forget_chunks(self, chunk_ids: Collection[ChunkId]) -> None:
        """Delete those chunks that nothing names: what was written and then given up."""
        await trio.to_thread.run_sync(delete_unnamed, self._context, list(chunk_ids))

    async def hold(self, row: int, examined: Examined, label: str) -> int:
        """Note why the one instance in a held package waits for a person; return its number."""

        def work(db: Db) -> int:
            doubt = Doubt(0, examined.verdict, tuple(examined.reasons))
            findings.add(db, row, [doubt], encodable(label))
            held_id = findings.held(db, "f.package = ?", (row,))[0].id
            audit_rows.append(db, "instance.held", {"held": held_id})
            return held_id

        return await self._context.database.write(work)

    async def list_held(self) -> list[HeldInstance]:
        """Return instances that wait for a person, oldest first."""
        return await self._context.database.read(findings.held)

    async def decide_held(self, held_id: int, *, release: bool, operator: str) -> PackageId | None:
        """Release a held instance, or discard it; return the package that it is in.

        An imported one becomes a package of its own. One that arrived is part of its sender's
        package, which stays whole: released, it is exported and sent on with it.

        Raises:
            NotFound: nothing is held under that number, or somebody decided meanwhile.
            Conflict: what arrived cannot be discarded alone.
        """
        async with self._deciding:
            found = await self._context.database.read(
                lambda db: findings.held(db, "f.id = ?", (held_id,))
            )
            if not found:
                raise NotFound(f"nothing is held under number {held_id}; see `emix held`")
            if found[0].received_from is not None:
                return await self._decide_arrived(found[0], release=release, operator=operator)
            package = found[0].package
            if release:
                close = partial(self._close, package, operator, found[0])
                return await trio.to_thread.run_sync(close)

            def work(db: Db) -> None:
                audit_rows.append(db, "held.discarded", {"held": held_id}, operator)

            await self._context.database.write(work)
            await self.discard_packages([package])
            return None

    async def _decide_arrived(
        self, found: HeldInstance, *, release: bool, operator: str
    ) -> PackageId:
        if not release:
            raise Conflict(
                f"number {found.id} is part of a package that was sent here, which stays whole;"
                " leave it held, or delete the study"
            )

        def work(db: Db) -> PackageId:
            package = package_rows.find_packages(db, "id = ?", (found.package,))[0]
            if findings.release(db, found):
                facts: dict[str, object] = {
                    "held": found.id,
                    "package": str(package.package_id),
                    "origin": str(package.origin),
                }
                audit_rows.append(db, "held.released", facts, operator)
            return package.package_id

        return await self._context.database.write(work)


_REMOVE = "DELETE FROM packages WHERE id = ?"


def _count_instances(db: Db, package: int) -> int:
    sql = "SELECT COUNT(*) FROM instances WHERE package = ?"
    return int(db.execute(sql, (package,)).fetchone()[0])


def _slices(values: Sequence[T]) -> Iterable[Sequence[T]]:
    for i in range(0, len(values), _SQL_VARIABLES):
        yield values[i : i + _SQL_VARIABLES]
