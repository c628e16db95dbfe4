"""Export: a study's instances read out of their chunks, piece by piece, byte-exact."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from node.domain.actors import Actor
from node.domain.exports import Place, Report, Sink, attached_name, is_attached, zeroed_preamble
from node.domain.held import HeldInstance
from node.domain.ids import FacilityId
from node.domain.manifest import AttachmentEntry, InstanceEntry, Manifest, piece_lengths
from node.domain.packages import Package
from node.domain.versions import older_versions
from node.sql.database import Db
from node.store import audit_rows, findings, import_rows, package_rows
from node.store.context import StoreContext
from node.store.lost import lost_instances, noted_if_lost, whole_attachments
from node.store.opening import open_chunk
from node.store.studies import StudyStore

READING_THREADS = 4
MOST_NAMED = 100
"""So many held instances stand in one audit entry."""


@dataclass(eq=False)
class _ExportChunk:
    """One chunk to open and the pieces to write: path, offset there, offset here, length.

    `lengths` are those of what every chunk of the package holds.
    """

    package: Package
    manifest: Manifest
    lengths: list[list[int]]
    position: int
    pieces: list[tuple[str, int, int, int]]


@dataclass
class ExportPlan:
    """What an export writes.

    Attributes:
        origin: Whose packages.
        files: Their names and sizes.
        places: The location of each file in its package.
        manifests: The packages' manifests.
        pieces: For each package, the lengths of what each chunk holds.
        attachments: How many of the files are not DICOM.
        older_versions: How many instances are left out because a later version is written.
        unfinished_imports: Imports whose part of the study is left out.
        left_out: Held instances, which are not written.
        released: Held instances that are written because a person asked for them.
    """

    origin: FacilityId
    packages: Sequence[Package]
    files: list[tuple[str, int]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    manifests: Sequence[Manifest] = ()
    pieces: Sequence[list[list[int]]] = ()
    chunks: list[_ExportChunk] = field(default_factory=list)
    attachments: int = 0
    older_versions: int = 0
    unfinished_imports: list[int] = field(default_factory=list)
    left_out: list[HeldInstance] = field(default_factory=list)
    released: list[HeldInstance] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(size for _, size in self.files)


class Exporter:
    """Exports studies."""

    def __init__(self, context: StoreContext, studies: StudyStore) -> None:
        self._context = context
        self._studies = studies

    async def plan(
        self, study: str, origin: str, *, all_versions: bool, include_held: bool
    ) -> ExportPlan:
        """Decide what an export is to write.

        Args:
            study: How a person names it; see `choosing.choose_study`.
            origin: Whose packages; see `choose_origin`.
            all_versions: Every version of an instance instead of the latest.
            include_held: Also instances that wait for a person, imported or sent here.

        Raises:
            NotFound, Conflict: see `choosing.choose`.
        """
        packages = await self._studies.packages(study, origin)
        return await self._context.database.read(
            lambda db: _plan_export(
                db, packages, all_versions=all_versions, include_held=include_held
            )
        )

    async def export(
        self,
        plan: ExportPlan,
        sink: Sink,
        *,
        actor: Actor,
        destination: str,
        safe_preamble: bool,
        report: Report,
    ) -> None:
        """Give every byte of what was planned to a sink.

        The audit log has it before the first byte leaves: cut off, more is recorded than left.

        Args:
            plan: See `plan`.
            sink: Gets pieces in any order; several threads call it at once.
            actor: Who asked for it.
            destination: Where it goes, for the audit log.
            safe_preamble: Zero the 128 bytes of preamble.
            report: Called with the progress.

        Raises:
            StoreError: a chunk is damaged; what the sink raises passes through too.
        """
        await self.note_begun(plan, actor, destination)
        progress = [0, 0]
        limiter = trio.CapacityLimiter(READING_THREADS)

        async def write(job: _ExportChunk) -> None:
            try:
                done = await trio.to_thread.run_sync(self._write_chunk, job, sink, safe_preamble)
            finally:
                limiter.release_on_behalf_of(job)
            progress[0] += done[0]
            progress[1] += done[1]
            report(progress[0], len(plan.files), progress[1], plan.total_bytes)

        async with trio.open_nursery() as nursery:
            for job in plan.chunks:
                await limiter.acquire_on_behalf_of(job)
                nursery.start_soon(write, job)
        await self.note_ended(plan)

    async def note_begun(self, plan: ExportPlan, actor: Actor, destination: str) -> None:
        """Record an export, durably: before its first byte leaves."""
        facts: dict[str, object] = {
            "study": plan.packages[0].study_uid,
            "packages": [str(p.package_id) for p in plan.packages],
            "origin": str(plan.origin),
            "destination": destination,
        }
        if plan.released:
            facts["held"] = [found.id for found in plan.released[:MOST_NAMED]]
        await self._context.database.write(
            lambda db: audit_rows.append(db, "study.exported", facts, actor)
        )

    async def note_ended(self, plan: ExportPlan) -> None:
        """Note that the export is complete, so that retention may delete the packages.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        numbers = [package.id for package in plan.packages]
        await self._context.database.write(lambda db: package_rows.note_looked(db, numbers))

    def open_chunk(self, plan: ExportPlan, package: int, position: int) -> bytes:
        """Return the plaintext of a chunk of a planned package. Blocks.

        Raises:
            StoreError: it is lost or damaged, which is noted.
        """
        planned = plan.packages[package], plan.manifests[package], plan.pieces[package]
        return self._open(*planned, position)

    def _open(
        self, package: Package, manifest: Manifest, pieces: list[list[int]], position: int
    ) -> bytes:
        context, entry = self._context, manifest.chunks[position]
        keys = context.data_key(package).sealing_keys()
        with noted_if_lost(context, entry.chunk_id):
            sealed = context.storage.get(entry.chunk_id)
            return open_chunk(
                context.expander, keys, package.package_id, entry, pieces[position], sealed
            )

    def _write_chunk(self, job: "_ExportChunk", sink: Sink, safe_preamble: bool) -> tuple[int, int]:
        """Open one chunk and pass its pieces to the sink; return instances begun and bytes."""
        opened = self._open(job.package, job.manifest, job.lengths, job.position)
        plaintext = memoryview(opened)
        begun = written = 0
        for path, file_offset, chunk_offset, length in job.pieces:
            piece: bytes | memoryview = plaintext[chunk_offset : chunk_offset + length]
            if safe_preamble and not is_attached(path):
                piece = zeroed_preamble(file_offset, piece)
            sink(path, file_offset, piece)
            begun += file_offset == 0
            written += length
        return begun, written


