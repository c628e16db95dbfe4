"""Import: every file is looked at, and each gets a verdict.

How this works. A scanner lists the files in batches that fit a slab of shared memory. A few
lanes take batches: one reads the files and digests them on a worker thread, has a parser
process examine them, and adds what is carried to the open package of its study. Packing,
sealing and recording go on behind `add`. So reading, parsing and sealing overlap, and memory
is bounded by the lanes, the slabs and the sealing threads.

At the end all packages are flushed, signed and closed. A job that is cancelled by a person discards
those that it made, and one that finds the disk full all of them; one that is killed leaves them
open, and the next import of the same sources goes on in them: what is recorded there is known by
its digest and not done again. An import of something else never closes them: then half a study
would look whole.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import structlog
import trio

from node.domain.actors import Actor
from node.domain.packages import PackageState
from node.domain.patients import Patient, is_another, patient_of
from node.domain.verdicts import Examined, Verdict
from node.domain.versions import Namesake, doubt_about
from node.errors import DicomError, NodeError, StoreFull, first_of_ours
from node.exchange.ingest.media_directories import MediaDirectories, is_called_dicom
from node.exchange.ingest.reading import (
    WINDOW_BYTES,
    Batch,
    FileInMemory,
    ReadFile,
    ReadMember,
    batches,
    digest_file,
    lay_out,
    open_members,
    read_files,
    read_windows,
    rest_of,
)
from node.exchange.ports import (
    Examiner,
    ImportStore,
    IncomingFile,
    LargeExamination,
    LargeWriter,
    Writer,
)

log = structlog.get_logger()
_DISCARD_SECONDS = 60.0  # what is left then stays in open packages
LANES = 3
_FILLING_BYTES = 64 * 2**20
_COUNTED_BYTES = 8 * 2**20  # what is added between two looks at how much waits
_BEGINNING_BYTES = 64 * 2**20
_ARCHIVE_BATCHES = 2
_NAMED_AT_ONCE = 1000
_TOLD_MISSING_BYTES = 16 * 2**20  # of labels; whoever is told keeps them
_TOO_MUCH_TO_COMPARE = (
    "too much is on it, or named by it: which of these files are missing cannot be told"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that was not simply carried."""

    label: str
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass
class Summary:
    """What an import did."""

    carried: int = 0
    flagged: int = 0
    known: int = 0
    held: int = 0
    refused: int = 0
    directories: int = 0
    not_dicom: int = 0
    missing: int = 0
    plaintext_bytes: int = 0
    sealed_bytes: int = 0
    study_instance_uids: list[str] = field(default_factory=list)


Tell = Callable[[Progress | Finding], None]


