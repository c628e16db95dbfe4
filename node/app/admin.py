"""Joins the admin services: use cases on the stores, handlers on the use cases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from node.admin.audit import AuditHandlers
from node.admin.deeds import allowing
from node.admin.exports import Exporting
from node.admin.networks import NetworkHandlers
from node.admin.node import About, Diagnose, NodeHandlers
from node.admin.peers import PeerHandlers
from node.admin.studies import StudyHandlers
from node.admin.transfers import TransferHandlers
from node.domain.transfers import Transfer
from node.exchange.auditing import Auditing
from node.exchange.catalogue import Catalogue
from node.exchange.events import Feed
from node.exchange.export.exports import Exports
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.waiting import WaitingImports
from node.exchange.keeping import Keeping
from node.exchange.membership.facilities import Facilities
from node.exchange.membership.meeting import Meeting
from node.exchange.membership.networks import Networks
from node.exchange.membership.pairing import Pairing
from node.exchange.studies import Studies
from node.exchange.transfer.lists import TransferLists
from node.exchange.transfer.transfers import Transfers
from node.federation.connections.supervisor import Federation
from node.federation.directory.directories import Directories
from node.federation.routes.lan import Lan
from node.rpc.serving import Guard, Service
from node.rpc.standard import with_standard_services
from node.store.audit import AuditStore
from node.store.catalogue import CatalogueStore
from node.store.clock_notes import ClockNotes
from node.store.context import StoreContext
from node.store.exporting import Exporter
from node.store.heads import HeadStore
from node.store.imports import ImportStore
from node.store.maintenance import Maintenance
from node.store.retention import RetentionStore
from node.store.studies import StudyStore
from node.store.transfers import TransferStore


@dataclass(frozen=True)
class AdminStores:
    """The stores on which the admin services' use cases work."""

    audit: AuditStore
    heads: HeadStore
    studies: StudyStore
    imports: ImportStore
    transfers: TransferStore
    maintenance: Maintenance
    retention: RetentionStore
    clock_notes: ClockNotes


def admin_services(
    *,
    about: About,
    home: Path,
    context: StoreContext,
    stores: AdminStores,
    facilities: Facilities,
    imports: Imports,
    transfers: Transfers,
    changes: Feed[Transfer],
    pairing: Pairing,
    networks: Networks,
    near: Lan,
    federation: Federation,
    directories: Directories,
    diagnose: Diagnose,
) -> list[Service]:
    """Return what the admin socket serves, without its guard; see `guarded`."""
    audit = stores.audit
    lists = TransferLists(stores.transfers, transfers, changes, federation, facilities, audit)
    waiting = WaitingImports(stores.imports, audit)
    auditing = Auditing(
        audit, stores.heads, stores.transfers, stores.studies, facilities, federation.ask_witnesses
    )
    keeping = Keeping(stores.maintenance, stores.retention, stores.clock_notes, audit)
    exporting = Exporting(Exports(Exporter(context, stores.studies)), facilities, home)
    handlers = (
        NodeHandlers(about, keeping, auditing, facilities, pairing, lists, waiting, diagnose),
        PeerHandlers(facilities, pairing, Meeting(pairing, networks, near), federation, lists),
        NetworkHandlers(networks, facilities, directories.way),
        StudyHandlers(
            imports,
            waiting,
            Studies(stores.studies, facilities),
            Catalogue(CatalogueStore(context, audit)),
            exporting,
            facilities,
        ),
        TransferHandlers(transfers, lists, facilities, waiting),
        AuditHandlers(auditing, facilities),
    )
    return [one.service() for one in handlers]


def guarded(own: Sequence[Service], guard: Guard) -> list[Service]:
    """Return services behind a door's guard, reflection and health included.

    For each call, the guard checks that the caller's roles allow the method.
    """
    guard = allowing(guard)
    return [replace(service, guard=guard) for service in with_standard_services(list(own))]
