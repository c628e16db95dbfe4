"""StudyService: import, list, export, delete, held instances."""

import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import structlog
import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.callers import actor_of, check_path, may_name_paths
from node.admin.exports import Exporting
from node.dicom.media import find_files
from node.domain.display_text import encodable, words_to_find
from node.domain.query import Level, make_query
from node.domain.studies import StudySource
from node.errors import DicomError, UsageError, ungrouped
from node.exchange.catalogue import Catalogue
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Finding, ImportJob, Progress, Summary
from node.exchange.ingest.reading import WINDOW_BYTES
from node.exchange.ingest.waiting import WaitingImports
from node.exchange.membership.facilities import Facilities
from node.exchange.ports import IncomingFile
from node.exchange.studies import Studies
from node.rpc.bounds import Bound
from node.rpc.pages import Pages, write_list
from node.rpc.serving import Call, Service, allow_all

log = structlog.get_logger()
_IMPORT = Bound(2 * 2**20, fields=64 * 1024)
"""A request of an import is at most: a MiB of a file, or many paths."""

_STUDIES_AT_ONCE = 200
_MOST_FINDINGS = 1000
_CLEAN_UP_SECONDS = 60.0
_PROGRESS_SECONDS = 0.2
_MAX_REASON = 200
_PIECE_BYTES = 2 << 20


