"""ExportStudy: writes a study's files into a folder, or streams them to the caller."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.callers import actor_of, check_path, may_name_paths
from node.dicom.dicomdir import NoDicomdir, Unlisted, write_dicomdir
from node.domain.display_text import encodable
from node.domain.exports import Sink, is_attached
from node.errors import ConfigError, Conflict, UsageError, ungrouped
from node.exchange.export.exports import Exports
from node.exchange.export.streams import Overlay, Unchanged, ZeroedPreamble
from node.exchange.membership.facilities import Facilities
from node.exchange.ports import ExportPlan
from node.outside.export_folder import ExportFolder
from node.rpc.serving import Call
from node.system import safe_paths

log = structlog.get_logger()
_CLEAN_UP_SECONDS = 60.0
_PIECE_BYTES = 2 << 20
_QUEUED = 8


class Exporting:
    """Handles ExportStudy."""

    def __init__(self, exports: Exports[Any], facilities: Facilities, home: Path) -> None:
        """Prepare.

        Args:
            exports: Exports studies.
            facilities: Resolves the name of an origin.
            home: The home, into which nothing may be exported.
        """
        self._exports = exports
        self._facilities = facilities
        self._home = home

    async def export(self, call: Call[None]) -> None:
        """Handle a call."""
        request: pb.ExportStudyRequest = call.request
        if not request.stream:
            check_path(request.directory)
            is_ours = may_name_paths(call)
            if not is_ours or await trio.to_thread.run_sync(_is_unwritable, request):
                await call.write(pb.ExportStudyResponse(unwritable=True))
                return
        plan = await self._exports.plan(
            request.study,
            self._facilities.origin_named(request.origin),
            all_versions=request.all_versions,
            include_held=request.include_held,
        )
        await _Export(self._exports, self._facilities.names(), self._home, call, plan).run()


class _Export:
    """One export, and its responses."""

    def __init__(
        self,
        exports: Exports[Any],
        names: dict[bytes, str],
        home: Path,
        call: Call[None],
        plan: ExportPlan,
    ) -> None:
        self._exports = exports
        self._names = names
        self._home = home
        self._call = call
        self._request: pb.ExportStudyRequest = call.request
        self._plan = plan
        self._sizes = dict(plan.files)
        self._latest = pb.ExportStudyResponse()
        self._send, self._receive = trio.open_memory_channel[pb.ExportStudyResponse](_QUEUED)

    async def run(self) -> None:
        """Report the plan, then export.

        Raises:
            Conflict: every instance is held.
        """
        plan, names = self._plan, self._names
        self._latest = pb.ExportStudyResponse(
            origin=str(plan.origin),
            instances_total=len(plan.files),
            bytes_total=plan.total_bytes,
            older_versions=plan.older_versions,
            unfinished_imports=plan.unfinished_imports,
            attachments=plan.attachments,
        )
        await self._call.write(self._latest)
        for found in plan.left_out:
            await self._call.write(pb.ExportStudyResponse(held=wire.held_to_wire(found, names)))
        if not plan.files:
            raise Conflict("every instance is held, so nothing was exported. See `emix held`")
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give)
                async for response in self._receive:
                    await self._call.write(response)

    async def _give(self) -> None:
        async with self._send:
            if not self._request.stream:
                for unlisted in await self._into_folder():
                    await self._send.send(unlisted)
            elif self._request.in_order:
                await self._in_order()
            else:
                await self._in_any_order(self._send_piece)
            await self._send.send(self._latest)

    def _report(self, done: int, total: int, bytes_done: int, bytes_total: int) -> None:
        self._latest = pb.ExportStudyResponse(
            instances_done=done,
            instances_total=total,
            bytes_done=bytes_done,
            bytes_total=bytes_total,
            origin=str(self._plan.origin),
            older_versions=self._plan.older_versions,
        )
        with suppress(trio.WouldBlock):  # a slow reader misses some, never the last
            self._send.send_nowait(self._latest)

    def _pieces(
        self, name: str, offset: int, data: bytes | memoryview
    ) -> Iterator[pb.ExportStudyResponse]:
        for i in range(0, len(data), _PIECE_BYTES):
            part = bytes(data[i : i + _PIECE_BYTES])
            size = self._sizes[name]
            piece = pb.ExportPiece(name=name, offset=offset + i, data=part, size=size)
            yield pb.ExportStudyResponse(piece=piece)

    def _send_piece(self, name: str, offset: int, data: bytes | memoryview) -> None:
        for piece in self._pieces(name, offset, data):
            trio.from_thread.run(self._send.send, piece)

    async def _in_any_order(self, sink: Sink) -> None:
        await self._exports.scatter(
            self._plan,
            sink,
            actor=actor_of(self._call),
            destination=_destination(self._request),
            safe_preamble=self._request.safe_preamble,
            report=self._report,
        )

    async def _in_order(self) -> None:
        plan, is_zeroed, done = self._plan, self._request.safe_preamble, 0

        def overlay(number: int) -> Overlay:
            is_dicom = not is_attached(plan.files[number][0])
            return ZeroedPreamble() if is_zeroed and is_dicom else Unchanged()

        async with self._exports.stream(
            plan,
            actor=actor_of(self._call),
            destination=_destination(self._request),
            overlay=overlay,
        ) as pieces:
            async for one in pieces:
                name, size = plan.files[one.instance]
                for piece in self._pieces(name, one.offset, one.data):
                    await self._send.send(piece)
                done += len(one.data)
                is_whole = one.offset + len(one.data) == size
                self._report(one.instance + is_whole, len(plan.files), done, plan.total_bytes)

    async def _into_folder(self) -> list[pb.ExportStudyResponse]:
        """Export into a folder that this node may write; if interrupted, nothing is left.

        Files are exported even if the DICOMDIR fails. Returns the responses about the DICOMDIR.
        """
        unlisted: list[pb.ExportStudyResponse] = []
        folder = ExportFolder(Path(self._request.directory), self._sizes)
        await trio.to_thread.run_sync(_check_outside, folder.partial, self._home)
        await trio.to_thread.run_sync(folder.open)
        try:
            total, files = self._plan.total_bytes, len(self._plan.files)
            await trio.to_thread.run_sync(folder.check_room, total, files)
            await self._in_any_order(folder.write)
            if self._request.dicomdir:
                unlisted = await trio.to_thread.run_sync(_write_dicomdir, folder.partial)
            await trio.to_thread.run_sync(folder.publish)
        finally:
            with trio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
                await trio.to_thread.run_sync(folder.discard)
        return unlisted


def _write_dicomdir(folder: Path) -> list[pb.ExportStudyResponse]:
    ends = []
    try:
        unlisted: Sequence[Unlisted] = write_dicomdir(folder)
    except NoDicomdir as exc:
        log.warning("no DICOMDIR", problem=str(exc))
        unlisted = exc.unlisted
        ends.append(pb.ExportStudyResponse(without_dicomdir=True))
    return [
        *(
            pb.ExportStudyResponse(unlisted=pb.UnlistedFile(name=found.name, reason=found.reason))
            for found in unlisted
        ),
        *ends,
    ]


def _destination(request: pb.ExportStudyRequest) -> str:
    """Return the destination for the audit log: a folder, or the client's own claim."""
    said = encodable(request.directory)
    return f"streamed to the client, which says: {said}" if request.stream else said


def _check_outside(path: Path, home: Path) -> None:
    if path.resolve().is_relative_to(home.resolve()):
        raise UsageError("an export must not be inside the encrypted home; choose another folder")


def _is_unwritable(request: pb.ExportStudyRequest) -> bool:
    """Return whether the directory asked for is not this process's to write."""
    directory = Path(request.directory)
    if not request.parent_inode:
        return False
    try:
        with safe_paths.folder(directory.parent) as (above, _):
            found = os.fstat(above)
            is_same = (found.st_dev, found.st_ino) == (request.parent_device, request.parent_inode)
            if not is_same or not os.access(".", os.W_OK | os.X_OK, dir_fd=above):
                return True
        with suppress(FileNotFoundError), safe_paths.folder(directory, is_ours=True):
            pass
    except (OSError, ConfigError):
        return True  # the caller then tries itself, and reports the error
    return False
