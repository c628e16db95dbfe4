"""NodeService: status, identity, doctor, store check, backup."""

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin.callers import actor_of
from node.domain.audit import AuditEntry, alarm_text
from node.domain.backups import Piece
from node.domain.findings import Finding
from node.domain.ids import FacilityId, NodeId, PackageId
from node.domain.retention import Aged
from node.domain.transfers import State
from node.errors import PeerTimeout
from node.exchange.auditing import Auditing
from node.exchange.ingest.waiting import WaitingImports
from node.exchange.keeping import Keeping
from node.exchange.membership.facilities import Facilities
from node.exchange.membership.pairing import Pairing
from node.exchange.transfer.lists import TransferLists
from node.rpc.bounds import Bound
from node.rpc.pages import Pages
from node.rpc.serving import Call, Service, allow_all
from node.system import clock
from node.version import SOFTWARE

_MANY_STUDIES = Bound(4 * 2**20, fields=100_000)
_LOOKED_AT, _SHOWN = 100, 5
"""How many of the newest open alarms are read, and how many are shown."""

_PIECE_BYTES = 2 << 20
_HAD_AT_ONCE, _MOST_HAD = 1000, 1_000_000
_STALL_SECONDS = 600.0  # for a person who stopped the command, or a disk that hangs


class Diagnose(Protocol):
    """Diagnoses the node; `node.app.doctor` implements it."""

    async def __call__(self, *, is_quick: bool) -> list[Finding]:
        """Return a finding for each check; quick checks make no connections."""


@dataclass(frozen=True)
class About:
    """Facts about the node.

    Attributes:
        facility: The facility that it belongs to.
        started_time: When it started.
        statements: Returns its signed statements.
        endpoints: Returns the addresses of its peer and introduction services.
    """

    facility: FacilityId
    node: NodeId
    display_name: str
    started_time: float
    statements: Callable[[], bytes]
    endpoints: Callable[[], tuple[str, str]]


