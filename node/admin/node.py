"""NodeService: status, identity, doctor, store check, backup."""

import time

import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin.parts import Parts, actor_of
from node.domain.audit import AuditEntry, alarm_text
from node.domain.backups import Piece
from node.domain.display_text import encodable
from node.domain.ids import FacilityId, PackageId
from node.domain.retention import Aged
from node.domain.transfers import State
from node.errors import PeerTimeout
from node.rpc.pages import Pages
from node.rpc.serving import Call, Service, allow_all
from node.system import clock
from node.version import SOFTWARE

_LOOKED_AT, _SHOWN = 100, 5
"""Of the alarms that nobody has acknowledged: the newest."""

_PIECE_BYTES = 2 << 20
_HAD_AT_ONCE, _MOST_HAD = 1000, 1_000_000
_STALL_SECONDS = 600.0  # for a person who stopped the command, or a disk that hangs


class NodeHandlers:
    """Handlers of NodeService."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "GetStatus": self._status,
            "GetIdentity": self._identity,
            "Diagnose": self._diagnose,
            "CheckStore": self._check_store,
            "Backup": self._backup,
            "ConfirmClock": self._confirm_clock,
            "PreviewRetention": self._preview_retention,
            "ApplyRetention": self._apply_retention,
        }
        return Service(pb.DESCRIPTOR.services_by_name["NodeService"], handlers, allow_all)

    async def _status(self, _: Call[None]) -> pb.GetStatusResponse:
        parts = self._parts
        counts = await parts.maintenance.counts()
        open_ones = await parts.transfer_store.open_ones()
        peer_endpoint, introduction_endpoint = parts.endpoints()
        findings = await parts.diagnose(is_quick=True)
        alarms = [f"{f.subject}: {f.text}" for f in findings if f.level == "problem"]
        alarms += await self._recorded(counts["alarms"])
        return pb.GetStatusResponse(
            facility_id=str(parts.signer.facility_id),
            display_name=parts.display_name,
            node_id=str(parts.signer.node_id),
            software=SOFTWARE,
            peer_endpoint=peer_endpoint,
            introduction_endpoint=introduction_endpoint,
            studies=counts["studies"],
            instances=counts["instances"],
            sealed_bytes=counts["sealed_bytes"],
            free_bytes=counts["free_bytes"],
            chunk_place=parts.maintenance.chunk_place,
            open_transfers=len(open_ones),
            held_instances=counts["held_instances"],
            held_offers=sum(
                r.state is State.HELD and r.direction == "receive" and not r.accepted
                for r in open_ones
            ),
            alarms=alarms,
            started_seconds=int(parts.started_time),
            waiting_pairings=len(parts.pairing.pending()),
            asking_facilities=len(parts.pairing.strangers.all()),
            unfinished_imports=sum(
                not is_running for _, is_running in await parts.import_store.list_imports()
            ),
        )

    async def _recorded(self, count: int) -> list[str]:
        """Return what the audit log's open alarms say, each once, and where the rest are."""
        if not count:
            return []
        newest = await self._parts.audit.open_alarms(_LOOKED_AT)
        last = {alarm_text(entry): _moment(entry) for entry in newest}
        texts = [f"{text} ({moment})" for text, moment in sorted(last.items(), key=_by_moment)]
        more = f"{count} alarms in the audit log; `emix audit --alarms` shows them all"
        return [*texts[-_SHOWN:], f"{more}, `emix audit acknowledge` ends this"]

    async def _identity(self, _: Call[None]) -> pb.GetIdentityResponse:
        return pb.GetIdentityResponse(
            facility_id=str(self._parts.signer.facility_id),
            statements=self._parts.statements(),
        )

    async def _diagnose(self, _: Call[None]) -> pb.DiagnoseResponse:
        return pb.DiagnoseResponse(
            findings=[
                pb.Finding(subject=f.subject, level=f.level, text=f.text, advice=f.advice)
                for f in await self._parts.diagnose(is_quick=False)
            ]
        )

    async def _check_store(self, call: Call[None]) -> None:
        async def tell(done: int, total: int, problem: str) -> None:
            await call.write(
                pb.CheckStoreResponse(chunks_done=done, chunks_total=total, problem=problem)
            )

        await self._parts.maintenance.check(read_data=call.request.read_data, tell=tell)

    async def _backup(self, call: Call[None]) -> None:
        destination, had = "", set[bytes]()
        while (request := await call.read()) is not None:
            destination = destination or request.destination
            if len(had) < _MOST_HAD:
                had.update(request.had_chunks)
        # Before it begins: cut off, more is recorded than left.
        facts: dict[str, object] = {"destination": encodable(destination)}
        await self._parts.audit.append("node.backed-up", facts, actor_of(call))
        files = 0

        async def write(event: pb.BackupResponse) -> None:
            with trio.move_on_after(_STALL_SECONDS) as scope:
                await call.write(event)
            if scope.cancelled_caught:  # removals wait for the end
                raise PeerTimeout("nothing was read of the backup for ten minutes, so it was ended")

        async def tell(count: int, size: int) -> None:
            await write(pb.BackupResponse(size=pb.BackupSize(files=count, bytes=size)))

        named = pb.BackupHad()

        async def tell_had() -> None:
            if named.chunks:
                await write(pb.BackupResponse(had=named))
                named.Clear()

        async def send(piece: Piece) -> None:
            nonlocal files
            if piece.had is not None:
                files += 1
                named.chunks.append(piece.had.digest)
                if len(named.chunks) == _HAD_AT_ONCE:
                    await tell_had()
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

        await self._parts.maintenance.backup(tell, send, had)
        await tell_had()
        await write(pb.BackupResponse(end=pb.BackupEnd(files=files)))

    async def _confirm_clock(self, call: Call[None]) -> pb.ConfirmClockResponse:
        jump = clock.CLOCK.jump
        if jump:
            clock.CLOCK.confirm()
            await self._parts.clock_notes.confirmed("a person", actor_of(call))
        return pb.ConfirmClockResponse(was_ahead_seconds=round(jump))

    async def _preview_retention(self, call: Call[None]) -> None:
        parts, retention = self._parts, self._parts.retention
        await parts.audit.note_list("retention.listed", {}, actor_of(call))
        first = pb.PreviewRetentionResponse(days=retention.days, suspended=clock.CLOCK.doubt)
        pages, names, now, last = Pages(call, first, "entries"), parts.names(), clock.now(), 0
        while found := await retention.page(last):
            last = found[-1].number
            await pages.add(_aged_to_wire(aged, names, now) for aged in found)
        await pages.end()

    async def _apply_retention(self, call: Call[None]) -> pb.ApplyRetentionResponse:
        step = await self._parts.retention.step(actor_of(call))
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