class ImportJob:
    """One import. Run it once."""

    def __init__(
        self,
        store: ImportStore,
        examiner: Examiner,
        tell: Tell,
        actor: Actor,
        *,
        sources: Sequence[str] = (),
        resumes: int = 0,
        wait_room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Prepare.

        Args:
            store: Where instances go.
            examiner: Examines files.
            tell: Takes what there is to tell.
            actor: Who asked.
            sources: What the person named: an import that was cut off goes on with the same.
            resumes: The number of the import that is to go on, if the person named it.
            wait_room: Returns once whoever is told can take more; asked before each batch.
        """
        self._store = store
        self._examiner = examiner
        self._tell = tell
        self._wait_room = wait_room
        self._actor = actor
        self._sources = sources
        self._resumes = resumes
        self._number = 0
        self._summary = Summary()
        self._progress = Progress(0, 0, 0, 0)
        self._writers: dict[str, Writer] = {}
        self._held: list[Writer] = []
        self._adopted: set[int] = set()
        self._known_studies: dict[str, None] = {}
        self._added = 0
        self._is_given_up = False
        self._opening = trio.Lock()
        self._seen: set[bytes] = set()
        self._seen_instances: set[str] = set()
        self._media = MediaDirectories()
        self._patients: dict[str, Patient] = {}  # whom a study is of, by its UID

    async def run(self, files: Iterator[IncomingFile]) -> Summary:
        """Import files that can be opened on this machine.

        Durable once this returns. On an error or when the node stops, what was recorded
        stays in open packages for the next import, unless it was given up.
        """
        async with self._releasing():
            return await self._run(files)

    def give_up(self) -> None:
        """Have no package kept that this job made; its task is to be cancelled then.

        Those that it goes on with stay open, as they were last flushed.
        """
        self._is_given_up = True

    @asynccontextmanager
    async def _releasing(self) -> AsyncGenerator[None]:
        """Whatever happens, leave open packages to the next import, or discard them."""
        self._number = await self._store.begin_import(self._sources, self._actor, self._resumes)
        error: BaseException | None = None
        try:
            yield
        except BaseException as exc:
            error = exc
            raise
        finally:
            with trio.move_on_after(_DISCARD_SECONDS, shield=True):
                await self._settle(error)
            held = (writer.row_id for writer in self._held)
            self._store.release_packages([*self._mine, *held])
            self._store.leave_import(self._number)

    async def _settle(self, error: BaseException | None) -> None:
        """Note how it ended, and give back the room that nothing needs any more."""
        problem = first_of_ours(error) if error is not None else None
        try:
            if isinstance(problem, StoreFull):
                # Or the disk would stay full of what is of no use to anybody.
                await self._discard(self._mine)
            elif self._is_given_up:
                await self._discard(self._mine - self._adopted)
            elif problem is not None:
                await self._forget_chunks()
            is_ended = error is None or self._is_given_up
            if is_ended or problem is not None:
                await self._store.end_import(self._number, "" if is_ended else str(problem))
        except NodeError as exc:
            # The error that ended the import says more, and the next start tidies up.
            log.info("an import was not tidied up", code=exc.code.value)

    async def _run(self, files: Iterator[IncomingFile]) -> Summary:
        async with trio.open_nursery() as sealing:
            send, receive = trio.open_memory_channel[list[IncomingFile]](1000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._scan, files, send)
                for _ in range(LANES):
                    nursery.start_soon(self._lane, receive.clone(), sealing)
                receive.close()
            for writer in self._writers.values():
                await writer.flush()
        return await self._close()

    async def run_streamed(
        self, files: AsyncIterator[tuple[str, int, AsyncIterator[bytes]]]
    ) -> Summary:
        """Import files whose bytes the caller streams, one after the other."""
        async with self._releasing():
            async with trio.open_nursery() as sealing:
                async for label, size, windows in files:
                    await self._wait_room()
                    self._media.see(label)
                    self._count_found(1, size)
                    await self._take_windows(label, size, windows, sealing)
                for writer in self._writers.values():
                    await writer.flush()
            return await self._close()

    async def _discard(self, rows: Collection[int]) -> None:
        """Forget packages, and everything else that this job recorded and did not close."""
        held = [writer.row_id for writer in self._held]
        await self._store.discard_packages([*rows, *held])
        await self._forget_chunks()

    async def _forget_chunks(self) -> None:
        for writer in (*self._writers.values(), *self._held):
            await self._store.forget_chunks(writer.unrecorded_ids)

    async def _close(self) -> Summary:
        writers = {uid: w for uid, w in self._writers.items() if w.plaintext_bytes}
        for writer in writers.values():
            self._summary.plaintext_bytes += writer.plaintext_bytes
            self._summary.sealed_bytes += writer.sealed_bytes
        self._summary.study_instance_uids = list(dict.fromkeys([*writers, *self._known_studies]))
        await self._store.close_packages(sorted(self._mine), self._actor)
        await self._forget_chunks()
        await self._tell_of_media()
        return self._summary

    async def _tell_of_media(self) -> None:
        """Tell what DICOMDIRs name in vain, and what is no DICOM, named by one or not."""
        for label, is_named in self._media.others():
            await self._wait_room()
            self._set_aside(label, is_named=is_named)
        if self._media.first and not self._media.is_whole:
            self._refuse(self._media.first, (_TOO_MUCH_TO_COMPARE,))
        left = _TOLD_MISSING_BYTES
        for label in self._media.missing():
            await self._wait_room()
            await trio.lowlevel.checkpoint()
            self._summary.missing += 1
            left -= len(label)
            if left >= 0:
                self._tell(Finding(label, Verdict.MISSING, ("named by a DICOMDIR, and not there",)))

    # -- finding and reading --------------------------------------------------------------

    async def _scan(
        self,
        files: Iterator[IncomingFile],
        send: trio.MemorySendChannel[list[IncomingFile]],
    ) -> None:
        async with send:
            found = batches(files)
            # What it finds may be long in coming: from a scratched disc, and from what reads it.
            while batch := await trio.to_thread.run_sync(next, found, None, abandon_on_cancel=True):
                self._count_found(len(batch), sum(file.size_bytes for file in batch))
                for file in batch:
                    self._media.see(file.label)
                await send.send(batch)

    async def _lane(
        self,
        receive: trio.MemoryReceiveChannel[list[IncomingFile]],
        sealing: trio.Nursery,
    ) -> None:
        async with receive:
            async for batch in receive:
                await self._wait_room()
                if batch[0].is_archive:
                    await self._take_archive(batch[0], sealing)
                elif len(batch) == 1 and batch[0].size_bytes > WINDOW_BYTES:
                    await self._take_large(batch[0], sealing)
                else:
                    await self._take_batch(batch, sealing)

    async def _take_archive(self, archive: IncomingFile, sealing: trio.Nursery) -> None:
        """Take the files in an archive as they come out of it; what is damaged costs itself only.

        Small ones are gathered to batches, of which a few are examined while others come.
        """
        places = trio.Semaphore(_ARCHIVE_BATCHES)

        async def take(batch: list[IncomingFile]) -> None:
            try:
                await self._take_batch(batch, sealing)
            finally:
                places.release()

        async def hand_on() -> None:
            if gathered.files:
                await places.acquire()
                nursery.start_soon(take, gathered.files)

        gathered = Batch()
        async with trio.open_nursery() as nursery:
            try:
                async with open_members(archive) as read:
                    while member := await read():
                        await self._wait_room()
                        small = await self._take_member(member, sealing)
                        if small is None:
                            continue
                        if not gathered.has_room(small):
                            await hand_on()
                            gathered = Batch()
                        gathered.add(small)
            except DicomError as exc:
                self._refuse(archive.label, (str(exc),))
            await hand_on()
        self._count_done(archive.size_bytes)

    async def _take_member(self, member: ReadMember, sealing: trio.Nursery) -> IncomingFile | None:
        """Take a file in an archive; return one that is small, to be taken with others."""
        label, size = member.file.label, len(member.content)
        if not member.is_whole and not member.problem:
            # Not what is said of one that is small or not read: that may be anything.
            size = max(size, member.file.size_bytes)
        self._count_found(1, size)
        self._media.see(label)
        if member.problem:
            self._refuse(label, (member.problem,))
            self._count_done(size)
        elif member.is_whole:
            return FileInMemory(label, member.content)
        else:
            await self._take_windows(label, size, rest_of(member), sealing)
        return None

    async def _take_batch(self, batch: list[IncomingFile], sealing: trio.Nursery) -> None:
        read = await trio.to_thread.run_sync(read_files, batch)
        whole = [item for item in read if not item.problem and not item.is_larger]
        async with self._examiner.arena.slab() as slab:
            extents = await trio.to_thread.run_sync(lay_out, slab, whole)
            examined = await self._examiner.examine_files(slab, extents)
        known = await self._find_known([item.digest for item in whole])
        uids = [e.sop_instance_uid for e in examined if e.verdict in (Verdict.CARRY, Verdict.FLAG)]
        versions = await self._store.find_versions(uids, self._mine)
        for item, found in zip(whole, examined, strict=True):
            if item.digest in known or item.digest in self._seen:
                await self._count_known(item.file.label, item.digest, found)
            else:
                found = self._noting_version(found, item.digest, versions)
                await self._place(item, await self._noting_patient(found), sealing)
            self._count_done(item.file.size_bytes)
        for item in read:
            if item.problem:
                self._refuse(item.file.label, (item.problem,))
                self._count_done(item.file.size_bytes)
            elif item.is_larger:  # it has grown since it was listed
                await self._take_large(item.file, sealing)

    def _noting_version(
        self, found: Examined, digest: bytes, versions: Mapping[str, Collection[Namesake]]
    ) -> Examined:
        uid = found.sop_instance_uid
        if found.verdict not in (Verdict.CARRY, Verdict.FLAG):
            return found
        reason = doubt_about(
            found.series_instance_uid,
            digest,
            versions.get(uid, ()),
            is_repeated=uid in self._seen_instances,
        )
        self._seen_instances.add(uid)
        if not reason:
            return found
        return replace(found, verdict=Verdict.FLAG, reasons=(*found.reasons, reason))

    async def _noting_patient(self, found: Examined) -> Examined:
        """Flag an instance of another patient than those before it under its Study Instance UID."""
        patient, study = patient_of(found.index), found.study_instance_uid
        if found.verdict not in (Verdict.CARRY, Verdict.FLAG) or patient == Patient():
            return found
        if study not in self._patients:
            earlier = await self._store.find_patient(study, self._number)
            self._patients.setdefault(study, earlier or patient)
        known = self._patients[study]
        if patient == known or not is_another(patient, known):
            return found
        reason = "another patient than others under its Study Instance UID"
        return replace(found, verdict=Verdict.FLAG, reasons=(*found.reasons, reason))

    async def _place(self, item: ReadFile, found: Examined, sealing: trio.Nursery) -> None:
        if not await self._note(item.file.label, found):
            return
        self._seen.add(item.digest)
        if found.verdict is Verdict.HOLD:
            writer = await self._open_held(found, sealing)
            await writer.add(found, item.digest, item.content)
            await self._hold(writer, found, item.file.label)
            return
        writer = await self._writer(found.study_instance_uid, sealing)
        await writer.add(found, item.digest, item.content)
        self._summary.carried += 1
        self._added += len(item.content)
        if self._added >= _COUNTED_BYTES:
            self._added = 0
            await self._bound_filling()

    async def _bound_filling(self) -> None:
        """Flush the packages in which most waits, so far as too much does."""
        filling = [(writer.filling_bytes, writer) for writer in self._writers.values()]
        filling.sort(key=lambda one: one[0], reverse=True)
        over = sum(size for size, _ in filling) - _FILLING_BYTES
        for size, writer in filling:
            if over <= 0:
                return
            over -= size
            await writer.flush()

    # -- files larger than a window -------------------------------------------------------

    async def _take_large(self, file: IncomingFile, sealing: trio.Nursery) -> None:
        try:
            await self._take_large_once(file, sealing, raises_failure=True)
        except _ExaminationFailed:
            # Another file may have ended the parser: this one is read once more.
            await self._take_large_once(file, sealing)

    async def _take_large_once(
        self, file: IncomingFile, sealing: trio.Nursery, *, raises_failure: bool = False
    ) -> None:
        async def whole_digest() -> bytes:
            return await trio.to_thread.run_sync(digest_file, file)

        try:
            handle = await trio.to_thread.run_sync(file.open)
        except DicomError as exc:
            self._refuse(file.label, (str(exc),))
            self._count_done(file.size_bytes)
            return
        try:
            windows = read_windows(handle)
            await self._take_windows(
                file.label,
                file.size_bytes,
                windows,
                sealing,
                whole_digest=whole_digest,
                raises_failure=raises_failure,
            )
        finally:
            handle.close()

    async def _take_windows(
        self,
        label: str,
        size: int,
        windows: AsyncIterator[bytes],
        sealing: trio.Nursery,
        *,
        whole_digest: Callable[[], Awaitable[bytes]] | None = None,
        raises_failure: bool = False,
    ) -> None:
        """Take a file that comes in windows: sealed as it comes, judged at its end.

        Raises:
            _ExaminationFailed: the parser failed, and that is not to be the verdict.
        """
        try:
            first = await anext(windows, b"")
            second = await anext(windows, None)
            if second is None:
                await self._take_batch([FileInMemory(label, first)], sealing)
                return
            async with self._examiner.large(size) as plain:
                examination = _RaisingExamination(plain) if raises_failure else plain
                begun = await _begin(examination, first, second, windows)
                if await self._is_known_large(begun.found, whole_digest):
                    self._summary.known += 1
                    self._known_studies[begun.found.study_instance_uid] = None
                elif not begun.found.is_instance:
                    await self._note(label, begun.found)
                else:
                    await self._seal_large(label, examination, begun, sealing)
        except DicomError as exc:
            self._refuse(label, (str(exc),))
        self._count_done(size)

    async def _is_known_large(
        self, found: Examined, whole_digest: Callable[[], Awaitable[bytes]] | None
    ) -> bool:
        """Read a file whose instance is here already once more rather than seal it again."""
        if whole_digest is None or not found.sop_instance_uid:
            return False
        if not await self._store.find_versions([found.sop_instance_uid], self._mine):
            return False
        return bool(await self._find_known([await whole_digest()]))

    @property
    def _mine(self) -> set[int]:
        """The open packages that this job will close."""
        return {writer.row_id for writer in self._writers.values()} | self._adopted

    async def _count_known(self, label: str, digest: bytes, found: Examined) -> None:
        """Count a file whose instance is here; one that waits for a person is held still."""
        if found.verdict is Verdict.HOLD and await self._store.is_held(digest):
            self._tell(Finding(label, Verdict.HOLD, (*found.reasons, "held already")))
            self._summary.held += 1
        else:
            self._summary.known += 1
            self._known_studies[found.study_instance_uid] = None

    async def _find_known(self, digests: Sequence[bytes]) -> Collection[bytes]:
        """Look up digests, and take over the packages that a killed import left around them."""
        async with self._opening:
            known = await self._store.find_known(digests, self._mine, self._number)
            self._adopted.update(row for row in known.values() if row is not None)
        return known.keys()

    async def _seal_large(
        self,
        label: str,
        examination: LargeExamination,
        begun: "_Begun",
        sealing: trio.Nursery,
    ) -> None:
        found, window = begun.found, begun.following
        study = found.study_instance_uid
        is_held = found.verdict is Verdict.HOLD
        opened = self._open_held(found, sealing) if is_held else self._writer(study, sealing)
        writer = await opened
        large = writer.begin_large(found.layout)
        is_finished = False
        try:
            for examined in begun.windows:
                await large.add(examined)
            begun.windows.clear()
            while window is not None:
                following = await anext(begun.rest, None)
                found = await examination.feed(window, is_last=following is None)
                if not found.is_instance:
                    await self._note(label, found)
                    return
                await large.add(window)
                window = following
            if found.study_instance_uid != study:
                self._refuse(label, ("two Study Instance UIDs",))
                return
            is_finished = await self._finish_large(label, large, writer, found)
        finally:
            if not is_finished:
                large.drop()

    async def _finish_large(
        self, label: str, large: LargeWriter, writer: Writer, found: Examined
    ) -> bool:
        whole = large.digest()
        if whole in self._seen or await self._find_known([whole]):
            await self._count_known(label, whole, found)
            return False
        versions = await self._store.find_versions([found.sop_instance_uid], self._mine)
        found = await self._noting_patient(self._noting_version(found, whole, versions))
        if not await self._note(label, found):
            return False
        self._seen.add(whole)
        await large.finish(found)
        if found.verdict is Verdict.HOLD:
            await self._hold(writer, found, label)
        else:
            self._summary.carried += 1
        return True

    # -- bookkeeping ----------------------------------------------------------------------

    async def _writer(self, study_uid: str, sealing: trio.Nursery) -> Writer:
        async with self._opening:
            if study_uid not in self._writers:
                self._writers[study_uid] = await self._store.open_package(
                    study_uid, sealing, import_id=self._number, mine=self._adopted
                )
            return self._writers[study_uid]

    async def _open_held(self, found: Examined, sealing: trio.Nursery) -> Writer:
        writer = await self._store.open_package(
            found.study_instance_uid, sealing, state=PackageState.HELD
        )
        self._held.append(writer)
        return writer

    async def _hold(self, writer: Writer, found: Examined, label: str) -> None:
        await writer.flush()
        await self._store.hold(writer.row_id, found, label)
        self._held.remove(writer)
        self._store.release_packages([writer.row_id])
        self._summary.held += 1

    async def _note(self, label: str, found: Examined) -> bool:
        """Tell what is to be told of a file; return whether its bytes are kept."""
        if found.verdict is Verdict.DIRECTORY:
            if found.is_partial:
                self._refuse(label, found.reasons)
            else:
                self._summary.directories += 1
            for i in range(0, len(found.references), _NAMED_AT_ONCE):
                self._media.name(label, found.references[i : i + _NAMED_AT_ONCE])
                await trio.lowlevel.checkpoint()
            return False
        if found.verdict is Verdict.NOT_DICOM:
            if not self._media.put_off(label):
                self._set_aside(label, is_named=self._media.is_named(label))
            return False
        if found.verdict is Verdict.REFUSE:
            self._refuse(label, found.reasons)
            return False
        if found.verdict is not Verdict.CARRY:
            self._tell(Finding(label, found.verdict, found.reasons))
            self._summary.flagged += found.verdict is Verdict.FLAG
        return True

    def _set_aside(self, label: str, *, is_named: bool) -> None:
        """Tell of a file that is no DICOM, which is a loss only where it should be."""
        if is_named:
            self._refuse(label, ("not DICOM, but a DICOMDIR names it",))
        elif is_called_dicom(label):
            self._refuse(label, ("not DICOM, but called so",))
        else:
            self._summary.not_dicom += 1
            self._tell(Finding(label, Verdict.NOT_DICOM, ("not DICOM",)))

    def _refuse(self, label: str, reasons: tuple[str, ...]) -> None:
        self._summary.refused += 1
        self._tell(Finding(label, Verdict.REFUSE, reasons))

    def _count_found(self, files: int, size: int) -> None:
        p = self._progress
        self._progress = replace(
            p, files_total=p.files_total + files, bytes_total=p.bytes_total + size
        )

    def _count_done(self, size: int) -> None:
        p = self._progress
        self._progress = replace(p, files_done=p.files_done + 1, bytes_done=p.bytes_done + size)
        self._tell(self._progress)


class _ExaminationFailed(Exception):
    """The parser failed; the file may have nothing to do with it."""


class _RaisingExamination:
    """An examination that raises where a parser fails."""

    def __init__(self, plain: LargeExamination) -> None:
        self._plain = plain

    async def feed(self, window: bytes, *, is_last: bool) -> Examined:
        """Give the next bytes.

        Raises:
            _ExaminationFailed: the parser failed.
        """
        found = await self._plain.feed(window, is_last=is_last)
        if found.is_failure:
            raise _ExaminationFailed
        return found


@dataclass(frozen=True, slots=True)
class _Begun:
    """A large file, examined as far as its Study Instance UID.

    Attributes:
        found: What is known of it.
        windows: Those that were examined.
        following: The next, already read; None at the end.
        rest: All after that.
    """

    found: Examined
    windows: list[bytes]
    following: bytes | None
    rest: AsyncIterator[bytes]


async def _begin(
    examination: LargeExamination, first: bytes, second: bytes, rest: AsyncIterator[bytes]
) -> _Begun:
    """Examine a large file until it is known which study it is of, or that it is refused.

    Raises:
        DicomError: that is not known early enough.
    """
    upcoming: bytes | None = second
    windows, size = [first], len(first)
    found = await examination.feed(first, is_last=False)
    while upcoming is not None and not found.study_instance_uid:
        if found.verdict in (Verdict.REFUSE, Verdict.NOT_DICOM):
            break
        if size > _BEGINNING_BYTES:
            raise DicomError("no Study Instance UID in its first 64 MiB")
        window, upcoming = upcoming, await anext(rest, None)
        found = await examination.feed(window, is_last=upcoming is None)
        windows.append(window)
        size += len(window)
    return _Begun(found, windows, upcoming, rest)
