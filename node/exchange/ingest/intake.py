"""Intake: instances come by a door, and each goes into the open package of its study.

A door hands instances over: an import of files, a stream. The door handles files that are not
instances, and reports what became of each file. The intake recognises instances that are here
already, flags those that contradict earlier ones, and bounds what waits in memory. It closes
packages on command, or when nothing has come for a study for a while.

How this works. Packing, sealing and recording run behind `take`, in the nursery of `opened`. The
memory of a study is freed when the study closes. The next intake of the same sources finds packages
that were recorded and not closed, and continues them. An intake of other sources never closes them:
half a study would look complete.
"""

import enum
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
import trio

from node.domain.actors import Actor
from node.domain.events import Publish, StudyClosed
from node.domain.ids import PackageId
from node.domain.packages import Closing, PackageState
from node.domain.patients import Patient, is_another, patient_of
from node.domain.verdicts import Examined, Verdict
from node.domain.versions import Namesake, doubt_about
from node.errors import DicomError, NodeError, StoreFull, first_of_ours, ungrouped
from node.exchange.ingest.filling import Filling
from node.exchange.ingest.open_studies import OpenStudies, OpenStudy
from node.exchange.ports import ImportStore, LargeWriter, Writer

log = structlog.get_logger()
_DISCARD_SECONDS = 60.0  # what is left then stays in open packages
_MOST_FILLING_BYTES = 64 * 2**20
_CLOSED_AT_ONCE = 100
_Item = TypeVar("_Item")


class Outcome(enum.StrEnum):
    """What became of an incoming file."""

    CARRIED = "carried"
    KNOWN = "known"  # it is here already
    HELD = "held"  # sealed, and waits for a person
    HELD_ALREADY = "held already"
    NOT_TAKEN = "not taken"  # it is no instance: the examination says why


