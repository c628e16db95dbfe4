"""What each method of the admin services does, and the guard that asks whether its caller may."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from node.access.deeds import Deed, check
from node.domain.actors import Visitor
from node.rpc.serving import Call, Guard

_BY_DEED = {
    Deed.SEE_NODE: "NodeService: GetStatus GetIdentity Diagnose PeerService: ListPeers"
    " ListStringPairings NetworkService: ListNetworks FindFacilities TransferService: ListTransfers"
    " WatchTransfers",
    Deed.SEE_STUDIES: "StudyService: ListStudies Query GetStudy ListHeld ListImports",
    Deed.SEE_AUDIT: "AuditService: ListReceipts ExportReceipt ListAudit VerifyAudit GetAuditHead",
    Deed.BRING_IN: "StudyService: Import",
    Deed.DECIDE: "StudyService: DecideHeld DiscardImport TransferService: DecideOffer",
    Deed.SEND: "TransferService: Send CancelTransfer",
    Deed.TAKE_OUT: "StudyService: ExportStudy",
    Deed.DELETE: "StudyService: DeleteStudy",
    Deed.TRUST: "PeerService: PairPeer BeginStringPairing ConfirmStringPairing RemovePeer"
    " NetworkService: JoinNetwork LeaveNetwork AuditService: AcceptPeerLog",
    Deed.KEEP: "NodeService: CheckStore Backup ConfirmClock PreviewRetention ApplyRetention"
    " AuditService: AcknowledgeAlarms",
}


def _table() -> dict[str, Deed]:
    found, service = {}, ""
    for deed, text in _BY_DEED.items():
        for word in text.split():
            if word.endswith(":"):
                service = word.removesuffix(":")
            else:
                found[f"emix.admin.v1.{service}/{word}"] = deed
    return found


DEEDS: Mapping[str, Deed] = MappingProxyType(_table())
"""By the path of the method, without its first slash."""


def allowing(guard: Guard) -> Guard:
    """Return a guard that lets in whom a door's guard knows and whose roles allow the method.

    What is in no table, such as health and reflection, shows how the node is. The roles are those
    that the door gives; what a client says of itself gives none.
    """

    async def allowed(call: Call[Any]) -> Visitor:
        visitor: Visitor = await guard(call)
        check(visitor.roles, DEEDS.get(call.method.path.removeprefix("/"), Deed.SEE_NODE))
        return visitor

    return allowed
