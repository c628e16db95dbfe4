"""Studies as people see them: listed, searched, read, deleted."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from node.domain.ids import FacilityId
from node.domain.manifest import InstanceEntry, Manifest, StudyInstanceUID
from node.domain.packages import Package
from node.errors import Conflict, NotFound, StoreError
from node.sql.database import Db
from node.store import audit_rows, package_rows
from node.store.chunk_format import open_chunk
from node.store.context import StoreContext
from node.store.removal import remove_packages

READING_THREADS = 4


@dataclass
class StudySource:
    """One study as one origin facility sealed it, with all its packages here."""

    study_uid: StudyInstanceUID
    origin: FacilityId
    index: dict[str, str] = field(default_factory=dict)
    packages: list[dict[str, object]] = field(default_factory=list)
    sent_to: list[bytes] = field(default_factory=list)
    series: int = 0
    instances: int = 0
    versioned_instances: int = 0
    plaintext_bytes: int = 0
    sealed_bytes: int = 0
    newest_time: float = 0.0


class StudyStore:
    """Closed packages, grouped by study and origin."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def search(
        self, query: str = "", *, arrived_only: bool = False, limit: int = 0
    ) -> list[StudySource]:
        """Return studies in whose searchable values every word of `query` occurs, newest first."""

        def work(db: Db) -> list[StudySource]:
            where, args = ["p.state = 'closed'"], list[object]()
            for word in query.casefold().split():
                where.append("(s.search LIKE ? ESCAPE '\\' OR p.study_uid LIKE ? ESCAPE '\\')")
                escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
                args += [f"%{escaped}%", f"{escaped}%"]
            if arrived_only:
                where.append("p.received_from IS NOT NULL")
            rows = db.execute(
                "SELECT p.study_uid, p.origin, MAX(p.created_time) AS newest FROM packages p"
                f" LEFT JOIN study_index s ON s.package = p.id WHERE {' AND '.join(where)}"
                " GROUP BY p.study_uid, p.origin ORDER BY newest DESC LIMIT ?",
                [*args, limit or -1],
            ).fetchall()
            return [_source(db, row[0], FacilityId(row[1])) for row in rows]

        return await self._context.database.read(work)

    async def get(self, prefix: str) -> list[StudySource]:
        """Return the study whose UID begins so, once per origin.

        Raises:
            NotFound, Conflict: see `package_rows.expand_study`.
        """

        def work(db: Db) -> list[StudySource]:
            uid = package_rows.expand_study(db, prefix)
            rows = db.execute(
                "SELECT DISTINCT origin FROM packages WHERE state = 'closed' AND study_uid = ?",
                (uid,),
            ).fetchall()
            return [_source(db, uid, FacilityId(row[0])) for row in rows]

        return await self._context.database.read(work)

    async def packages(self, prefix: str) -> list[Package]:
        """Return the closed packages of the study whose UID begins so, oldest first."""

        def work(db: Db) -> list[Package]:
            uid = package_rows.expand_study(db, prefix)
            return package_rows.find_packages(db, "state = 'closed' AND study_uid = ?", (uid,))

        return await self._context.database.read(work)

    async def delete(self, prefix: str, origin: str, operator: str) -> tuple[int, int]:
        """Delete a study here; return how many packages and instances that were.

        Raises:
            NotFound: no such study, or none from that origin.
            Conflict: it came from several facilities and none is named, or it is being sent.
        """
        packages = await self.packages(prefix)
        origins = {p.origin for p in packages}
        chosen = {o for o in origins if not origin or str(o).startswith(origin.upper())}
        if not chosen:
            raise NotFound("the study has no packages from that facility")
        if len(chosen) > 1:
            names = ", ".join(sorted(o.short() for o in chosen))
            raise Conflict(f"the study came from several facilities ({names}); name one")
        rows = [p for p in packages if p.origin in chosen]

        def work(db: Db) -> int:
            instances = 0
            for package in rows:
                busy = db.execute(
                    "SELECT 1 FROM transfers WHERE origin = ? AND package_id = ? AND direction ="
                    " 'send' AND state NOT IN ('delivered', 'declined', 'cancelled', 'failed')",
                    (package.origin.digest, package.package_id.digest),
                ).fetchone()
                if busy:
                    raise Conflict("the study is being sent; cancel its transfers first")
                instances += len(package_rows.get_instances(db, package.id))
                db.execute("UPDATE packages SET state = 'deleting' WHERE id = ?", (package.id,))
                facts: dict[str, object] = {"package": str(package.package_id)}
                audit_rows.append(db, "package.deleted", facts, operator)
            return instances

        instances = await self._context.database.write(work)
        await trio.to_thread.run_sync(remove_packages, self._context, [])
        return len(rows), instances

    async def export(
        self,
        prefix: str,
        directory: Path,
        *,
        safe_preamble: bool,
        all_versions: bool,
        tell: Callable[[int, int, int, int], None],
    ) -> list[Path]:
        """Write a study's instances below a directory under names of ours.

        Args:
            prefix: Beginning of the Study Instance UID.
            directory: Made if it is not there; files in it are never overwritten.
            safe_preamble: Zero the 128 bytes of preamble.
            all_versions: Every version of an instance instead of the latest.
            tell: Called with instances done and in all, bytes done and in all.

        Raises:
            StoreError: a chunk is damaged or a file cannot be written; what was written
                before stays.
        """
        packages = await self.packages(prefix)
        plan = await self._context.database.read(
            lambda db: _plan_export(db, packages, directory, all_versions=all_versions)
        )
        total_bytes = sum(size for _, size in plan.files)
        progress = [0, 0]
        await trio.to_thread.run_sync(_make_folders, directory, [path for path, _ in plan.files])
        limiter = trio.CapacityLimiter(READING_THREADS)

        async def write(job: _ExportChunk) -> None:
            try:
                done = await trio.to_thread.run_sync(self._write_chunk, job, safe_preamble)
            finally:
                limiter.release_on_behalf_of(job)
            progress[0] += done[0]
            progress[1] += done[1]
            tell(progress[0], len(plan.files), progress[1], total_bytes)

        async with trio.open_nursery() as nursery:
            for job in plan.chunks:
                await limiter.acquire_on_behalf_of(job)
                nursery.start_soon(write, job)
        return [path for path, _ in plan.files]

    def _write_chunk(self, job: "_ExportChunk", safe_preamble: bool) -> tuple[int, int]:
        """Open one chunk and write its pieces; return instances begun and bytes written."""
        context = self._context
        keys = context.data_key(job.package).sealing_keys()
        manifest_chunk = job.manifest.chunks[job.position]
        sealed = context.storage.get(manifest_chunk.chunk_id)
        plaintext = memoryview(open_chunk(keys, job.package.package_id, manifest_chunk, sealed))
        begun = written = 0
        for path, file_offset, chunk_offset, length in job.pieces:
            piece = bytes(plaintext[chunk_offset : chunk_offset + length])
            if safe_preamble and file_offset == 0:
                piece = bytes(128) + piece[128:]
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    _write_all(fd, piece, file_offset)
                finally:
                    os.close(fd)
            except OSError as exc:
                reason = os.strerror(exc.errno or 0)
                raise StoreError(f"{path} cannot be written ({reason})") from exc
            begun += file_offset == 0
            written += length
        return begun, written


