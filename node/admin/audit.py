"""AuditService: receipts, the audit log, and the heads of it that others keep."""

from contextlib import aclosing

from emix.admin.v1 import admin_pb2 as pb

from node.admin.callers import actor_of
from node.documents.audit_head import open_head
from node.documents.receipt import open_receipt
from node.documents.signed import Document
from node.domain.audit import AuditEntry, AuditFilter
from node.domain.heads import Witness
from node.domain.ids import FacilityId
from node.domain.transfers import Transfer
from node.exchange.auditing import Auditing
from node.exchange.membership.facilities import Facilities
from node.rpc.pages import PAGE_BYTES, Pages, write_list
from node.rpc.serving import Call, Service, allow_all


class AuditHandlers:
    """Handlers of AuditService."""

    def __init__(self, auditing: Auditing, facilities: Facilities) -> None:
        self._auditing = auditing
        self._facilities = facilities

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "ListReceipts": self._list_receipts,
            "ExportReceipt": self._export_receipt,
            "ListAudit": self._list_audit,
            "AcknowledgeAlarms": self._acknowledge,
            "VerifyAudit": self._verify_audit,
            "GetAuditHead": self._get_head,
            "AcceptPeerLog": self._accept_log,
        }
        return Service(pb.DESCRIPTOR.services_by_name["AuditService"], handlers, allow_all)

    async def _list_receipts(self, call: Call[None]) -> None:
        pages = Pages(call, pb.ListReceiptsResponse(), "receipts")
        rows = self._auditing.receipts(call.request.limit, actor_of(call))
        async with aclosing(rows):
            async for some in rows:
                await pages.add(map(self._receipt, some))
        await pages.end()

    def _receipt(self, row: Transfer) -> pb.ReceiptRow:
        receipt = open_receipt(Document.decode(row.receipt or b""))
        return pb.ReceiptRow(
            number=row.id,
            transfer_id=str(row.transfer_id),
            direction=row.direction,
            peer=str(row.peer),
            peer_name=self._facilities.name_of(row.peer),
            study_instance_uid=row.study_uid,
            instances=receipt.instances,
            plaintext_bytes=receipt.plaintext_bytes,
            received_seconds=int(receipt.received_time),
            reissued=receipt.reissued,
            deleted_seconds=int(row.deleted_time),
        )

    async def _export_receipt(self, call: Call[None]) -> None:
        row, manifest = await self._auditing.proof(call.request.transfer, actor_of(call))
        answer = pb.ExportReceiptResponse(delivery=row.delivery, receipt=row.receipt or b"")
        encoded = manifest.encode()
        for i in range(0, len(encoded), PAGE_BYTES):
            answer.manifest_piece = encoded[i : i + PAGE_BYTES]
            await call.write(answer)
            answer = pb.ExportReceiptResponse()

    async def _list_audit(self, call: Call[None]) -> None:
        request: pb.ListAuditRequest = call.request
        if request.open_alarms:
            alarms = await self._auditing.open_alarms(request.limit)
            await write_list(call, pb.ListAuditResponse(), "entries", map(_entry_to_wire, alarms))
            return
        wanted = AuditFilter(
            operator=request.operator,
            kind=request.kind,
            since_milliseconds=request.since_milliseconds,
            until_milliseconds=request.until_milliseconds,
        )
        pages = Pages(call, pb.ListAuditResponse(), "entries")
        found = self._auditing.search(wanted, request.study, request.peer, request.limit)
        async with aclosing(found):
            async for some in found:
                await pages.add(map(_entry_to_wire, some))
        await pages.end()

    async def _acknowledge(self, call: Call[None]) -> pb.AcknowledgeAlarmsResponse:
        through = call.request.through_sequence
        alarms = await self._auditing.acknowledge(through, actor_of(call))
        return pb.AcknowledgeAlarmsResponse(alarms=alarms)

    async def _verify_audit(self, call: Call[None]) -> pb.VerifyAuditResponse:
        request: pb.VerifyAuditRequest = call.request
        given = self._auditing.given(request.head, request.sequence, request.digest)
        found = await self._auditing.verify(given, asks=request.ask_witnesses)
        answer = pb.VerifyAuditResponse(
            entries=found.walk.entries,
            head=found.walk.head,
            problem=found.walk.problem,
            witnesses=map(self._witness, found.witnesses),
            silent=map(self._name, found.silent),
            given_problem=found.given_problem,
        )
        for sequence in given:
            answer.given_sequence = sequence
        return answer

    def _witness(self, witness: Witness) -> pb.AuditWitness:
        return pb.AuditWitness(
            facility_id=str(witness.facility),
            display_name=self._name(witness.facility),
            sequence=witness.sequence,
            taken_seconds=int(witness.taken_time),
            reported_seconds=int(witness.reported_time),
            heard=witness.is_heard,
            problem=witness.problem,
        )

    def _name(self, facility: FacilityId) -> str:
        return self._facilities.name_of(facility) or facility.short()

    async def _get_head(self, _: Call[None]) -> pb.GetAuditHeadResponse:
        encoded = await self._auditing.own_head()
        head = open_head(encoded)
        return pb.GetAuditHeadResponse(
            head=encoded,
            sequence=head.sequence,
            digest=head.digest,
            time_milliseconds=head.time_milliseconds,
            facility_id=str(head.facility),
        )

    async def _accept_log(self, call: Call[None]) -> pb.AcceptPeerLogResponse:
        name, heads = await self._auditing.settle(call.request.facility, actor_of(call))
        return pb.AcceptPeerLogResponse(display_name=name, heads=heads)


def _entry_to_wire(entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        sequence=entry.sequence,
        time_milliseconds=entry.time_milliseconds,
        kind=entry.kind,
        body=entry.body,
        operator=entry.operator,
        digest=entry.digest,
    )