class NodeHandlers:
    """Handlers of NodeService."""

    def __init__(
        self,
        about: About,
        keeping: Keeping,
        auditing: Auditing,
        facilities: Facilities,
        pairing: Pairing,
        transfers: TransferLists,
        imports: WaitingImports,
        diagnose: Diagnose,
    ) -> None:
        self._about = about
        self._keeping = keeping
        self._auditing = auditing
        self._facilities = facilities
        self._pairing = pairing
        self._transfers = transfers
        self._imports = imports
        self._diagnose = diagnose

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "GetStatus": self._status,
            "GetIdentity": self._identity,
            "Diagnose": self._look_for_problems,
            "CheckStore": self._check_store,
            "Backup": self._backup,
            "ConfirmClock": self._confirm_clock,
            "PreviewRetention": self._preview_retention,
            "ApplyRetention": self._apply_retention,
        }
        bounds = {"CheckStore": _MANY_STUDIES}
        return Service(pb.DESCRIPTOR.services_by_name["NodeService"], handlers, allow_all, bounds)

    async def _status(self, _: Call[None]) -> pb.GetStatusResponse:
        about, counts = self._about, await self._keeping.counts()
        open_ones = await self._transfers.open_ones()
        peer_endpoint, introduction_endpoint = about.endpoints()
        findings = await self._diagnose(is_quick=True)
        alarms = [f"{f.subject}: {f.text}" for f in findings if f.level == "problem"]
        alarms += await self._recorded(counts["alarms"])
        return pb.GetStatusResponse(
            facility_id=str(about.facility),
            display_name=about.display_name,
            node_id=str(about.node),
            software=SOFTWARE,
            peer_endpoint=peer_endpoint,
            introduction_endpoint=introduction_endpoint,
            studies=counts["studies"],
            instances=counts["instances"],
            sealed_bytes=counts["sealed_bytes"],
            free_bytes=counts["free_bytes"],
            chunk_place=self._keeping.chunk_place,
            open_transfers=len(open_ones),
            held_instances=counts["held_instances"],
            held_offers=sum(
                r.state is State.HELD and r.direction == "receive" and not r.accepted
                for r in open_ones
            ),
            alarms=alarms,
            started_seconds=int(about.started_time),
            waiting_pairings=len(self._pairing.pending()),
            asking_facilities=len(self._pairing.strangers.all()),
            unfinished_imports=await self._imports.count_unfinished(),
        )

    async def _recorded(self, count: int) -> list[str]:
        """Return the texts of the newest open alarms, each once, and where to see all of them."""
        if not count:
            return []
        newest = await self._auditing.open_alarms(_LOOKED_AT)
        last = {alarm_text(entry): _moment(entry) for entry in newest}
        texts = [f"{text} ({moment})" for text, moment in sorted(last.items(), key=_by_moment)]
        more = f"{count} alarms in the audit log; `emix audit --alarms` shows them all"
        return [*texts[-_SHOWN:], f"{more}, `emix audit acknowledge` clears them"]

    async def _identity(self, _: Call[None]) -> pb.GetIdentityResponse:
        return pb.GetIdentityResponse(
            facility_id=str(self._about.facility),
            statements=self._about.statements(),
        )

    async def _look_for_problems(self, _: Call[None]) -> pb.DiagnoseResponse:
        return pb.DiagnoseResponse(
            findings=[
                pb.Finding(subject=f.subject, level=f.level, text=f.text, advice=f.advice)
                for f in await self._diagnose(is_quick=False)
            ]
        )

    async def _check_store(self, call: Call[None]) -> None:
        async def report(done: int, total: int, problem: str) -> None:
            await call.write(
                pb.CheckStoreResponse(chunks_done=done, chunks_total=total, problem=problem)
            )

        request: pb.CheckStoreRequest = call.request
        studies = tuple(request.study_instance_uids)
        await self._keeping.check(read_data=request.read_data, report=report, studies=studies)
        unopened = (await self._keeping.counts())["unopened_chunks"]
        await call.write(pb.CheckStoreResponse(chunks_unopened=unopened))

    async def _backup(self, call: Call[None]) -> None:
        destination, had = "", set[bytes]()
        while (request := await call.read()) is not None:
            destination = destination or request.destination
            if len(had) < _MOST_HAD:
                had.update(request.had_chunks)
        files = 0

        async def write(event: pb.BackupResponse) -> None:
            with trio.move_on_after(_STALL_SECONDS) as scope:
                await call.write(event)
            if scope.cancelled_caught:  # removals wait for the end
                raise PeerTimeout("the client read nothing for ten minutes, so the backup ended")

        async def report(count: int, size: int) -> None:
            await write(pb.BackupResponse(size=pb.BackupSize(files=count, bytes=size)))

        named = pb.BackupHad()

        async def report_had() -> None:
            if named.chunks:
                await write(pb.BackupResponse(had=named))
                named.Clear()

        async def send(piece: Piece) -> None:
            nonlocal files
            if piece.had is not None:
                files += 1
                named.chunks.append(piece.had.digest)
                if len(named.chunks) == _HAD_AT_ONCE:
                    await report_had()
                return
            if piece.problem:
                unreadable = pb.BackupUnreadable(name=piece.name, reason=piece.problem)
                await write(pb.BackupResponse(unreadable=unreadable))
                return
            files += bool(piece.name)
            for i in range(0, len(piece.data) or 1, _PIECE_BYTES):
                name, data = piece.name if not i else "", piece.data[i : i + _PIECE_BYTES]
                sent = pb.BackupPiece(name=name, data=data)
                await write(pb.BackupResponse(piece=sent))

        await self._keeping.backup(destination, had, report, send, actor_of(call))
        await report_had()
        await write(pb.BackupResponse(end=pb.BackupEnd(files=files)))

    async def _confirm_clock(self, call: Call[None]) -> pb.ConfirmClockResponse:
        ahead = await self._keeping.confirm_clock(actor_of(call))
        return pb.ConfirmClockResponse(was_ahead_seconds=round(ahead))

    async def _preview_retention(self, call: Call[None]) -> None:
        days = self._keeping.retention_days
        first = pb.PreviewRetentionResponse(days=days, suspended=clock.CLOCK.doubt)
        pages, names = Pages(call, first, "entries"), self._facilities.names()
        aged, now = self._keeping.aged(actor_of(call)), clock.now()
        async with aclosing(aged):
            async for found in aged:
                await pages.add(_aged_to_wire(one, names, now) for one in found)
        await pages.end()

    async def _apply_retention(self, call: Call[None]) -> pb.ApplyRetentionResponse:
        step = await self._keeping.apply_retention(actor_of(call))
        return pb.ApplyRetentionResponse(announced=step.announced, deleted=step.deleted)


def _aged_to_wire(aged: Aged, names: dict[bytes, str], now: float) -> pb.RetentionEntry:
    return pb.RetentionEntry(
        study_instance_uid=aged.study_uid,
        package_id=str(PackageId(aged.package)),
        origin=str(FacilityId(aged.origin)),
        received_from=names.get(aged.received_from, str(FacilityId(aged.received_from))),
        received_seconds=int(aged.created_time),
        fate=aged.fate(now),
        expiring_seconds=int(aged.expiring_time or 0),
        number=aged.number,
    )


def _moment(entry: AuditEntry) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(entry.time_milliseconds // 1000))


def _by_moment(item: tuple[str, str]) -> str:
    return item[1]