def _write_all(fd: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(fd, view, offset)  # a nearly full disk takes a part and says nothing
        view, offset = view[written:], offset + written


@dataclass(eq=False)
class _ExportChunk:
    """One chunk to open and the pieces to write: path, offset there, offset here, length."""

    package: Package
    manifest: Manifest
    position: int
    pieces: list[tuple[Path, int, int, int]]


@dataclass
class _ExportPlan:
    files: list[tuple[Path, int]]
    chunks: list[_ExportChunk]


def _plan_export(
    db: Db, packages: Sequence[Package], directory: Path, *, all_versions: bool
) -> _ExportPlan:
    """Decide every file's name and which chunk writes which of its bytes."""
    manifests = [package_rows.get_manifest(db, p, p.created_time) for p in packages]
    latest: dict[tuple[bytes, str], bytes] = {}
    for manifest in manifests:
        for instance in manifest.instances:
            latest[manifest.origin.digest, instance.sop_instance_uid] = instance.digest
    plan = _ExportPlan([], [])
    series: dict[str, int] = {}
    counts: dict[int, int] = {}
    done: set[tuple[bytes, bytes]] = set()
    for package, manifest in zip(packages, manifests, strict=True):
        pieces: dict[int, list[tuple[Path, int, int, int]]] = {}
        for instance in manifest.instances:
            newest = latest[manifest.origin.digest, instance.sop_instance_uid]
            key = (manifest.origin.digest, instance.digest)
            if key in done or (not all_versions and instance.digest != newest):
                continue
            done.add(key)
            path = directory / _name(instance, series, counts)
            plan.files.append((path, instance.size_bytes))
            _add_pieces(pieces, path, instance)
        plan.chunks += [
            _ExportChunk(package, manifest, position, found)
            for position, found in sorted(pieces.items())
        ]
    return plan


def _add_pieces(
    pieces: dict[int, list[tuple[Path, int, int, int]]], path: Path, instance: InstanceEntry
) -> None:
    offset = 0
    for extent in instance.extents:
        piece = (path, offset, extent.offset, extent.length)
        pieces.setdefault(extent.chunk_index, []).append(piece)
        offset += extent.length


def _name(instance: InstanceEntry, series: dict[str, int], counts: dict[int, int]) -> str:
    """Return a relative path of ours: eight characters a part, as DICOMDIR wants them."""
    number = series.setdefault(instance.series_instance_uid, len(series) + 1)
    counts[number] = counts.get(number, 0) + 1
    return f"SE{number:06d}/IM{counts[number]:06d}"


def _make_folders(directory: Path, files: Sequence[Path]) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise Conflict(f"{directory} is not empty; export into a new folder")
        for folder in {path.parent for path in files}:
            folder.mkdir(mode=0o700)
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
        raise StoreError(f"{directory} cannot be made or written ({reason})") from exc


# The first transfer that brought a package here whole.
_BROUGHT_BY = (
    "SELECT MIN(b.id) FROM transfers b WHERE b.direction = 'receive' AND b.state = 'delivered'"
    " AND b.origin = p.origin AND b.package_id = p.package_id"
)


def _source(db: Db, study_uid: str, origin: FacilityId) -> StudySource:
    source = StudySource(StudyInstanceUID(study_uid), origin)
    args = (study_uid, origin.digest)
    inside = "p.state = 'closed' AND p.study_uid = ? AND p.origin = ?"
    for row in db.query(
        "SELECT p.id, p.package_id, p.created_time, p.received_from, s.*,"
        " t.recipient, t.note, t.received_time,"
        " (SELECT COUNT(*) FROM instances WHERE package = p.id) AS instances,"
        " (SELECT SUM(size_bytes) FROM instances WHERE package = p.id) AS plaintext_bytes,"
        " (SELECT SUM(sealed_bytes) FROM chunks WHERE package = p.id) AS sealed_bytes"
        f" FROM packages p LEFT JOIN study_index s ON s.package = p.id"
        f" LEFT JOIN transfers t ON t.id = ({_BROUGHT_BY}) WHERE {inside} ORDER BY p.id",
        args,
    ):
        source.packages.append(row)
        source.plaintext_bytes += row["plaintext_bytes"]
        source.sealed_bytes += row["sealed_bytes"]
        source.newest_time = max(source.newest_time, row["created_time"])
        for name in ("patient_name", "patient_id", "study_date", "study_description"):
            source.index[name] = source.index.get(name) or row[name] or ""
        words = {*source.index.get("modalities", "").split(), *(row["modalities"] or "").split()}
        source.index["modalities"] = " ".join(sorted(words))
    counts = db.execute(
        "SELECT COUNT(DISTINCT i.series_uid), COUNT(DISTINCT i.sop_instance_uid),"
        " COUNT(DISTINCT i.digest) FROM instances i JOIN packages p ON p.id = i.package"
        f" WHERE {inside}",
        args,
    ).fetchone()
    source.series, source.instances = counts[0], counts[1]
    source.versioned_instances = counts[2] - counts[1]
    source.sent_to = [
        row[0]
        for row in db.execute(
            "SELECT DISTINCT peer FROM transfers WHERE direction = 'send' AND state ="
            " 'delivered' AND study_uid = ? AND origin = ?",
            args,
        )
    ]
    return source
