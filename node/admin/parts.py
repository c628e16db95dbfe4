"""What the admin services work on: the node's parts, as `node.app` joins them."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from node.documents.peers import Peer
from node.documents.signed import DocumentSigner
from node.domain.actors import Actor, Visitor
from node.domain.findings import Finding
from node.domain.ids import LEAST_CHARACTERS, FacilityId
from node.domain.names import several_named
from node.exchange.catalogue import Catalogue
from node.exchange.export.exports import Exports
from node.exchange.ingest.imports import Imports
from node.exchange.membership.networks import Networks
from node.exchange.membership.pairing import Pairing
from node.exchange.transfer.transfers import Transfers
from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Trust
from node.federation.directory.directories import Directories
from node.federation.routes.lan import Lan
from node.rpc.serving import Call
from node.store.audit import AuditStore
from node.store.clock_notes import ClockNotes
from node.store.exporting import Exporter, ExportPlan
from node.store.heads import HeadStore
from node.store.imports import ImportStore
from node.store.maintenance import Maintenance
from node.store.origins import OWN
from node.store.peers import PeerStore
from node.store.retention import RetentionStore
from node.store.studies import StudyStore
from node.store.transfers import TransferStore

MOST_HELD = 100
"""So many held instances are named beside what was done with a study."""

_ID = re.compile(rf"[A-Z2-7-]{{{LEAST_CHARACTERS},}}", re.IGNORECASE)
"""What begins an ID is one, whoever is called so."""


@dataclass(frozen=True)
class Parts:
    """The node's parts."""

    home: Path
    display_name: str
    signer: DocumentSigner
    started_time: float
    imports: Imports
    import_store: ImportStore
    studies: StudyStore
    catalogue: Catalogue
    exporter: Exporter
    exports: Exports[ExportPlan]
    transfer_store: TransferStore
    transfers: Transfers
    peer_store: PeerStore
    pairing: Pairing
    lan: Lan
    networks: Networks
    directories: Directories
    federation: Federation
    trust: Trust
    audit: AuditStore
    heads: HeadStore
    maintenance: Maintenance
    retention: RetentionStore
    clock_notes: ClockNotes
    statements: Callable[[], bytes]
    endpoints: Callable[[], tuple[str, str]]
    diagnose: "Diagnose"

    def names(self) -> dict[bytes, str]:
        """Return the names of this facility and of those pinned here, by id."""
        names = {p.facility_id.digest: p.name for p in self.trust.peers.values()}
        names[self.signer.facility_id.digest] = self.display_name
        return names

    def origin_named(self, text: str) -> str:
        """Return an origin as the store takes it: a facility's name here becomes its ID.

        Raises:
            Conflict: several are called so.
        """
        if text.casefold() == OWN or _ID.fullmatch(text):
            return text
        names = {FacilityId(digest): name for digest, name in self.names().items()}
        found = {f: name for f, name in names.items() if name.casefold() == text.casefold()}
        if len(found) > 1:
            raise several_named(found)
        return str(next(iter(found))) if found else text

    def peer_name(self, peer: Peer | None) -> str:
        """Return a peer's name; empty for nobody."""
        return peer.name if peer else ""


class Diagnose(Protocol):
    """Looks for what is wrong; `node.app.doctor` does."""

    async def __call__(self, *, is_quick: bool) -> list[Finding]:
        """Return one finding for everything that was looked at; quickly, nothing is dialled."""


def may_name_paths(call: Call[Any]) -> bool:
    """Whether the node opens what its caller names; if not, the caller has to open it itself."""
    return _visitor(call).shares_rights_with(os.geteuid())


def actor_of(call: Call[Any]) -> Actor:
    """Return who asks: whom the door knows, and what the command says."""
    return _visitor(call).actor(call.metadata.get("emix-operator", ""))


def _visitor(call: Call[Any]) -> Visitor:
    if not isinstance(call.caller, Visitor):
        raise TypeError("the admin services need the door's guard")
    return call.caller
