"""Protocols for import, checking and export: the store, the parsers, incoming files."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import BinaryIO, Protocol, TypeVar

import trio

from node.domain.actors import Actor
from node.domain.encoded import ChunkFindings, EncodedChunk, PieceFindings
from node.domain.exports import Place, Report, Sink
from node.domain.held import HeldInstance
from node.domain.ids import ChunkId, FacilityId, PackageId
from node.domain.packages import Package, PackageState
from node.domain.patients import Patient
from node.domain.pixels import Pixels
from node.domain.verdicts import Examined
from node.domain.versions import Namesake


class AuditTrail(Protocol):
    """The audit log, for use cases that have no transaction of their own."""

    async def append(self, kind: str, facts: dict[str, object], actor: Actor) -> None:
        """Record a fact, durably."""

    async def note_list(self, kind: str, facts: dict[str, object], actor: Actor) -> None:
        """Record that a list was shown; a repetition within minutes is not recorded."""


class LargeWriter(Protocol):
    """One instance that is larger than a window, on its way into a package."""

    async def add(self, window: bytes) -> None:
        """Add the next bytes."""

    async def finish(self, examined: Examined) -> bytes:
        """Complete it; return its digest."""

    def digest(self) -> bytes:
        """Return the digest of the bytes so far."""

    def drop(self) -> None:
        """Give it up."""


class Writer(Protocol):
    """An open package."""

    package_id: PackageId
    row_id: int
    plaintext_bytes: int
    sealed_bytes: int
    unrecorded_ids: set[ChunkId]

    @property
    def filling_bytes(self) -> int:
        """Plaintext that waits in memory."""

    async def add(self, examined: Examined, digest: bytes, content: bytes) -> None:
        """Add one whole instance."""

    def begin_large(self, pixels: Pixels | None) -> LargeWriter:
        """Begin an instance that comes in windows."""

    async def flush(self) -> None:
        """Make everything added durable."""


class ImportStore(Protocol):
    """What import needs of the store."""

    async def begin_import(self, sources: Sequence[str], actor: Actor, resumes: int = 0) -> int:
        """Note that an import begins, or goes on; return its number."""

    async def end_import(self, number: int, problem: str = "") -> None:
        """Note that an import has ended, and what kept it from being finished."""

    def leave_import(self, number: int) -> None:
        """Let an import be resumed or discarded that was cut off."""

    async def open_package(
        self,
        study_uid: str,
        nursery: trio.Nursery,
        *,
        import_id: int | None = None,
        state: PackageState = PackageState.OPEN,
        mine: Collection[int] = (),
    ) -> Writer:
        """Return the study's package among `mine`, or a new one."""

    async def open_packages(
        self, study_uids: Sequence[str], nursery: trio.Nursery, *, import_id: int | None = None
    ) -> Sequence[Writer]:
        """Return new packages of studies, in their order."""

    def release_packages(self, rows: Iterable[int]) -> None:
        """Let the next import of their studies go on in packages that are still open."""

    async def adopt_packages(self, import_id: int) -> dict[int, str]:
        """Take over what an import has left open; return the studies by row."""

    async def find_known(
        self, digests: Sequence[bytes], mine: Collection[int], import_id: int
    ) -> dict[bytes, int | None]:
        """Return those digests that are here, whole, with the open package to close."""

    async def find_versions(
        self, sop_instance_uids: Sequence[str], mine: Collection[int]
    ) -> dict[str, set[Namesake]]:
        """Return what was imported under each of the SOP Instance UIDs."""

    async def find_patient(self, study_uid: str, import_id: int) -> Patient | None:
        """Return the patient of a study as imported before; None if it was not imported."""

    async def is_held(self, digest: bytes) -> bool:
        """Return whether an instance with that digest waits for a person."""

    async def close_packages(self, rows: Iterable[int], actor: Actor) -> dict[int, Package]:
        """Sign and close flushed packages, by row; durable once this returns."""

    async def discard_packages(self, rows: Iterable[int]) -> None:
        """Forget open packages and their chunks."""

    async def forget_chunks(self, chunk_ids: Collection[ChunkId]) -> None:
        """Delete those chunks that nothing names."""

    async def hold(self, row: int, examined: Examined, label: str) -> int:
        """Note why a held package waits for a person."""