def _plan_export(
    db: Db, packages: list[Package], *, all_versions: bool, include_held: bool
) -> ExportPlan:
    """Decide every file's name and which chunk writes which of its bytes."""
    waiting = findings.held_imports(db, packages[0].study_uid, packages[0].origin)
    if include_held:
        for found in waiting:
            packages += package_rows.find_packages(db, "id = ?", (found.package,))
    manifests = [package_rows.get_manifest(db, p, p.created_time) for p in packages]
    older = older_versions([manifest.instances for manifest in manifests])
    lengths = [_piece_lengths(manifest) for manifest in manifests]
    plan = ExportPlan(packages[0].origin, packages, manifests=manifests, pieces=lengths)
    names = _Names()
    done: set[bytes] = set()
    attached: set[tuple[bytes, str, tuple[str, ...]]] = set()
    # Of what is lost in one package another may have a copy.
    lost = {p.id: lost_instances(db, p.id) for p in packages}
    whole = {
        i.digest
        for package, manifest in zip(packages, manifests, strict=True)
        for i in manifest.instances
        if i.digest not in lost[package.id]
    }
    whole_of = {p.id: whole_attachments(db, p.id) for p in packages}
    whole_attached = frozenset[object]().union(*whole_of.values())
    held_digests: dict[bytes, HeldInstance] = {}
    for number, (package, manifest) in enumerate(zip(packages, manifests, strict=True)):
        held = {h.position: h for h in findings.held(db, "f.package = ?", (package.id,))}
        pieces: dict[int, list[tuple[str, int, int, int]]] = {}
        for position, instance in enumerate(manifest.instances):
            is_older = instance.digest in older
            if instance.digest in done or (is_older and not all_versions):
                continue
            if instance.digest in lost[package.id] and instance.digest in whole:
                continue
            if position in held:
                held_digests.setdefault(instance.digest, held[position])
                if not include_held:
                    continue
            done.add(instance.digest)
            path = names.of(instance, is_older=is_older)
            plan.files.append((path, instance.size_bytes))
            plan.places.append(Place(number, instance.extents))
            _add_pieces(pieces, path, instance)
        for attachment in manifest.attachments:
            what = attachment.content
            if what in attached:
                continue
            if what in whole_attached and what not in whole_of[package.id]:
                continue  # another package has it whole
            path = attached_name(len(attached) + 1, attachment.media_type)
            attached.add(what)
            plan.files.append((path, attachment.size_bytes))
            plan.places.append(Place(number, attachment.extents))
            _add_pieces(pieces, path, attachment)
        plan.chunks += [
            _ExportChunk(package, manifest, lengths[number], position, found)
            for position, found in sorted(pieces.items())
        ]
    plan.unfinished_imports = import_rows.of_study(db, packages[0].study_uid, plan.origin)
    plan.attachments = len(attached)
    plan.older_versions = 0 if all_versions else len(older)
    plan.left_out = [found for digest, found in held_digests.items() if digest not in done]
    plan.left_out += [] if include_held else waiting
    plan.released = [found for digest, found in held_digests.items() if digest in done]
    return plan


def _piece_lengths(manifest: Manifest) -> list[list[int]]:
    return piece_lengths((*manifest.instances, *manifest.attachments), len(manifest.chunks))


def _add_pieces(
    pieces: dict[int, list[tuple[str, int, int, int]]],
    path: str,
    entry: InstanceEntry | AttachmentEntry,
) -> None:
    offset = 0
    for extent in entry.extents:
        piece = (path, offset, extent.offset, extent.length)
        pieces.setdefault(extent.chunk_index, []).append(piece)
        offset += extent.length


class _Names:
    """Gives relative paths of ours: eight characters a part, as a DICOMDIR wants them."""

    def __init__(self) -> None:
        self._series: dict[str, int] = {}
        self._counts: dict[tuple[int, str], int] = {}

    def of(self, instance: InstanceEntry, *, is_older: bool) -> str:
        """Return the next path in an instance's series; an older version is named as one."""
        number = self._series.setdefault(instance.series_instance_uid, len(self._series) + 1)
        key = (number, "OV" if is_older else "IM")
        self._counts[key] = self._counts.get(key, 0) + 1
        return f"SE{number:06d}/{key[1]}{self._counts[key]:06d}"