@dataclass(frozen=True, slots=True)
class Incoming:
    """An incoming file of at most a chunk's size.

    Attributes:
        label: The door's name for it; shown to the person who decides about a held instance.
        found: What the examination found.
        digest: The digest of its content.
    """

    label: str
    found: Examined
    digest: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a file; `found` also has the reasons that came from comparing it."""

    outcome: Outcome
    found: Examined


class Intake:
    """Takes instances. Use it within `opened`.

    Attributes:
        plaintext_bytes: The size of the instances recorded in studies that have closed.
        sealed_bytes: Their size on the disk, sealed.
    """

    def __init__(
        self,
        store: ImportStore,
        publish: Publish,
        actor: Actor,
        *,
        sources: Sequence[str] = (),
        resumes: int = 0,
        quiet_seconds: float | None = None,
    ) -> None:
        """Prepare.

        Args:
            store: Where instances go.
            publish: Is given a `StudyClosed` for each study that closes.
            actor: Who imports.
            sources: What instances come from. An intake of the same sources continues an
                interrupted one.
            resumes: The number of the import to resume, if a person named it.
            quiet_seconds: How long nothing may have come for a study before it closes; None for
                no limit.
        """
        self._store = store
        self._publish = publish
        self._actor = actor
        self._sources = sources
        self._resumes = resumes
        self._quiet_seconds = quiet_seconds
        self._number = 0
        self._sealing: trio.Nursery
        self.plaintext_bytes = 0
        self.sealed_bytes = 0
        self._is_given_up = False
        self._studies = OpenStudies()
        self._filling = Filling()
        self._finding = trio.Lock()
        self._rows: set[int] = set()  # all open packages that are this intake's to close
        self._adopted: set[int] = set()  # those of them that an earlier one began
        self._held: dict[int, Writer] = {}  # packages of one instance that are not held yet

    # -- beginning and end ----------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Accept instances for the time of the block; the block itself calls `close`.

        On an error or when the node stops, what was recorded stays in open packages for the next
        intake of the same sources, unless the intake was given up or the disk is full.

        Raises:
            NotFound: no import with the number to resume waits to be resumed.
        """
        self._number = await self._store.begin_import(self._sources, self._actor, self._resumes)
        error: BaseException | None = None
        try:
            with ungrouped():
                async with trio.open_nursery() as self._sealing, trio.open_nursery() as closing:
                    if self._quiet_seconds is not None:
                        await self._adopt_left()
                        closing.start_soon(self._close_quiet, self._quiet_seconds)
                    yield
                    closing.cancel_scope.cancel()
        except BaseException as exc:
            error = exc
            raise
        finally:
            with trio.move_on_after(_DISCARD_SECONDS, shield=True):
                await self._settle(error)
            self._store.release_packages([*self._rows, *self._held])
            self._store.leave_import(self._number)

    def give_up(self) -> None:
        """Have the packages that this intake made discarded; the caller then cancels its task.

        Packages that it continues stay open, as they were last flushed.
        """
        self._is_given_up = True

    async def _settle(self, error: BaseException | None) -> None:
        """Record how the intake ended, and free the disk space of what is discarded."""
        problem = first_of_ours(error) if error is not None else None
        try:
            if isinstance(problem, StoreFull):
                # Else an incomplete import would keep the disk full.
                await self._discard(self._rows)
            elif self._is_given_up:
                await self._discard(self._rows - self._adopted)
            elif problem is not None:
                await self._forget_chunks()
            is_ended = error is None or self._is_given_up
            if is_ended or problem is not None:
                await self._store.end_import(self._number, "" if is_ended else str(problem))
        except NodeError as exc:
            # The error that ended it says more, and the next start tidies up.
            log.info("intake clean-up failed", code=exc.code.value)

    async def _discard(self, rows: Collection[int]) -> None:
        """Discard packages, held ones that were not completed, and chunks that no row names."""
        await self._store.discard_packages([*rows, *self._held])
        await self._forget_chunks()

    async def _forget_chunks(self) -> None:
        """Delete the chunks that no row names, or ever will."""
        filling = (study.writer for study in self._studies.all() if study.writer)
        for writer in (*filling, *self._held.values()):
            await self._store.forget_chunks(writer.unrecorded_ids)

    # -- taking ---------------------------------------------------------------------------

    async def take(self, files: Sequence[Incoming]) -> list[Taken]:
        """Take instances; return what became of each file, in their order.

        They are durable once `flush` or `close` has returned after that.

        Cancellation:
            Some were taken. One of those that comes again is known, or kept twice.
        """
        known = await self._find_known([(f.found.study_instance_uid, f.digest) for f in files])
        named = [f.found.sop_instance_uid for f in files if _is_carried(f.found)]
        versions = await self._store.find_versions(named, self._rows)
        await self._open_ahead(file for file in files if file.digest not in known)
        return [await self._take(file, known, versions) for file in files]

    async def _open_ahead(self, files: Iterable[Incoming]) -> None:
        """Open the packages of several new studies with one commit."""
        carried = (f.found.study_instance_uid for f in files if _is_carried(f.found))
        new = [uid for uid in dict.fromkeys(carried) if self._studies.find(uid) is None]
        if len(new) < 2:
            return
        surplus = []
        for uid, writer in zip(
            new,
            await self._store.open_packages(new, self._sealing, import_id=self._number),
            strict=True,
        ):
            study = self._studies.get(uid)
            if study.closed or study.rows or study.opening.locked():
                surplus.append(writer.row_id)  # it was opened by another task meanwhile
            else:
                study.writer = writer
                study.rows.add(writer.row_id)
                self._rows.add(writer.row_id)
        if surplus:
            await self._store.discard_packages(surplus)
            self._store.release_packages(surplus)

    async def _take(
        self,
        file: Incoming,
        known: Collection[bytes],
        versions: Mapping[str, Collection[Namesake]],
    ) -> Taken:
        found, digest = file.found, file.digest
        if digest in known:
            return await self._known(found, digest)
        if not found.is_instance:
            return Taken(Outcome.NOT_TAKEN, found)
        uid = found.study_instance_uid
        async with self._studies.using(uid) as study, study.taking(digest) as taking:
            if taking is None:
                return await self._known(found, digest)
            found = await self._compared(study, found, digest, versions)
            is_held = found.verdict.keeps_out
            writer = await (self._open_held(uid) if is_held else self._writer(study))
            await writer.add(found, digest, file.content)
            if is_held:
                await self._hold(writer, found, file.label)
            else:
                self._filling.note(uid, writer.filling_bytes)
            taking.is_taken = True
        await self._bound_filling()
        return Taken(Outcome.HELD if is_held else Outcome.CARRIED, found)

    async def find_large(
        self, found: Examined, digest: Callable[[], Awaitable[bytes]]
    ) -> Taken | None:
        """Return the outcome for a large instance that is here already; None if it is not here.

        A known instance is not sealed again.

        Args:
            found: What is known of it after its first bytes.
            digest: Reads the whole instance and returns its digest; awaited only if its SOP
                Instance UID is known here.
        """
        uids = [found.sop_instance_uid] if found.sop_instance_uid else []
        if not await self._store.find_versions(uids, self._rows):
            return None
        whole = await digest()
        known = await self._find_known([(found.study_instance_uid, whole)])
        return await self._known(found, whole) if known else None

    @asynccontextmanager
    async def large(self, label: str, found: Examined) -> AsyncGenerator["LargeIncoming"]:
        """Take an instance that is larger than a chunk as its bytes come, if the block finishes it.

        Args:
            label: As in `Incoming`.
            found: What is known of it after its first bytes: its study, and whether it is held.
        """
        async with self._studies.using(found.study_instance_uid) as study:
            is_held = found.verdict.keeps_out
            writer = await (self._open_held(study.uid) if is_held else self._writer(study))
            large = writer.begin_large(found.pixels)

            async def finish(at_end: Examined) -> Taken:
                if at_end.study_instance_uid != study.uid:
                    raise DicomError("two Study Instance UIDs")
                if at_end.verdict.keeps_out != is_held:
                    raise DicomError("only the end of the file shows whether it must be held")
                return await self._finish(study, writer, large, at_end, label)

            incoming = LargeIncoming(large, finish)
            try:
                yield incoming
            finally:
                if not incoming.is_taken:
                    large.drop()

    async def _finish(
        self, study: OpenStudy, writer: Writer, large: LargeWriter, found: Examined, label: str
    ) -> Taken:
        digest = large.digest()
        known = await self._find_known([(study.uid, digest)])
        async with study.taking(digest) as taking:
            if known or taking is None:
                return await self._known(found, digest)
            versions = await self._store.find_versions([found.sop_instance_uid], self._rows)
            found = await self._compared(study, found, digest, versions)
            await large.finish(found)
            if found.verdict.keeps_out:
                await self._hold(writer, found, label)
            taking.is_taken = True
        return Taken(Outcome.HELD if found.verdict.keeps_out else Outcome.CARRIED, found)

    async def _known(self, found: Examined, digest: bytes) -> Taken:
        """Return the outcome for an instance that is here already, which may still be held."""
        if found.verdict.keeps_out and await self._store.is_held(digest):
            return Taken(Outcome.HELD_ALREADY, found)
        return Taken(Outcome.KNOWN, found)

    async def _find_known(self, files: Sequence[tuple[str, bytes]]) -> Collection[bytes]:
        """Look up digests, and take over the packages that a killed intake left around them."""
        async with self._finding:  # else two tasks would try to adopt the same package
            known = await self._store.find_known(
                [digest for _, digest in files], self._rows, self._number
            )
            for uid, digest in files:
                row = known.get(digest)
                if row is not None and row not in self._rows:
                    self._adopt(row, uid)
        return known.keys()

    async def _adopt_left(self) -> None:
        """Take over all that an earlier intake of the same sources has left open."""
        for row, uid in (await self._store.adopt_packages(self._number)).items():
            self._adopt(row, uid)

    def _adopt(self, row: int, uid: str) -> None:
        self._rows.add(row)
        self._adopted.add(row)
        study = self._studies.get(uid)
        (study.rows if study.closed is None else study.late_rows).add(row)

    async def _compared(
        self,
        study: OpenStudy,
        found: Examined,
        digest: bytes,
        versions: Mapping[str, Collection[Namesake]],
    ) -> Examined:
        """Flag an instance that is odd beside those before it."""
        if not _is_carried(found):
            return found
        uid = found.sop_instance_uid
        odd = doubt_about(
            found.series_instance_uid,
            digest,
            versions.get(uid, ()),
            is_repeated=self._studies.note_instance(study, uid),
        )
        reasons = [odd] if odd else []
        if await self._is_another_patient(study, patient_of(found.index)):
            reasons.append("another patient than other instances of its Study Instance UID")
        if not reasons:
            return found
        return replace(found, verdict=Verdict.FLAG, reasons=(*found.reasons, *reasons))

    async def _is_another_patient(self, study: OpenStudy, patient: Patient) -> bool:
        if patient == Patient():
            return False
        if study.patient is None:
            earlier = await self._store.find_patient(study.uid, self._number)
            study.note_patient(earlier or patient)
        known = study.patient or patient
        return patient != known and is_another(patient, known)

    async def _writer(self, study: OpenStudy) -> Writer:
        async with study.opening:
            if study.writer is None:
                study.writer = await self._store.open_package(
                    study.uid, self._sealing, import_id=self._number, mine=self._adopted
                )
                study.rows.add(study.writer.row_id)
                self._rows.add(study.writer.row_id)
            return study.writer

    async def _open_held(self, study_uid: str) -> Writer:
        writer = await self._store.open_package(study_uid, self._sealing, state=PackageState.HELD)
        self._held[writer.row_id] = writer
        return writer

    async def _hold(self, writer: Writer, found: Examined, label: str) -> None:
        await writer.flush()
        await self._store.hold(writer.row_id, found, label)
        del self._held[writer.row_id]
        self._store.release_packages([writer.row_id])

    async def _bound_filling(self) -> None:
        """Flush packages in which much waits, while too much does in all."""
        while self._filling.total_bytes > _MOST_FILLING_BYTES:
            await self.flush([self._filling.largest()])

    # -- closing --------------------------------------------------------------------------

    async def flush(self, uids: Iterable[str]) -> None:
        """Make what was taken of studies durable; they stay open."""
        for uid in uids:
            self._filling.note(uid, 0)  # now, or others would flush the same
            study = self._studies.find(uid)
            if study is not None and study.writer is not None:
                await study.writer.flush()

    async def close(
        self, uids: Iterable[str] | None = None, why: Closing = Closing.COMMAND
    ) -> list[StudyClosed]:
        """Sign and close the packages of studies, all by default; return the published events.

        Durable once this returns. Instances that come for these studies meanwhile wait.

        Cancellation:
            Some are closed; the others stay open for the next intake of the same sources.
        """
        mine, others = self._studies.begin_closing(uids)
        closed: list[StudyClosed] = []
        try:
            for i in range(0, len(mine), _CLOSED_AT_ONCE):
                closed += await self._close(mine[i : i + _CLOSED_AT_ONCE], why)
        finally:
            for study in mine:
                self._studies.end_closing(study)
        for study in others:
            if study.closed is not None:
                await study.closed.wait()
        return closed

    async def _close(self, studies: Sequence[OpenStudy], why: Closing) -> list[StudyClosed]:
        await _for_each(self._flush_unused, studies)  # at once: they share syncs and commits
        rows = sorted(row for study in studies for row in study.rows)
        packages = await self._store.close_packages(rows, self._actor)
        closed = []
        for study in studies:
            if study.writer is not None:
                await self._store.forget_chunks(study.writer.unrecorded_ids)
                self.plaintext_bytes += study.writer.plaintext_bytes
                self.sealed_bytes += study.writer.sealed_bytes
            self._store.release_packages(study.rows)
            self._rows -= study.rows
            self._adopted -= study.rows
            # A package adopted for a file that could not be parsed may be of another study.
            made: dict[str, list[PackageId]] = {}
            for package in (packages[row] for row in sorted(study.rows) if row in packages):
                made.setdefault(package.study_uid, []).append(package.package_id)
            closed += [StudyClosed(uid, tuple(ids), why) for uid, ids in made.items()]
            self._studies.end_closing(study)
        for event in closed:
            await self._publish(event)
        return closed

    async def _flush_unused(self, study: OpenStudy) -> None:
        """Flush a study once nobody uses it."""
        await study.unused_by_all()
        await self.flush([study.uid])

    async def _close_quiet(self, seconds: float) -> None:
        while True:
            quiet = await self._studies.quiet(seconds, _CLOSED_AT_ONCE)
            await self.close(quiet, Closing.QUIET)


