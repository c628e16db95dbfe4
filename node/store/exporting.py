"""Export: a study's instances out of their chunks, piece by piece, byte for byte as they came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from node.domain.manifest import InstanceEntry, Manifest
from node.domain.packages import Package
from node.sql.database import Db
from node.store import audit_rows, package_rows
from node.store.chunk_format import open_chunk
from node.store.context import StoreContext
from node.store.studies import StudyStore

READING_THREADS = 4

Sink = Callable[[str, int, bytes], None]
"""Takes a piece of a file: its name (ours, relative), where in it, the bytes. On worker threads."""

Tell = Callable[[int, int, int, int], None]
"""Called with instances begun and in all, bytes written and in all."""


class Exporter:
    """Exports studies."""

    def __init__(self, context: StoreContext, studies: StudyStore) -> None:
        self._context = context
        self._studies = studies

    async def export(
        self,
        prefix: str,
        sink: Sink,
        *,
        operator: str,
        safe_preamble: bool,
        all_versions: bool,
        tell: Tell,
    ) -> None:
        """Give every byte of a study's instances to a sink.

        The audit log has it before the first byte leaves: cut off, more is recorded than left.

        Args:
            prefix: Beginning of the Study Instance UID.
            sink: Gets pieces in any order; several threads call it at once.
            operator: Who asked for it.
            safe_preamble: Zero the 128 bytes of preamble.
            all_versions: Every version of an instance instead of the latest.
            tell: Told of progress.

        Raises:
            NotFound, Conflict: see `package_rows.expand_study`.
            StoreError: a chunk is damaged; what the sink raises passes through too.
        """
        packages = await self._studies.packages(prefix)
        facts: dict[str, object] = {"packages": [str(p.package_id) for p in packages]}
        await self._context.database.write(
            lambda db: audit_rows.append(db, "study.exported", facts, operator)
        )
        plan = await self._context.database.read(
            lambda db: _plan_export(db, packages, all_versions=all_versions)
        )
        total_bytes = sum(size for _, size in plan.files)
        progress = [0, 0]
        limiter = trio.CapacityLimiter(READING_THREADS)

        async def write(job: _ExportChunk) -> None:
            try:
                done = await trio.to_thread.run_sync(self._write_chunk, job, sink, safe_preamble)
            finally:
                limiter.release_on_behalf_of(job)
            progress[0] += done[0]
            progress[1] += done[1]
            tell(progress[0], len(plan.files), progress[1], total_bytes)

        async with trio.open_nursery() as nursery:
            for job in plan.chunks:
                await limiter.acquire_on_behalf_of(job)
                nursery.start_soon(write, job)

    def _write_chunk(self, job: "_ExportChunk", sink: Sink, safe_preamble: bool) -> tuple[int, int]:
        """Open one chunk and give its pieces away; return instances begun and bytes."""
        context = self._context
        keys = context.data_key(job.package).sealing_keys()
        entry = job.manifest.chunks[job.position]
        sealed = context.storage.get(entry.chunk_id)
        plaintext = memoryview(open_chunk(keys, job.package.package_id, entry, sealed))
        begun = written = 0
        for path, file_offset, chunk_offset, length in job.pieces:
            piece = bytes(plaintext[chunk_offset : chunk_offset + length])
            if safe_preamble and file_offset == 0:
                piece = bytes(128) + piece[128:]
            sink(path, file_offset, piece)
            begun += file_offset == 0
            written += length
        return begun, written


@dataclass(eq=False)
class _ExportChunk:
    """One chunk to open and the pieces to write: path, offset there, offset here, length."""

    package: Package
    manifest: Manifest
    position: int
    pieces: list[tuple[str, int, int, int]]


@dataclass
class _ExportPlan:
    files: list[tuple[str, int]]
    chunks: list[_ExportChunk]


def _plan_export(db: Db, packages: Sequence[Package], *, all_versions: bool) -> _ExportPlan:
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
        pieces: dict[int, list[tuple[str, int, int, int]]] = {}
        for instance in manifest.instances:
            newest = latest[manifest.origin.digest, instance.sop_instance_uid]
            key = (manifest.origin.digest, instance.digest)
            if key in done or (not all_versions and instance.digest != newest):
                continue
            done.add(key)
            path = _name(instance, series, counts)
            plan.files.append((path, instance.size_bytes))
            _add_pieces(pieces, path, instance)
        plan.chunks += [
            _ExportChunk(package, manifest, position, found)
            for position, found in sorted(pieces.items())
        ]
    return plan


def _add_pieces(
    pieces: dict[int, list[tuple[str, int, int, int]]], path: str, instance: InstanceEntry
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