class StudyHandlers:
    """Handlers of StudyService."""

    def __init__(
        self,
        imports: Imports,
        waiting: WaitingImports,
        studies: Studies,
        catalogue: Catalogue,
        exports: Exporting,
        facilities: Facilities,
    ) -> None:
        self._imports = imports
        self._waiting = waiting
        self._studies = studies
        self._catalogue = catalogue
        self._exports = exports
        self._facilities = facilities

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "Import": self._import,
            "ListStudies": self._list,
            "Query": self._query,
            "GetStudy": self._get,
            "ExportStudy": self._export,
            "DeleteStudy": self._delete,
            "ListHeld": self._list_held,
            "DecideHeld": self._decide_held,
            "ListImports": self._list_imports,
            "DiscardImport": self._discard_import,
        }
        descriptor = pb.DESCRIPTOR.services_by_name["StudyService"]
        return Service(descriptor, handlers, allow_all, {"Import": _IMPORT})

    async def _import(self, call: Call[None]) -> None:
        first: pb.ImportRequest | None = await call.read()
        if first is None:  # there was nothing to stream
            await call.write(pb.ImportResponse(summary=pb.ImportSummary()))
            return
        for path in first.paths.paths:
            check_path(path)
        unreadable = list(first.paths.paths)
        if may_name_paths(call):
            unreadable = await trio.to_thread.run_sync(_unreadable, unreadable)
        if unreadable:
            event = pb.ImportUnreadable(paths=unreadable)
            await call.write(pb.ImportResponse(unreadable=event))
            return
        writer = _EventWriter(call)
        job = self._imports.job(
            writer.report,
            actor_of(call),
            sources=first.paths.paths or first.file.sources,
            resumes=first.paths.resumes or first.file.resumes,
            wait_room=writer.wait_room,
        )
        with ungrouped():
            async with trio.open_nursery() as nursery:

                def give_up() -> None:
                    job.give_up()
                    nursery.cancel_scope.cancel()

                async def watch_for_cancel() -> None:
                    while (request := await call.read()) is not None:
                        if request.WhichOneof("part") == "cancel":
                            give_up()

                if first.WhichOneof("part") == "paths":
                    nursery.start_soon(watch_for_cancel)
                nursery.start_soon(writer.run)
                await writer.finish(await self._run_import(job, call, first, give_up))
                nursery.cancel_scope.cancel()

    async def _run_import(
        self,
        job: ImportJob,
        call: Call[None],
        first: pb.ImportRequest,
        give_up: Callable[[], None],
    ) -> Summary:
        match first.WhichOneof("part"):
            case "paths":
                return await job.run(_find_all(first.paths.paths))
            case "file":
                async with aclosing(_streamed_files(call, first, give_up)) as files:
                    return await job.run_streamed(files)
        raise UsageError("an import begins with paths or a file")

    async def _list(self, call: Call[None]) -> None:
        request: pb.ListStudiesRequest = call.request
        query = replace(
            make_query(Level.STUDY, {}, words_to_find(request.query), limit=request.limit),
            arrived_only=request.arrived_only,
        )
        found = await self._catalogue.studies(query, actor_of(call))
        pages = Pages(call, pb.ListStudiesResponse(), "studies")
        for i in range(0, len(found), _STUDIES_AT_ONCE):
            sources = await self._studies.sources(found[i : i + _STUDIES_AT_ONCE])
            await pages.add(chain.from_iterable(map(self._study, sources)))
        await pages.end()

    async def _query(self, call: Call[None]) -> None:
        request = call.request
        query = replace(
            make_query(
                wire.level_of(request.level),
                request.keys,
                words_to_find(request.words),
                limit=request.limit,
                offset=request.offset,
            ),
            arrived_only=request.arrived_only,
        )
        found = await self._catalogue.find(query, actor_of(call))
        await write_list(call, pb.QueryResponse(), "matches", map(wire.match_to_wire, found))

    async def _get(self, call: Call[None]) -> None:
        chosen, sources = await self._studies.look_at(call.request.study, actor_of(call))
        entries = chain.from_iterable(map(self._study, sources))
        first = pb.GetStudyResponse(
            chosen_by=chosen.means, chosen_origin=str(chosen.origin) if chosen.origin else ""
        )
        await write_list(call, first, "sources", entries)

    def _study(self, source: StudySource) -> Iterator[pb.Study]:
        names = self._facilities.names()
        name = names.get(source.origin.digest, "")
        return wire.study_to_wire(source, name, names, is_pinned=bool(name))

    async def _export(self, call: Call[None]) -> None:
        await self._exports.export(call)

    async def _delete(self, call: Call[None]) -> pb.DeleteStudyResponse:
        deleted = await self._studies.delete(
            call.request.study, call.request.origin, actor_of(call)
        )
        return pb.DeleteStudyResponse(
            packages=deleted.packages,
            instances=deleted.instances,
            held=[wire.held_to_wire(found, {}) for found in deleted.held[: wire.MOST_HELD]],
            held_instances=len(deleted.held),
            unfinished_imports=deleted.unfinished_imports,
        )

    async def _list_held(self, call: Call[None]) -> None:
        names = self._facilities.names()
        held = await self._waiting.held(actor_of(call))
        entries = (wire.held_to_wire(found, names) for found in held)
        await write_list(call, pb.ListHeldResponse(), "held", entries)

    async def _decide_held(self, call: Call[None]) -> pb.DecideHeldResponse:
        package = await self._waiting.decide(
            call.request.held_id, release=call.request.release, actor=actor_of(call)
        )
        return pb.DecideHeldResponse(package_id=str(package) if package else "")

    async def _list_imports(self, call: Call[None]) -> None:
        found = await self._waiting.unfinished(actor_of(call))
        entries = (wire.import_to_wire(one, is_running=runs) for one, runs in found)
        await write_list(call, pb.ListImportsResponse(), "imports", entries)

    async def _discard_import(self, call: Call[None]) -> pb.DiscardImportResponse:
        packages = await self._waiting.discard(call.request.number, actor_of(call))
        return pb.DiscardImportResponse(packages=packages)