class LargeIncoming:
    """An instance that is larger than a chunk, on its way; `Intake.large` makes it.

    Attributes:
        is_taken: Whether it was finished, and was not here already.
    """

    def __init__(self, large: LargeWriter, finish: Callable[[Examined], Awaitable[Taken]]) -> None:
        self._large = large
        self._finish = finish
        self.is_taken = False

    async def add(self, window: bytes) -> None:
        """Add the next bytes, at most a chunk's worth."""
        await self._large.add(window)

    async def finish(self, found: Examined) -> Taken:
        """Take the instance, after its last bytes were added; return what became of it.

        Raises:
            DicomError: its end contradicts its beginning; it is not taken.
        """
        taken = await self._finish(found)
        self.is_taken = taken.outcome in (Outcome.CARRIED, Outcome.HELD)
        return taken


async def _for_each(work: Callable[[_Item], Awaitable[None]], items: Iterable[_Item]) -> None:
    """Do work for all of some items at once; where one fails, the others are done all the same.

    Raises:
        NodeError: the first error of ours.
    """
    errors: list[NodeError] = []

    async def do(item: _Item) -> None:
        try:
            await work(item)
        except NodeError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(do, item)
    if errors:
        raise errors[0]


def _is_carried(found: Examined) -> bool:
    return found.verdict in (Verdict.CARRY, Verdict.FLAG)