class ExportPlan(Protocol):
    """The contents of an export."""

    @property
    def places(self) -> Sequence[Place]:
        """Where each file lies, in the order in which they go."""

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        """Their names and sizes."""

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""

    @property
    def origin(self) -> FacilityId:
        """The origin of the exported packages."""

    @property
    def attachments(self) -> int:
        """How many of the files are not DICOM."""

    @property
    def older_versions(self) -> int:
        """How many instances are left out, since a later version is given away."""

    @property
    def unfinished_imports(self) -> Sequence[int]:
        """Unfinished imports of the study; their instances are left out."""

    @property
    def left_out(self) -> Sequence[HeldInstance]:
        """Held instances, which are left out."""


P = TypeVar("P", bound=ExportPlan)


class ExportStore(Protocol[P]):
    """What export needs of the store."""

    async def plan(self, study: str, origin: str, *, all_versions: bool, include_held: bool) -> P:
        """Decide what an export contains."""

    async def export(
        self,
        plan: P,
        sink: Sink,
        *,
        actor: Actor,
        destination: str,
        safe_preamble: bool,
        report: Report,
    ) -> None:
        """Write every planned byte to a sink, in any order."""

    async def note_begun(self, plan: P, actor: Actor, destination: str) -> None:
        """Record an export, durably: before its first byte leaves."""

    async def note_ended(self, plan: P) -> None:
        """Note that the planned export has completed."""

    def open_chunk(self, plan: P, package: int, position: int) -> bytes:
        """Return a chunk's plaintext. Blocks."""


class Slab(Protocol):
    """Memory that the parsers see."""

    @property
    def offset(self) -> int:
        """Where it begins in that memory."""

    @property
    def source(self) -> str:
        """The source of its bytes: a peer, or empty for this node; see `Arena.slab`."""

    def write(self, start: int, data: bytes) -> None:
        """Copy bytes into it."""


class LargeExamination(Protocol):
    """The examination of one file in windows."""

    async def feed(self, window: bytes, *, is_last: bool) -> Examined:
        """Give the next bytes; the verdict stands with the last, a refusal at once."""


class SpanningExamination(Protocol):
    """The examination of one file that spans chunks."""

    async def feed(
        self, chunk: EncodedChunk, pieces: Sequence[int], piece: int, *, is_last: bool
    ) -> PieceFindings:
        """Give the next bytes as a piece of a chunk. Raises `ChunkDamaged`."""


class Arena(Protocol):
    """Lends slabs."""

    def slab(self, source: str = "") -> AbstractAsyncContextManager[Slab]:
        """Lend one for the time of the block to a peer; to this node's own work, if empty."""


class Examiner(Protocol):
    """Examines files."""

    @property
    def arena(self) -> Arena:
        """Where files are put to be examined."""

    async def examine_files(self, slab: Slab, extents: Sequence[tuple[int, int]]) -> list[Examined]:
        """Examine whole files that lie in a slab."""

    async def examine_chunk(
        self, chunk: EncodedChunk, pieces: Sequence[int], files: Sequence[int], source: str = ""
    ) -> ChunkFindings:
        """Digest the pieces of a chunk and examine those that are files. Raises `ChunkDamaged`."""

    def large(self, size: int, source: str = "") -> AbstractAsyncContextManager[LargeExamination]:
        """Examine one file in windows, from the same source as a slab's."""

    def spanning(
        self, size: int, source: str = "", *, is_dicom: bool = True
    ) -> AbstractAsyncContextManager[SpanningExamination]:
        """Examine one file chunk by chunk; one that is not DICOM is only digested."""


class ArchivedFile(Protocol):
    """A file in an archive; its bytes are extracted as they are read."""

    @property
    def label(self) -> str:
        """How the person who imports would call it."""

    @property
    def size_bytes(self) -> int:
        """Its size, as the archive says; 0 where it does not."""

    @property
    def problem(self) -> str:
        """Why it cannot be looked at; empty when it can."""

    def read(self) -> bytes:
        """Return its next bytes, none at the end; blocks. Raises `DicomError` if it is damaged."""


class IncomingFile(Protocol):
    """A file to import, on this node's disk or streamed by the client."""

    @property
    def is_archive(self) -> bool:
        """Whether it is an archive; `members` reads the files in it."""

    def members(self) -> AbstractContextManager[Iterator[ArchivedFile]]:
        """Read an archive's files one after the other; blocks. Raises `DicomError`."""

    @property
    def label(self) -> str:
        """How the person who imports would call it."""

    @property
    def size_bytes(self) -> int:
        """Its size, as far as it is known."""

    def open(self) -> BinaryIO:
        """Open it; raises `DicomError` with the reason if that cannot be."""