class _EventWriter:
    """Writes an import's events into the response stream; of progress the latest, now and then.

    A caller that does not read makes the import wait: no finding is lost, and few are kept.
    """

    def __init__(self, call: Call[None]) -> None:
        self._call = call
        self._findings: deque[Finding] = deque()
        self._progress = Progress(0, 0, 0, 0)
        self._next_progress = 0.0
        self._changed = trio.Event()
        self._taken = trio.Event()
        self._writing = trio.Lock()

    def report(self, event: Progress | Finding) -> None:
        """Queue a finding, or replace the progress; see `wait_room`."""
        if isinstance(event, Finding):
            self._findings.append(event)
        else:
            self._progress = event
        self._changed.set()

    async def wait_room(self) -> None:
        """Wait while the queue of findings is full."""
        while len(self._findings) >= _MOST_FINDINGS:
            if self._taken.is_set():
                self._taken = trio.Event()
            await self._taken.wait()

    async def run(self) -> None:
        """Write the events, for ever."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            async with self._writing:
                await self._write_findings()
                if trio.current_time() >= self._next_progress:
                    await self._write_progress()

    async def _write_findings(self) -> None:
        while self._findings:
            found = self._findings.popleft()
            self._taken.set()
            finding = pb.ImportFinding(
                label=encodable(found.label), verdict=found.verdict, reasons=found.reasons
            )
            await self._call.write(pb.ImportResponse(finding=finding))

    async def _write_progress(self) -> None:
        self._next_progress = trio.current_time() + _PROGRESS_SECONDS
        p = self._progress
        progress = pb.ImportProgress(
            files_done=_bounded(p.files_done),
            files_total=_bounded(p.files_total),
            bytes_done=_bounded(p.bytes_done),
            bytes_total=_bounded(p.bytes_total),
        )
        await self._call.write(pb.ImportResponse(progress=progress))

    async def finish(self, summary: Summary) -> None:
        """Write the remaining events, the studies and the summary."""
        async with self._writing:
            await self._write_findings()
            await self._write_progress()
            uids = summary.study_instance_uids
            for i in range(0, len(uids), _STUDIES_AT_ONCE):
                studies = pb.ImportStudies(study_instance_uids=uids[i : i + _STUDIES_AT_ONCE])
                await self._call.write(pb.ImportResponse(studies=studies))
            end = pb.ImportSummary(
                carried=summary.carried,
                flagged=summary.flagged,
                known=summary.known,
                held=summary.held,
                refused=summary.refused,
                directories=summary.directories,
                not_dicom=summary.not_dicom,
                missing=summary.missing,
                plaintext_bytes=summary.plaintext_bytes,
                sealed_bytes=summary.sealed_bytes,
            )
            await self._call.write(pb.ImportResponse(summary=end))


def _bounded(count: int) -> int:
    """Return a count, bounded to what a message can hold: it may be a sum of stated sizes."""
    return max(0, min(count, 2**64 - 1))


def _unreadable(paths: Sequence[str]) -> list[str]:
    """Return those paths that this process may not read, or does not see."""
    return [path for path in paths if not os.access(path, os.R_OK | _search(path))]


def _search(path: str) -> int:
    """Return what reading a path takes besides, if it is a folder."""
    try:
        return os.X_OK if stat.S_ISDIR(Path(path).stat().st_mode) else 0
    except OSError:
        return 0  # it may not even be looked at


def _find_all(paths: Any) -> Iterator[IncomingFile]:
    return chain.from_iterable(find_files(Path(path)) for path in paths)


async def _streamed_files(
    call: Call[None], first: pb.ImportRequest, give_up: Callable[[], None]
) -> AsyncGenerator[tuple[str, int, AsyncGenerator[bytes]]]:
    """Yield the files of a request stream, each with its windows."""
    following: pb.ImportRequest | None = first

    async def read() -> pb.ImportRequest | None:
        request: pb.ImportRequest | None = await call.read()
        if request is not None and request.WhichOneof("part") == "cancel":
            give_up()
            await trio.lowlevel.checkpoint()
        return request

    async def windows() -> AsyncGenerator[bytes]:
        nonlocal following
        parts, size = [], 0
        while True:
            following = await read()
            if following is not None and following.WhichOneof("part") == "broken":
                raise DicomError(following.broken.reason[:_MAX_REASON])
            if following is None or following.WhichOneof("part") != "data":
                break
            parts.append(following.data)
            size += len(following.data)
            if size >= WINDOW_BYTES:
                whole = b"".join(parts)
                yield whole[:WINDOW_BYTES]
                rest = whole[WINDOW_BYTES:]
                parts, size = [rest] if rest else [], len(rest)
        if size:
            yield b"".join(parts)

    while following is not None:
        if following.WhichOneof("part") != "file":
            raise UsageError("a file's name must come before its bytes")
        current = following
        yield current.file.label, current.file.size_bytes, windows()
        # Bytes that nobody wanted (the file was refused early) go by.
        while following is current or (
            following is not None and following.WhichOneof("part") in ("data", "broken")
        ):
            following = await read()
