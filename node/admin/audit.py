"""AuditService: receipts, the audit log, and what others keep of it."""

from contextlib import aclosing

from emix.admin.v1 import admin_pb2 as pb

from node.admin.parts import Parts, actor_of
from node.documents.audit_head import open_head
from node.documents.peers import find_peer
from node.documents.receipt import open_receipt
from node.documents.signed import Document, DocumentSigner
from node.domain.audit import AuditEntry, AuditFilter
from node.domain.heads import Witness, own_problem, witnesses
from node.domain.ids import FacilityId
from node.domain.transfers import Transfer, transfer_facts
from node.errors import Conflict, UsageError
from node.rpc.pages import PAGE_BYTES, Pages, write_list
from node.rpc.serving import Call, Service, allow_all


class AuditHandlers:
    """Handlers of AuditService."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

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
        # Before anything is shown: who asks may leave in the middle.
        facts: dict[str, object] = {"limit": call.request.limit}
        await self._parts.audit.note_list("receipts.listed", facts, actor_of(call))
        pages = Pages(call, pb.ListReceiptsResponse(), "receipts")
        rows = self._parts.transfer_store.with_receipts(call.request.limit)
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
            peer_name=self._parts.peer_name(self._parts.trust.peers.get(row.peer)),
            study_instance_uid=row.study_uid,
            instances=receipt.instances,
            plaintext_bytes=receipt.plaintext_bytes,
            received_seconds=int(receipt.received_time),
            reissued=receipt.reissued,
            deleted_seconds=int(row.deleted_time),
        )

    async def _export_receipt(self, call: Call[None]) -> None:
        row = await self._parts.transfer_store.get(call.request.transfer)
        manifest = await self._parts.transfer_store.stored_manifest(row)
        if row.receipt is None or manifest is None:
            raise Conflict(f"transfer {row.name} has no receipt; it is {row.state}")
        facts = transfer_facts(row)
        await self._parts.audit.append("receipt.exported", facts, actor_of(call))
        answer = pb.ExportReceiptResponse(delivery=row.delivery, receipt=row.receipt)
        encoded = manifest.encode()
        for i in range(0, len(encoded), PAGE_BYTES):
            answer.manifest_piece = encoded[i : i + PAGE_BYTES]
            await call.write(answer)
            answer = pb.ExportReceiptResponse()

    async def _list_audit(self, call: Call[None]) -> None:
        audit, request = self._parts.audit, call.request
        if request.open_alarms:
            alarms = await audit.open_alarms(request.limit)
            await write_list(call, pb.ListAuditResponse(), "entries", map(_entry_to_wire, alarms))
            return
        pages = Pages(call, pb.ListAuditResponse(), "entries")
        found = audit.search(await self._filter(request), request.limit)
        async with aclosing(found):
            async for some in found:
                await pages.add(map(_entry_to_wire, some))
        await pages.end()

    async def _filter(self, request: pb.ListAuditRequest) -> AuditFilter:
        study, is_whole = "", False
        if request.study:
            study, is_whole = await self._parts.studies.uid_or_beginning(request.study)
        peer = request.peer and find_peer(await self._parts.peer_store.all(), request.peer)
        return AuditFilter(
            study=study,
            is_whole_study=is_whole,
            peer=str(peer.facility_id) if peer else "",
            operator=request.operator,
            kind=request.kind,
            since_milliseconds=request.since_milliseconds,
            until_milliseconds=request.until_milliseconds,
        )

    async def _acknowledge(self, call: Call[None]) -> pb.AcknowledgeAlarmsResponse:
        through = call.request.through_sequence
        alarms = await self._parts.audit.acknowledge(through, actor_of(call))
        return pb.AcknowledgeAlarmsResponse(alarms=alarms)

    async def _verify_audit(self, call: Call[None]) -> pb.VerifyAuditResponse:
        request: pb.VerifyAuditRequest = call.request
        given = _given(request, self._parts.signer)
        silent: list[str] = []
        if request.ask_witnesses:
            answers = await self._parts.federation.ask_witnesses()
            silent = [self._name(facility) for facility, why in answers.items() if why]
        told = await self._parts.heads.told()
        walk = await self._parts.audit.verify({*(t.sequence for t in told), *given})
        answer = pb.VerifyAuditResponse(
            entries=walk.entries,
            head=walk.head,
            problem=walk.problem,
            witnesses=map(self._witness, witnesses(told, walk.digests)),
            silent=silent,
        )
        for sequence, digest in given.items():
            answer.given_sequence = sequence
            answer.given_problem = own_problem(sequence, digest, walk.digests.get(sequence))
        return answer

    def _witness(self, witness: Witness) -> pb.AuditWitness:
        return pb.AuditWitness(
            facility_id=str(witness.facility),
            display_name=self._name(witness.facility),
            sequence=witness.sequence,
            taken_seconds=int(witness.taken_time),
            told_seconds=int(witness.told_time),
            heard=witness.is_heard,
            problem=witness.problem,
        )

    def _name(self, facility: FacilityId) -> str:
        peer = self._parts.trust.peers.get(facility)
        return self._parts.peer_name(peer) or facility.short()

    async def _get_head(self, _: Call[None]) -> pb.GetAuditHeadResponse:
        encoded = await self._parts.heads.own_head()
        head = open_head(encoded)
        return pb.GetAuditHeadResponse(
            head=encoded,
            sequence=head.sequence,
            digest=head.digest,
            time_milliseconds=head.time_milliseconds,
            facility_id=str(head.facility),
        )

    async def _accept_log(self, call: Call[None]) -> pb.AcceptPeerLogResponse:
        peer = find_peer(await self._parts.peer_store.all(), call.request.facility)
        heads = await self._parts.heads.settle(peer.facility_id, actor_of(call))
        return pb.AcceptPeerLogResponse(display_name=peer.name, heads=heads)


def _given(request: pb.VerifyAuditRequest, signer: DocumentSigner) -> dict[int, bytes]:
    """Return number and digest of the entry to hold the log against, if there is one."""
    if request.head:
        head = open_head(request.head)
        if head.facility != signer.facility_id:
            raise UsageError("that is the head of another facility's audit log")
        return {head.sequence: head.digest}
    return {request.sequence: request.digest} if request.sequence else {}


def _entry_to_wire(entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        sequence=entry.sequence,
        time_milliseconds=entry.time_milliseconds,
        kind=entry.kind,
        body=entry.body,
        operator=entry.operator,
        digest=entry.digest,
    )
