"""The store's side of import: open packages, known instances, held instances."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from node.crypto.keys import DataKey
from node.documents.manifest import sign_manifest
from node.documents.signed import Document
from node.domain.actors import Actor
from node.domain.display_text import encodable
from node.domain.held import HeldInstance
from node.domain.ids import ChunkId, FacilityId, PackageId
from node.domain.imports import UnfinishedImport
from node.domain.manifest import ChunkEntry
from node.domain.packages import Package, PackageState
from node.domain.patients import Patient
from node.domain.verdicts import Doubt, Examined
from node.domain.versions import Namesake
from node.errors import Conflict, NotFound, StoreError
from node.sql.database import Db
from node.store import audit_rows, findings, import_rows, package_rows, patients
from node.store.context import StoreContext, marks
from node.store.envelopes import Envelope
from node.store.lost import find_lost, is_whole
from node.store.mending import is_superfluous, mend_study
from node.store.package_writer import PackageWriter
from node.store.removal import delete_unnamed, remove_packages
from node.system import clock

T = TypeVar("T")

SEALING_THREADS = 3
_SQL_VARIABLES = 500


class ImportStore:
    """Packages of this facility, while they fill and when they close."""

    def __init__(self, context: StoreContext, *, is_small: bool = False) -> None:
        """Prepare; `is_small` has JPEG-LS used where it is smaller."""
        self._context = context
        self._is_small = is_small
        # Bounds plaintext in memory: that many chunks are being sealed at once.
        self._limiter = trio.CapacityLimiter(SEALING_THREADS)
        # Rows that some running import fills: two imports of one study at the same time
        # fill a package each. Read and changed in trio's thread only.
        self._in_use: set[int] = set()
        self._opening = trio.Lock()
        self._running: set[int] = set()  # imports, by their numbers
        self._beginning = trio.Lock()
        # A package is closed once: two decisions about one instance follow each other.
        self._deciding = trio.Lock()

    def use_compression(self, *, is_small: bool) -> None:
        """Have packages that are opened from now on use JPEG-LS, or not."""
        self._is_small = is_small

    # -- imports as people see them -------------------------------------------------------

    async def begin_import(self, sources: Sequence[str], actor: Actor, resumes: int = 0) -> int:
        """Note that an import begins; return its number. Durable once this returns.

        It goes on with an earlier one of the same sources that was not finished, or with the one
        that is named.

        Durable once this returns; cancelled, it was done whole or not at all.

        Raises:
            NotFound: none of that number waits to be resumed.
        """
        named = [encodable(source) for source in sources]
        async with self._beginning:
            number = await self._context.database.write(
                lambda db: import_rows.begin(
                    db, named, actor, resumes=resumes, running=self._running
                )
            )
            self._running.add(number)
        return number

    async def end_import(self, number: int, problem: str = "") -> None:
        """Note that an import has ended; with a problem, it can be resumed or discarded.

        Its open packages in which nothing was recorded are removed.
        """
        self.leave_import(number)
        if not problem:
            empty = await self._context.database.read(lambda db: import_rows.empty_rows(db, number))
            await self.discard_packages([row for row in empty if row not in self._in_use])
        await self._context.database.write(
            lambda db: import_rows.end(db, number, problem), in_need=True
        )

    def leave_import(self, number: int) -> None:
        """Let an import be resumed or discarded that was cut off."""
        self._running.discard(number)

    async def list_imports(self) -> list[tuple[UnfinishedImport, bool]]:
        """Return imports that run or were not finished, oldest first, and whether each runs."""
        found = await self._context.database.read(import_rows.unfinished)
        return [(one, one.id in self._running) for one in found]

    async def discard_import(self, number: int, actor: Actor) -> int:
        """Delete what an import kept that was not finished; return how many packages that were.

        Durable once this returns; cancelled, what is left of it is discarded with the next try.

        Raises:
            NotFound: there is none of that number, or it runs.
        """

        def work(db: Db) -> list[int]:
            import_rows.get(db, number, self._running)
            rows = list(import_rows.open_studies(db, number))
            facts: dict[str, object] = {"import": number, "packages": len(rows)}
            audit_rows.append(db, "import.discarded", facts, actor)
            return rows

        async with self._beginning:
            rows = await self._context.database.write(work, in_need=True)
            await self.discard_packages(rows)
            await self._context.database.write(
                lambda db: import_rows.end(db, number, ""), in_need=True
            )
        return len(rows)

    async def unfinished_of(self, study_uid: str, origin: FacilityId) -> list[int]:
        """Return the imports that brought a part of a study and are not finished."""
        return await self._context.database.read(
            lambda db: import_rows.of_study(db, study_uid, origin)
        )

    # -- packages -------------------------------------------------------------------------

    async def open_package(
        self,
        study_uid: str,
        nursery: trio.Nursery,
        *,
        import_id: int | None = None,
        state: PackageState = PackageState.OPEN,
        mine: Collection[int] = (),
    ) -> PackageWriter:
        """Return a writer for a package of the study: one among `mine`, or a new one.

        The package row is durable before this returns. Sealing runs in `nursery`.
        """
        context = self._context

        def find_mine(db: Db) -> list[Package]:
            where = "state = 'open' AND study_uid = ?"
            return [p for p in package_rows.find_packages(db, where, (study_uid,)) if p.id in mine]

        async with self._opening:
            found = await context.database.read(find_mine) if state == "open" and mine else []
            self._in_use.update(package.id for package in found[:1])
        if found:
            package, key = found[0], context.data_key(found[0])
        else:
            package, key = await context.database.write(
                lambda db: self._add(db, study_uid, state, import_id if state == "open" else None)
            )
        return self._writer(package, key, nursery)

    async def open_packages(
        self, study_uids: Sequence[str], nursery: trio.Nursery, *, import_id: int | None = None
    ) -> list[PackageWriter]:
        """Return writers for new packages of studies, in their order; else as `open_package`.

        One commit for all. Cancelled, there are none, or they are returned all the same.
        """
        opened = await self._context.database.write(
            lambda db: [self._add(db, uid, PackageState.OPEN, import_id) for uid in study_uids]
        )
        return [self._writer(package, key, nursery) for package, key in opened]

    def _add(
        self, db: Db, study_uid: str, state: PackageState, import_id: int | None
    ) -> tuple[Package, DataKey]:
        context, key = self._context, DataKey.new()
        epoch, wrapped = context.wrap(key, context.facility)
        row_id = package_rows.add_package(
            db,
            package_id=key.package_id,
            origin=context.facility,
            study_uid=study_uid,
            state=state,
            epoch=epoch,
            wrapped_key=wrapped,
            import_id=import_id,
        )
        self._in_use.add(row_id)  # before anybody else can see the row
        return package_rows.find_packages(db, "id = ?", (row_id,))[0], key

    def _writer(self, package: Package, key: DataKey, nursery: trio.Nursery) -> PackageWriter:
        context = self._context
        return PackageWriter(
            package=package.id,
            data_key=key,
            next_number=package.next_number,
            database=context.database,
            storage=context.storage,
            nursery=nursery,
            limiter=self._limiter,
            needs=package.needs,
            is_small=self._is_small,
        )

    @contextmanager
    def _released_on_failure(self, rows: Collection[int]) -> Iterator[None]:
        """Where the block fails or is cancelled, let the next import have rows."""
        try:
            yield
        except BaseException:
            self._in_use.difference_update(rows)
            raise

    async def _forget_unusable(self, rows: set[int]) -> None:
        """Forget those packages of a killed import that have lost chunks.

        They were never reported as imported, and the resuming import seals their instances anew.
        They are in use, so no other import uses them meanwhile. Forgotten ones are removed from
        `rows`.
        """
        for row in list(rows):
            if await trio.to_thread.run_sync(self._lost_of, row):
                await self.discard_packages([row])
                self._in_use.discard(row)
                rows.discard(row)

    def _lost_of(self, row: int) -> list[ChunkId]:
        chunks = self._context.database.read_sync(lambda db: package_rows.get_chunks(db, row))
        return find_lost(self._context, chunks, reads_them=True)

    def release_packages(self, rows: Iterable[int]) -> None:
        """Let the next import of their studies go on in packages that are still open."""
        self._in_use.difference_update(rows)

    async def adopt_packages(self, import_id: int) -> dict[int, str]:
        """Take over the packages that an import has left open; return their studies by row.

        Those of which not all is here any more are forgotten; see `find_known`.
        """
        async with self._opening:
            found = await self._context.database.read(
                lambda db: import_rows.open_studies(db, import_id)
            )
            taken = found.keys() - self._in_use
            self._in_use.update(taken)
        with self._released_on_failure(taken):
            await self._forget_unusable(taken)
        return {row: found[row] for row in taken}

    async def find_known(
        self, digests: Sequence[bytes], mine: Collection[int], import_id: int
    ) -> dict[bytes, int | None]:
        """Return those digests whose instances this facility has imported already.

        The value is the row of the open package that contains the instance, if this import left it
        open when it was cut off; the caller must close that package. It is None if the package is
        closed, held, or among `mine`. Instances that another import has recorded in an open package
        do not count as known: they may still be discarded. Instances in a lost chunk do not count
        either: the chunk's bytes are read and digested first.
        """

        def work(db: Db) -> list[_Found]:
            return [x for some in _slices(digests) for x in _find(db, self._context, some)]

        known: dict[bytes, int | None] = {}
        async with self._opening:
            found = await self._context.database.read(work)
            left = {
                x.package
                for x in found
                if x.state is PackageState.OPEN and x.import_id == import_id
            }
            taken = {row for row in left if row not in mine and row not in self._in_use}
            self._in_use.update(taken)
        closed = [x for x in found if x.state is not PackageState.OPEN]
        with self._released_on_failure(taken):
            await self._forget_unusable(taken)
            whole = await trio.to_thread.run_sync(self._whole, closed)
        for x in found:
            if x.package in taken:
                known.setdefault(x.digest, x.package)
        self._in_use.difference_update(taken.difference(filter(None, known.values())))
        known |= dict.fromkeys(
            x.digest for x in found if x.state is PackageState.OPEN and x.package in mine
        )
        return known | dict.fromkeys(whole)

    def _whole(self, found: Sequence["_Found"]) -> list[bytes]:
        """Return the digests of those that lie in chunks which are here, as they were."""
        entries = {c.chunk_id: c for x in found for c in x.chunks}
        lost = set(find_lost(self._context, list(entries.values()), reads_them=True))
        return [x.digest for x in found if not lost.intersection(c.chunk_id for c in x.chunks)]

    async def find_versions(
        self, sop_instance_uids: Sequence[str], mine: Collection[int]
    ) -> dict[str, set[Namesake]]:
        """Return what this facility has imported under SOP Instance UIDs.

        What another import has recorded and not closed does not count; see `find_known`.
        """
        me = self._context.facility.digest

        def work(db: Db) -> list[tuple[str, str, bytes, int, str]]:
            rows: list[tuple[str, str, bytes, int, str]] = []
            for some in _slices(sop_instance_uids):
                sql = (
                    "SELECT i.sop_instance_uid, i.series_uid, i.digest, p.id, p.state"
                    " FROM instances i JOIN packages p ON p.id = i.package"
                    " WHERE p.origin = ? AND p.state IN ('open', 'closed')"
                    f" AND i.sop_instance_uid IN ({marks(some)})"
                )
                rows += db.execute(sql, (me, *some))
            return rows

        found: dict[str, set[Namesake]] = {}
        for uid, series, digest, package, state in await self._context.database.read(work):
            if package in mine or state == "closed":
                found.setdefault(uid, set()).add(Namesake(series, digest, package in mine))
        return found

    async def find_patient(self, study_uid: str, import_id: int) -> Patient | None:
        """Return whom a study is of that this facility has imported before; None if it has not.

        What the same import recorded before it was cut off counts, too.
        """
        where = (
            "(p.state = 'closed' OR (p.state = 'open' AND p.import_id = ?))"
            " AND p.study_uid = ? AND p.origin = ?"
        )
        args = (import_id, study_uid, self._context.facility.digest)
        found = await self._context.database.read(lambda db: patients.of_packages(db, where, args))
        return found[0] if found else None

    async def is_held(self, digest: bytes) -> bool:
        """Return whether an instance with that digest waits for a person."""
        sql = (
            "SELECT 1 FROM instances i JOIN packages p ON p.id = i.package"
            " WHERE p.state = 'held' AND i.digest = ?"
        )
        return await self._context.database.read(
            lambda db: db.execute(sql, (digest,)).fetchone() is not None
        )

    async def close_packages(self, rows: Iterable[int], actor: Actor) -> dict[int, Package]:
        """Sign and close packages that are flushed; return them. One without anything in it goes.

        Durable once this returns: the envelopes first, then the rows, each as one batch.

        Raises:
            StoreError: something is wrong with one, which stays open; the others are closed.
        """
        return await trio.to_thread.run_sync(self._close_all, list(rows), actor)

    def _close_all(self, rows: Sequence[int], actor: Actor) -> dict[int, Package]:
        signed, problem = [], None
        for row in rows:
            try:
                signed += self._sign(row, PackageState.OPEN)
            except StoreError as exc:
                problem = problem or exc
        self._record_closed(signed, actor)
        if problem is not None:
            raise problem
        return {one.package.id: one.package for one in signed}

    def _release(self, held: HeldInstance, actor: Actor) -> PackageId | None:
        """Close the package of an instance that a person releases; None if it is gone."""
        signed = self._sign(held.package, PackageState.HELD)
        self._record_closed(signed, actor, held)
        return signed[0].package.package_id if signed else None

    def _sign(self, row: int, state: PackageState) -> "list[_Signed]":
        """Return a package with its manifest, signed; nothing if it is empty, or closed already."""
        context = self._context
        found = context.database.read_sync(
            lambda db: package_rows.find_packages(db, "id = ? AND state = ?", (row, state))
        )
        if not found:
            return []  # another import has closed it meanwhile
        package = found[0]
        count = context.database.read_sync(lambda db: _count_entries(db, row))
        if not count:
            context.database.write_sync(lambda db: db.execute(_REMOVE, (row,)))
            return []
        if not is_whole(context, row):
            raise StoreError("chunks of it were damaged on this disk; import the same files again")
        if state is PackageState.OPEN and self._has_mended(package):
            return []
        manifest = context.database.read_sync(
            lambda db: package_rows.get_manifest(db, package, clock.now())
        )
        document = sign_manifest(manifest, context.signer)
        return [_Signed(package, document, len(manifest.instances), manifest.plaintext_bytes)]

    def _record_closed(
        self, signed: "Sequence[_Signed]", actor: Actor, held: HeldInstance | None = None
    ) -> None:
        """Write envelopes, then make the packages visible."""
        if not signed:
            return
        self._context.envelopes.put_all([one.envelope for one in signed])

        def work(db: Db) -> None:
            for one in signed:
                package = one.package
                package_rows.close_package(
                    db, package.id, package.state, one.document.encode(), one.document.digest()
                )
                facts: dict[str, object] = {
                    "package": str(package.package_id),
                    "study": package.study_uid,
                    "origin": str(package.origin),
                    "instances": one.instances,
                    "bytes": one.plaintext_bytes,
                }
                audit_rows.append(db, "package.closed", facts, actor)
                if held is not None:
                    findings.release(db, held)
                    audit_rows.append(db, "held.released", {**facts, "held": held.id}, actor)

        self._context.database.write_sync(work)

    def _has_mended(self, package: Package) -> bool:
        """Mend the study's other packages; return whether that made this package superfluous.

        A superfluous package is removed: all its content is whole in other packages again.
        """
        context = self._context
        if not mend_study(context, package.study_uid):
            return False
        if not context.database.read_sync(lambda db: is_superfluous(db, package)):
            return False
        remove_packages(context, [package.id])
        return True

    async def discard_packages(self, rows: Iterable[int]) -> None:
        """Forget open packages and their chunks: a cancelled import leaves nothing."""
        await trio.to_thread.run_sync(remove_packages, self._context, list(rows))

    async def forget_chunks(self, chunk_ids: Collection[ChunkId]) -> None:
        """Delete those chunks that nothing names: what was written and then given up."""
        await trio.to_thread.run_sync(delete_unnamed, self._context, list(chunk_ids))

    async def hold(self, row: int, examined: Examined, label: str) -> int:
        """Note why the one instance in a held package waits for a person; return its number.

        Durable once this returns; cancelled, it was done whole or not at all.
        """

        def work(db: Db) -> int:
            doubt = Doubt(0, examined.verdict, tuple(examined.reasons))
            findings.add(db, row, [doubt], encodable(label))
            held_id = findings.held(db, "f.package = ?", (row,))[0].id
            study = package_rows.find_packages(db, "id = ?", (row,))[0].study_uid
            audit_rows.append(db, "instance.held", {"held": held_id, "study": study})
            return held_id

        return await self._context.database.write(work)

    async def list_held(self) -> list[HeldInstance]:
        """Return instances that wait for a person, oldest first."""
        return await self._context.database.read(findings.held)

    async def held_of(self, study_uid: str, origin: FacilityId) -> list[HeldInstance]:
        """Return what was imported of a study, and waits for a person outside of all packages."""
        return await self._context.database.read(
            lambda db: findings.held_imports(db, study_uid, origin)
        )

    async def decide_held(self, held_id: int, *, release: bool, actor: Actor) -> PackageId | None:
        """Release a held instance, or discard it; return the package that it is in.

        An imported instance becomes a package of its own. A received instance is part of its
        sender's package, which stays whole: after its release it is exported and sent on with it.

        Durable once this returns. If cancelled, the decision is applied whole or not at all; the
        audit entry of a discarded instance may precede its deletion.

        Raises:
            NotFound: nothing is held under that number, or it was decided about meanwhile.
            Conflict: a received instance cannot be discarded alone.
        """
        async with self._deciding:
            found = await self._context.database.read(
                lambda db: findings.held(db, "f.id = ?", (held_id,))
            )
            if not found:
                raise NotFound(f"no held instance has number {held_id}; see `emix held`")
            if found[0].received_from is not None:
                return await self._decide_arrived(found[0], release=release, actor=actor)
            package = found[0].package
            if release:
                return await trio.to_thread.run_sync(self._release, found[0], actor)

            def work(db: Db) -> None:
                facts: dict[str, object] = {"held": held_id, "study": found[0].study_uid}
                audit_rows.append(db, "held.discarded", facts, actor)

            await self._context.database.write(work, in_need=True)
            await self.discard_packages([package])
            return None

    async def _decide_arrived(
        self, found: HeldInstance, *, release: bool, actor: Actor
    ) -> PackageId:
        if not release:
            raise Conflict(
                f"number {found.id} belongs to a received package, which must stay whole; leave it"
                " held, or delete the study"
            )

        def work(db: Db) -> PackageId:
            package = package_rows.find_packages(db, "id = ?", (found.package,))[0]
            if findings.release(db, found):
                facts: dict[str, object] = {
                    "held": found.id,
                    "package": str(package.package_id),
                    "study": package.study_uid,
                    "origin": str(package.origin),
                }
                audit_rows.append(db, "held.released", facts, actor)
            return package.package_id

        return await self._context.database.write(work)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A package that is about to close, and its manifest as a signed document."""

    package: Package
    document: Document
    instances: int
    plaintext_bytes: int

    @property
    def envelope(self) -> Envelope:
        """Return what is kept beside its chunks."""
        package = self.package
        return Envelope(
            package.package_id,
            package.origin,
            package.epoch,
            package.wrapped_key,
            self.document.encode(),
            b"",
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """An instance that is recorded, and the chunks in which its bytes lie."""

    digest: bytes
    package: int
    state: PackageState
    import_id: int | None
    chunks: tuple[ChunkEntry, ...]


def _find(db: Db, context: StoreContext, digests: Sequence[bytes]) -> list[_Found]:
    sql = (
        "SELECT i.digest, p.id, p.state, p.import_id, i.extents FROM instances i"
        " JOIN packages p ON p.id = i.package WHERE p.origin = ?"
        " AND p.state IN ('open', 'closed', 'held')"
        f" AND i.digest IN ({marks(digests)})"
    )
    rows = db.execute(sql, (context.facility.digest, *digests)).fetchall()
    chunks: dict[tuple[int, int], ChunkEntry] = {}
    found = []
    for digest, package, state, import_id, kept in rows:
        places = [(package, e.chunk_index) for e in package_rows.unpack_extents(kept)]
        for place in places:
            if place not in chunks:
                chunks[place] = package_rows.get_chunk(db, *place)
        lie_in = tuple(chunks[place] for place in places)
        found.append(_Found(digest, package, PackageState(state), import_id, lie_in))
    return found


_REMOVE = "DELETE FROM packages WHERE id = ?"


def _count_entries(db: Db, package: int) -> int:
    """Return how many instances and attachments are recorded of a package."""
    sql = (
        "SELECT (SELECT COUNT(*) FROM instances WHERE package = ?1)"
        " + (SELECT COUNT(*) FROM attachments WHERE package = ?1)"
    )
    return int(db.execute(sql, (package,)).fetchone()[0])


def _slices(values: Sequence[T]) -> Iterable[Sequence[T]]:
    for i in range(0, len(values), _SQL_VARIABLES):
        yield values[i : i + _SQL_VARIABLES]
