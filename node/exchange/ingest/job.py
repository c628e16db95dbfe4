"""Import: every file is examined and gets a verdict.

How this works. A scanner lists the files in batches that fit a slab of shared memory. A few
lanes take batches. A lane reads and digests the files on a worker thread, has a parser process
examine them, and hands them to the intake, which packs, seals and records them in other tasks. So
reading, parsing and sealing overlap, and memory is bounded by the lanes, the slabs and the sealing
threads.

At the end all packages are signed and closed. A job that a person cancels discards the packages
that it made. A job that finds the disk full also discards those that it continued. A job that is
killed leaves them open; the next import of the same sources continues them
(`node.exchange.ingest.intake`).
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import trio

from node.domain.verdicts import Examined, Verdict
from node.errors import DicomError
from node.exchange.ingest.intake import Incoming, Intake, Outcome, Taken
from node.exchange.ingest.media_directories import MediaDirectories, is_called_dicom
from node.exchange.ingest.reading import (
    WINDOW_BYTES,
    Batch,
    FileInMemory,
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
    IncomingFile,
    LargeExamination,
)

LANES = 3
_BEGINNING_BYTES = 64 * 2**20
_ARCHIVE_BATCHES = 2
_NAMED_AT_ONCE = 1000
_REPORTED_MISSING_BYTES = (
    16 * 2**20
)  # of labels; whoever receives the findings keeps them in memory
_TOO_MUCH_TO_COMPARE = (
    "the medium has, or its DICOMDIR names, too many files to tell which are missing"
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


Report = Callable[[Progress | Finding], None]


class ImportJob:
    """One import. Run it once."""

    def __init__(
        self,
        intake: Intake,
        examiner: Examiner,
        report: Report,
        *,
        wait_room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Prepare.

        Args:
            intake: Where instances go; of this job alone.
            examiner: Examines files.
            report: Takes what there is to report.
            wait_room: Returns once the receiver of `report` can take more; awaited per batch.
        """
        self._intake = intake
        self._examiner = examiner
        self._report = report
        self._wait_room = wait_room
        self._summary = Summary()
        self._progress = Progress(0, 0, 0, 0)
        self._carried_studies: dict[str, None] = {}
        self._known_studies: dict[str, None] = {}
        self._media = MediaDirectories()

    async def run(self, files: Iterator[IncomingFile]) -> Summary:
        """Import files that can be opened on this machine.

        Durable once this returns. On an error or when the node stops, what was recorded
        stays in open packages for the next import, unless it was given up.
        """
        async with self._intake.opened():
            send, receive = trio.open_memory_channel[list[IncomingFile]](1000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._scan, files, send)
                for _ in range(LANES):
                    nursery.start_soon(self._lane, receive.clone())
                receive.close()
            return await self._close()

    async def run_streamed(
        self, files: AsyncIterator[tuple[str, int, AsyncGenerator[bytes]]]
    ) -> Summary:
        """Import files whose bytes the caller streams, one after the other."""
        async with self._intake.opened():
            async for label, size, windows in files:
                await self._wait_room()
                self._media.see(label)
                self._count_found(1, size)
                await self._take_windows(label, size, windows)
            return await self._close()

    def give_up(self) -> None:
        """Have no package kept that this job made; its task is to be cancelled then."""
        self._intake.give_up()

    async def _close(self) -> Summary:
        await self._intake.close()
        self._summary.plaintext_bytes = self._intake.plaintext_bytes
        self._summary.sealed_bytes = self._intake.sealed_bytes
        self._summary.study_instance_uids = [*self._carried_studies | self._known_studies]
        await self._report_media()
        return self._summary

    async def _report_media(self) -> None:
        """Report files that a DICOMDIR names and that are missing, and files that are not DICOM."""
        for label, is_named in self._media.others():
            await self._wait_room()
            self._set_aside(label, is_named=is_named)
        if self._media.first and not self._media.is_whole:
            self._refuse(self._media.first, (_TOO_MUCH_TO_COMPARE,))
        left = _REPORTED_MISSING_BYTES
        for label in self._media.missing():
            await self._wait_room()
            await trio.lowlevel.checkpoint()
            self._summary.missing += 1
            left -= len(label)
            if left >= 0:
                self._report(Finding(label, Verdict.MISSING, ("missing, though in a DICOMDIR",)))

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
    ) -> None:
        async with receive:
            async for batch in receive:
                await self._wait_room()
                if batch[0].is_archive:
                    await self._take_archive(batch[0])
                elif len(batch) == 1 and batch[0].size_bytes > WINDOW_BYTES:
                    await self._take_large(batch[0])
                else:
                    await self._take_batch(batch)

    async def _take_archive(self, archive: IncomingFile) -> None:
        """Take the files of an archive as they are extracted; a damaged one stops no other.

        Small ones are gathered to batches, of which a few are examined while others come.
        """
        places = trio.Semaphore(_ARCHIVE_BATCHES)

        async def take(batch: list[IncomingFile]) -> None:
            try:
                await self._take_batch(batch)
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
                        small = await self._take_member(member)
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

    async def _take_member(self, member: ReadMember) -> IncomingFile | None:
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
            await self._take_windows(label, size, rest_of(member))
        return None

    async def _take_batch(self, batch: list[IncomingFile]) -> None:
        read = await trio.to_thread.run_sync(read_files, batch)
        whole = [item for item in read if not item.problem and not item.is_larger]
        async with self._examiner.arena.slab() as slab:
            extents = await trio.to_thread.run_sync(lay_out, slab, whole)
            examined = await self._examiner.examine_files(slab, extents)
        taken = await self._intake.take(
            [
                Incoming(item.file.label, found, item.digest, item.content)
                for item, found in zip(whole, examined, strict=True)
            ]
        )
        for item, one in zip(whole, taken, strict=True):
            await self._note(item.file.label, one)
            self._count_done(item.file.size_bytes)
        for item in read:
            if item.problem:
                self._refuse(item.file.label, (item.problem,))
                self._count_done(item.file.size_bytes)
            elif item.is_larger:  # it has grown since it was listed
                await self._take_large(item.file)

    # -- files larger than a window -------------------------------------------------------

    async def _take_large(self, file: IncomingFile) -> None:
        try:
            await self._take_large_once(file, raises_failure=True)
        except _ExaminationFailed:
            # Another file may have ended the parser: this one is read once more.
            await self._take_large_once(file)

    async def _take_large_once(self, file: IncomingFile, *, raises_failure: bool = False) -> None:
        async def whole_digest() -> bytes:
            return await trio.to_thread.run_sync(digest_file, file)

        try:
            handle = await trio.to_thread.run_sync(file.open)
        except DicomError as exc:
            self._refuse(file.label, (str(exc),))
            self._count_done(file.size_bytes)
            return
        try:
            await self._take_windows(
                file.label,
                file.size_bytes,
                read_windows(handle),
                whole_digest=whole_digest,
                raises_failure=raises_failure,
            )
        finally:
            handle.close()

    async def _take_windows(
        self,
        label: str,
        size: int,
        windows: AsyncGenerator[bytes],
        *,
        whole_digest: Callable[[], Awaitable[bytes]] | None = None,
        raises_failure: bool = False,
    ) -> None:
        """Take a file that comes in windows: sealed as it comes, judged at its end.

        The windows are closed in any case: of a file that is refused early, not all are read.

        Raises:
            _ExaminationFailed: the parser failed, and that is not to be the verdict.
        """
        async with aclosing(windows):
            await self._judge_windows(
                label, size, windows, whole_digest=whole_digest, raises_failure=raises_failure
            )

    async def _judge_windows(
        self,
        label: str,
        size: int,
        windows: AsyncIterator[bytes],
        *,
        whole_digest: Callable[[], Awaitable[bytes]] | None,
        raises_failure: bool,
    ) -> None:
        try:
            first = await anext(windows, b"")
            second = await anext(windows, None)
            if second is None:
                await self._take_batch([FileInMemory(label, first)])
                return
            async with self._examiner.large(size) as plain:
                examination = _RaisingExamination(plain) if raises_failure else plain
                begun = await _begin(examination, first, second, windows)
                known = None
                if whole_digest is not None:
                    known = await self._intake.find_large(begun.found, whole_digest)
                if known is not None:
                    await self._note(label, known)
                elif not begun.found.is_instance:
                    await self._note(label, Taken(Outcome.NOT_TAKEN, begun.found))
                else:
                    await self._note(label, await self._seal_large(label, examination, begun))
        except DicomError as exc:
            self._refuse(label, (str(exc),))
        self._count_done(size)

    async def _seal_large(
        self, label: str, examination: LargeExamination, begun: "_Begun"
    ) -> Taken:
        found, window = begun.found, begun.following
        async with self._intake.large(label, found) as large:
            for examined in begun.windows:
                await large.add(examined)
            begun.windows.clear()
            while window is not None:
                following = await anext(begun.rest, None)
                found = await examination.feed(window, is_last=following is None)
                if not found.is_instance:
                    return Taken(Outcome.NOT_TAKEN, found)
                await large.add(window)
                window = following
            return await large.finish(found)

    # -- bookkeeping ----------------------------------------------------------------------

    async def _note(self, label: str, taken: Taken) -> None:
        """Count a file, and report a finding if there is one."""
        found, summary = taken.found, self._summary
        match taken.outcome:
            case Outcome.CARRIED:
                summary.carried += 1
                self._carried_studies[found.study_instance_uid] = None
                if found.verdict is Verdict.FLAG:
                    summary.flagged += 1
                    self._report(Finding(label, Verdict.FLAG, found.reasons))
            case Outcome.KNOWN:
                summary.known += 1
                if found.study_instance_uid:
                    self._known_studies[found.study_instance_uid] = None
            case Outcome.HELD:
                summary.held += 1
                self._report(Finding(label, found.verdict, found.reasons))
            case Outcome.HELD_ALREADY:
                summary.held += 1
                self._report(Finding(label, found.verdict, (*found.reasons, "held already")))
            case Outcome.NOT_TAKEN:
                await self._note_other(label, found)

    async def _note_other(self, label: str, found: Examined) -> None:
        """Count a file that is no instance."""
        if found.verdict is Verdict.DIRECTORY:
            if found.is_partial:
                self._refuse(label, found.reasons)
            else:
                self._summary.directories += 1
            for i in range(0, len(found.references), _NAMED_AT_ONCE):
                self._media.name(label, found.references[i : i + _NAMED_AT_ONCE])
                await trio.lowlevel.checkpoint()
        elif found.verdict is Verdict.NOT_DICOM:
            if not self._media.put_off(label):
                self._set_aside(label, is_named=self._media.is_named(label))
        else:
            self._refuse(label, found.reasons)

    def _set_aside(self, label: str, *, is_named: bool) -> None:
        """Report a file that is not DICOM; refuse it if its name or a DICOMDIR says that it is."""
        if is_named:
            self._refuse(label, ("not DICOM, though in a DICOMDIR",))
        elif is_called_dicom(label):
            self._refuse(label, ("not DICOM, despite its name",))
        else:
            self._summary.not_dicom += 1
            self._report(Finding(label, Verdict.NOT_DICOM, ("not DICOM",)))

    def _refuse(self, label: str, reasons: tuple[str, ...]) -> None:
        self._summary.refused += 1
        self._report(Finding(label, Verdict.REFUSE, reasons))

    def _count_found(self, files: int, size: int) -> None:
        p = self._progress
        self._progress = replace(
            p, files_total=p.files_total + files, bytes_total=p.bytes_total + size
        )

    def _count_done(self, size: int) -> None:
        p = self._progress
        self._progress = replace(p, files_done=p.files_done + 1, bytes_done=p.bytes_done + size)
        self._report(self._progress)


class _ExaminationFailed(Exception):
    """The parser failed, possibly because of another file."""


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
