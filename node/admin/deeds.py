"""The deed of each method of the admin services, and the guard that checks the caller's roles."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from node.access.deeds import Deed, check
from node.domain.actors import Visitor
from node.errors import Denied
from node.rpc.serving import Call, Guard

_BY_DEED: Mapping[Deed, Mapping[str, Sequence[str]]] = {
    Deed.SEE_NODE: {
        "NodeService": ("GetStatus", "GetIdentity", "Diagnose"),
        "PeerService": ("ListPeers", "ListStringPairings"),
        "NetworkService": ("ListNetworks", "FindFacilities"),
    },
    Deed.SEE_STUDIES: {
        "StudyService": ("ListStudies", "Query", "GetStudy", "ListHeld", "ListImports"),
        "TransferService": ("ListTransfers", "WatchTransfers"),  # offers name patients
    },
    Deed.SEE_AUDIT: {
        "AuditService": (
            "ListReceipts",
            "ExportReceipt",
            "ListAudit",
            "VerifyAudit",
            "GetAuditHead",
        ),
    },
    Deed.BRING_IN: {"StudyService": ("Import",)},
    Deed.DECIDE: {
        "StudyService": ("DecideHeld", "DiscardImport"),
        "TransferService": ("DecideOffer",),
    },
    Deed.SEND: {"TransferService": ("Send", "SendStudies", "CancelTransfer")},
    Deed.TAKE_OUT: {"StudyService": ("ExportStudy",)},
    Deed.DELETE: {"StudyService": ("DeleteStudy",)},
    Deed.TRUST: {
        "PeerService": ("PairPeer", "BeginStringPairing", "ConfirmStringPairing", "RemovePeer"),
        "NetworkService": ("JoinNetwork", "LeaveNetwork"),
        "AuditService": ("AcceptPeerLog",),
    },
    Deed.KEEP: {
        "NodeService": (
            "CheckStore",
            "Backup",
            "ConfirmClock",
            "PreviewRetention",
            "ApplyRetention",
        ),
        "AuditService": ("AcknowledgeAlarms",),
    },
}

DEEDS: Mapping[str, Deed] = MappingProxyType(
    {
        f"emix.admin.v1.{service}/{method}": deed
        for deed, services in _BY_DEED.items()
        for service, methods in services.items()
        for method in methods
    }
)
"""The deed of each method, by its path without the first slash."""


_STANDARD = ("grpc.health.", "grpc.reflection.")  # they show how the node is, and no more


def _deed(path: str) -> Deed:
    """Return the deed of a method.

    Raises:
        Denied: the method has no deed, so nobody may call it.
    """
    if path.startswith(_STANDARD):
        return Deed.SEE_NODE
    if path not in DEEDS:
        raise Denied("this method has no deed in node/admin/deeds.py, so nobody may call it")
    return DEEDS[path]


def allowing(guard: Guard) -> Guard:
    """Return a guard that accepts callers whom the door's guard accepts and whose roles suffice.

    The door assigns the roles; the client's own claims do not.
    """

    async def allowed(call: Call[Any]) -> Visitor:
        visitor: Visitor = await guard(call)
        check(visitor.roles, _deed(call.method.path.removeprefix("/")))
        return visitor

    return allowed
