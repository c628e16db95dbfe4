"""The running node: composes the parts, and nothing else.

There is one nursery tree: a peer's failure stays in that peer's supervisor, and a failing store
stops the node with an error. Shutdown: stop accepting, give running calls two seconds, close the
store.
"""

import gc
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
import trio
import trio_asyncio

from node.admin.node import About
from node.app.admin import AdminStores, admin_services, guarded
from node.app.config import Config, changed_settings, load_config
from node.app.current import Current
from node.app.doctor import Doctor
from node.app.expanding import ParserExpander
from node.app.gauges import NodeGauges
from node.app.home import Home, Unlocked, unlock
from node.app.housekeeping import ChunkVerifier, ClockWatch, Housekeeper, TrustKeeper
from node.app.moving_chunks import move_chunks
from node.app.opening import open_home_store
from node.app.statements import Addresses, OwnIdentity, Statements
from node.dicom.examiner import Examiner, open_examiner
from node.domain.events import DialBackAsked, NetworksChanged, PinsChanged, TicketShown
from node.domain.ids import FacilityId
from node.errors import NodeError, ungrouped
from node.exchange.events import Events, Feed, TransferFeed
from node.exchange.ingest.imports import Imports
from node.exchange.membership.authority import Authority
from node.exchange.membership.facilities import Facilities
from node.exchange.membership.memberships import Memberships
from node.exchange.membership.networks import Networks
from node.exchange.membership.pairing import Pairing
from node.exchange.membership.record_cache import RecordCache
from node.exchange.transfer.receiving import Receiver
from node.exchange.transfer.sending import Sender
from node.exchange.transfer.transfers import Transfers
from node.federation.connections.capabilities import Capabilities
from node.federation.connections.deletions import DeletionReports
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.connections.introduction_service import IntroductionService
from node.federation.connections.list_exchange import ListExchange
from node.federation.connections.peer_service import ExchangeServer
from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Pinned, Trust
from node.federation.connections.witnessing import Witnessing
from node.federation.directory.directories import Directories
from node.federation.routes.dialing import Dialer, resolve_names_apart
from node.federation.routes.lan import Lan
from node.federation.routes.relaying import Relaying, remove_ways
from node.proxy import read_proxy
from node.rpc.credentials import renewed_credentials, server_credentials
from node.rpc.descriptors import fitted, raise_limit
from node.rpc.door import MAX_CALLS, opened_door
from node.rpc.serving import (
    EXCHANGE_OPTIONS,
    INTRODUCTION_OPTIONS,
    Service,
    serve,
)
from node.rpc.warden import ConnectionBounds, Warden
from node.store.arrivals import ArrivalStore
from node.store.audit import AuditStore
from node.store.chunk_access import ChunkAccess
from node.store.clock_notes import ClockNotes
from node.store.context import StoreContext
from node.store.deletions import DeletionStore
from node.store.heads import HeadStore
from node.store.imports import ImportStore
from node.store.maintenance import Maintenance
from node.store.needs import installed
from node.store.networks import NetworkStore
from node.store.peers import PeerStore
from node.store.records import RecordStore
from node.store.retention import RetentionStore
from node.store.studies import StudyStore
from node.store.transfers import TransferStore
from node.store.verification import Verification
from node.system import clock, sync_failure
from node.system.memory import tune_memory
from node.system.process import Stop, notify, run_until_signal
from node.telemetry.logs import configure_logs, use_level
from node.telemetry.metrics import served_metrics
from node.version import SOFTWARE

log = structlog.get_logger()
_MIB = 2**20
_DAY_SECONDS = 86400.0
_PEER_CONNECTIONS = ConnectionBounds(unknown_of_origin=64, unknown_seconds=30)
_INTRODUCTION_CONNECTIONS = ConnectionBounds(unknown_of_origin=16, unknown_seconds=30)
_PEER_CALLS = 2048  # every peer watches with one; what one may have is bounded elsewhere
_PEER_REQUESTS = 8  # of one peer on their way: each may be as large as a frame until it is read
_LAST_WORD_SECONDS = 10.0  # for the entry that says that the node stopped
_STRANGER_SECONDS = 10.0  # for a request of a stranger to arrive


@dataclass(frozen=True)
class Running:
    """A node that runs.

    Attributes:
        addresses: Where its services are bound.
        use: Takes other settings; returns those that need a restart.
    """

    addresses: Addresses
    use: Callable[[Config], Awaitable[list[str]]]


def run_node(home: Home, passphrase: bytes | None) -> None:
    """Run a node until SIGINT or SIGTERM.

    Raises:
        NodeError: it could not start, or the store failed; the message says what to do.
    """
    tune_memory()
    raise_limit()
    os.umask(0o077)
    config = load_config(home.config)
    configure_logs(config.log_level)
    with home.locked():
        unlocked = unlock(home, passphrase)
        with ungrouped():
            trio_asyncio.run(
                run_until_signal, lambda stop: _serve_until_stopped(home, config, unlocked, stop)
            )


async def _serve_until_stopped(home: Home, config: Config, unlocked: Unlocked, stop: Stop) -> None:
    async with open_node(home, config, unlocked) as running:
        gc.freeze()  # modules and services are here for good: no collection need walk them
        peer, introduction = running.addresses.peer, running.addresses.introduction
        log.info("node serves", peer=peer, introduction=introduction)
        ready = ("READY=1", f"STATUS=peers connect to {peer}")
        notify(*ready)
        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                while True:
                    await stop.wait_reload()
                    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
                    await _reload(home, running)
                    notify(*ready)

            nursery.start_soon(reload)
            await stop.wait()
            nursery.cancel_scope.cancel()


async def _reload(home: Home, running: "Running") -> None:
    """Take the settings anew that can be taken while the node runs."""
    try:
        config = await trio.to_thread.run_sync(load_config, home.config)
        left = await running.use(config)
    except NodeError as exc:
        log.warning("settings not taken", reason=str(exc))
    else:
        log.info("settings taken", left_for_a_restart=", ".join(left))


@asynccontextmanager
async def open_node(home: Home, config: Config, unlocked: Unlocked) -> AsyncGenerator[Running]:
    """Run a node for the time of the block, in a home that this process has locked."""
    async with AsyncExitStack() as stack:
        examiner = await stack.enter_async_context(open_examiner(required=config.required_layers))
        for layer, why in examiner.denied.items():
            log.warning("the kernel denies parsers a layer", layer=layer, reason=why)
        context = open_home_store(home, config, unlocked, expander=ParserExpander(examiner))
        stack.callback(context.close)
        with context.ballast.in_need():  # files are made at a start, a certificate perhaps
            node = _Node(home, config, unlocked, context, examiner)
            addresses = await node.start(stack)
        yield Running(addresses, node.use)


class _Node:
    """The parts of one running node, made in an order in which each depends on earlier ones only.

    A later part learns of an earlier part's changes by subscribing to events
    (`node.domain.events`).
    """

    def __init__(
        self,
        home: Home,
        config: Config,
        unlocked: Unlocked,
        context: StoreContext,
        examiner: Examiner,
    ) -> None:
        self._home = home
        self._examiner = examiner
        self._unlocked = unlocked
        self._context = context
        self._started_time = clock.now()
        self._events = events = Events()
        self._changes = TransferFeed()
        self._current = Current(config)
        self._own = OwnIdentity(home, unlocked)
        self._statements = Statements(self._own, self._current)
        self._peer_door = Warden(_PEER_CONNECTIONS)
        self._introduction_door = Warden(_INTRODUCTION_CONNECTIONS)
        self._make_stores()
        networks = NetworkStore(context)
        self._memberships = Memberships(networks, trusts_members=config.trust == "network")
        self._trust = Trust(self._own.tls(), self._memberships.distrust)
        self._dialer = Dialer(read_proxy(config.proxy, config.proxy_credentials))
        self._pairing = Pairing(
            self._peers,
            IntroductionClient(self._dialer),
            context.facility,
            self._statements.encoded,
            events.publish,
        )
        record_cache = RecordCache(RecordStore(context), context.facility)
        authority = Authority(
            networks, self._memberships, record_cache, self._pairing, events.publish
        )
        self._directories = Directories(
            signer=unlocked.signer,
            statements=self._statements.encoded,
            listing=self._statements.listing,
            interests=self._trust.trusted_facilities,
            authority=authority,
            publish=events.publish,
            dialer=self._dialer,
        )
        self._networks = Networks(
            networks,
            self._memberships,
            self._directories,
            authority,
            record_cache,
            self._pairing,
            unlocked.signer.signer.facility_key,
            events.publish,
        )
        self._connect(authority)
        self._subscribe()

    def _make_stores(self) -> None:
        context = self._context
        self._peers = PeerStore(context)
        self._transfer_store = TransferStore(context, self._changes.publish_soon)
        self._arrivals = ArrivalStore(context, self._transfer_store)
        self._deletions = DeletionStore(context, self._changes.publish_soon)
        self._maintenance = Maintenance(context, self._home.root)
        self._audit = AuditStore(context)
        self._clock_notes = ClockNotes(context.database)
        self._retention = RetentionStore(context, self._current.config.retention_days)
        self._heads = HeadStore(context)
        self._studies = StudyStore(context)
        self._import_store = ImportStore(context, is_small=self._current.is_small())

    def _connect(self, authority: Authority) -> None:
        """Make the parts that connect to peers."""
        context, config = self._context, self._current.config
        self._relaying = Relaying(
            me=self._unlocked.signer.node_id,
            home=self._home.root,
            peer_service=self._statements.own_peer_service,
            networks=self._memberships,
            tickets=self._directories,
            admit=self._networks.admit,
            report_forgery=authority.report_forgery,
            policy=self._current.relay_policy,
            dialer=self._dialer,
            tls=config.relay_tls,
            brought=self._peer_door.brought,
        )
        self._near = near = Feed[FacilityId]()
        self._lan = Lan(
            context.facility,
            self._unlocked.signer.node_id,
            lambda facility: near.publish(facility, facility),
        )
        self._list_exchange = ListExchange(self._memberships, self._networks.accept_passed_list)
        self._witnessing = Witnessing(self._heads)
        self._deletion_reports = DeletionReports(self._deletions, self._current.reports_deletions)
        self._capabilities = Capabilities(installed())
        self._federation = Federation(
            identity=self._own.tls,
            trust=self._trust,
            peer_statements=self._pairing,
            statements=self._statements.encoded,
            ask_dial_back=self._directories.ask_dial_back,
            memberships=self._memberships.presented,
            dialer=self._dialer,
            lan=self._lan,
            relaying=self._relaying,
            list_exchange=self._list_exchange,
            witnessing=self._witnessing,
            deletions=self._deletion_reports,
            capabilities=self._capabilities,
            admit=self._networks.admit,
        )

    def _subscribe(self) -> None:
        self._keeper = TrustKeeper(
            Pinned(self._trust, self._peers.all),
            self._trust,
            self._peers,
            self._federation,
            self._memberships,
            self._directories,
        )
        self._events.subscribe(PinsChanged, self._keeper.pins_changed)
        self._events.subscribe(NetworksChanged, self._keeper.networks_changed)
        self._events.subscribe(DialBackAsked, self._federation.dial_back)
        self._events.subscribe(TicketShown, self._relaying.accept_ticket)

    async def start(self, stack: AsyncExitStack) -> Addresses:
        """Start everything; it ends when the stack is closed."""
        config = self._current.config
        resolve_names_apart()
        removed = await self._maintenance.tidy_at_start()
        if removed:
            log.info("removed chunks that nothing names", chunks=removed)
        await self._audit.note_start(SOFTWARE)
        stack.push_async_callback(self._note_stop)
        await self._memberships.load()
        await self._keeper.pins_changed(PinsChanged())
        self._make_transfers()
        remove_ways(self._home.root)
        # Outlives the services: peers that came by relay hear from them that we stop.
        relaying = await stack.enter_async_context(trio.open_nursery())
        stack.callback(relaying.cancel_scope.cancel)
        relaying.start_soon(self._relaying.run)
        await self._serve(stack, self._admin_services())
        gauges = NodeGauges(
            self._home.root,
            self._maintenance,
            self._heads,
            self._trust,
            self._federation,
            (self._peer_door, self._introduction_door),
        )
        stack.enter_context(served_metrics(config.metrics_listen, gauges))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await self._run(nursery)
        return self._statements.addresses

    def _make_transfers(self) -> None:
        config, carrier = self._current.config, ChunkAccess(self._context)
        self._receiver = Receiver(
            me=self._context.facility,
            seal_keys=self._unlocked.secrets.seal_keys,
            store=self._arrivals,
            transfers=self._transfer_store,
            carrier=carrier,
            examiner=self._examiner,
            policy=self._current.receiver_policy(),
            clock=clock.now,
            replaced_since=self._trust.replaced_since,
            installed=installed(),
        )
        self._transfers = Transfers(
            signer=self._unlocked.signer,
            book=self._transfer_store,
            sender=Sender(self._transfer_store, carrier),
            receiver=self._receiver,
            links=self._federation,
            offer_seconds=config.offer_days * _DAY_SECONDS,
            changes=self._changes,
            has_summaries=config.offer_summary == "sealed",
        )

    async def _run(self, nursery: trio.Nursery) -> None:
        """Start what runs for the life of the node."""
        nursery.start_soon(self._federation.run, self._transfers)
        await self._keeper.networks_changed(NetworksChanged())
        if self._current.config.lan == "on":
            addresses = self._statements.addresses
            nursery.start_soon(self._dial_the_near)
            nursery.start_soon(self._lan.run, addresses.peer, addresses.introduction)
        housekeeper = Housekeeper(
            self._current,
            self._context.ballast,
            self._transfers,
            self._transfer_store,
            self._retention,
            self._maintenance,
        )
        nursery.start_soon(self._directories.run)
        nursery.start_soon(self._networks.keep_remembering)
        nursery.start_soon(housekeeper.run)
        verifier = ChunkVerifier(Verification(self._context))
        nursery.start_soon(verifier.run)
        nursery.start_soon(self._transfers.watch_overdue)
        nursery.start_soon(self._keeper.run)
        nursery.start_soon(ClockWatch(self._clock_notes).run)
        nursery.start_soon(
            move_chunks, self._context.storage, self._maintenance.chunks_here, self._audit.append
        )
        nursery.start_soon(self._own.keep_fresh, self._trust.use)

    async def _dial_the_near(self) -> None:
        with self._near.subscribed() as seen:
            while True:
                self._federation.dial(await seen.next(), by_peer=False)

    async def use(self, config: Config) -> list[str]:
        """Apply the settings that can change now; return those that need a restart."""
        changed = self._current.use(config)
        if changed:
            await self._audit.append("node.settings-changed", {"settings": changed})
        now = self._current.config
        self._receiver.use_policy(self._current.receiver_policy())
        self._transfers.use_offer_seconds(now.offer_days * _DAY_SECONDS)
        self._context.storage.use_reserve(now.reserve_mib * _MIB)
        self._retention.use_days(now.retention_days)
        self._import_store.use_compression(is_small=self._current.is_small())
        use_level(now.log_level)
        return changed_settings(now, config)

    async def _note_stop(self) -> None:
        if not sync_failure.has_failed():
            with trio.move_on_after(_LAST_WORD_SECONDS, shield=True):
                await self._audit.append("node.stopped", {})
                await self._clock_notes.note()

    async def _serve(self, stack: AsyncExitStack, own: list[Service]) -> None:
        config = self._current.config
        exchange = ExchangeServer(
            self._trust,
            self._transfers,
            self._pairing,
            self._statements.encoded,
            self._federation,
            self._list_exchange,
            self._witnessing,
            self._deletion_reports,
            self._capabilities,
            self._peer_door,
        )
        peer_port = await stack.enter_async_context(
            serve(
                [exchange.service()],
                config.peer_listen,
                credentials=server_credentials(self._trust.snapshot),
                options=fitted(EXCHANGE_OPTIONS, 1 / 2),
                door=self._peer_door,
                max_calls=_PEER_CALLS,
                requests_of_caller=_PEER_REQUESTS,
            )
        )
        introduction = IntroductionService(
            self._statements.encoded, self._pairing, self._networks.presented
        )
        introduction_port = await stack.enter_async_context(
            serve(
                [introduction.service()],
                config.introduction_listen,
                credentials=renewed_credentials(self._own.tls),
                options=fitted(INTRODUCTION_OPTIONS, 1 / 4),
                door=self._introduction_door,
                request_seconds=_STRANGER_SECONDS,
            )
        )
        wardens = await stack.enter_async_context(trio.open_nursery())
        stack.callback(wardens.cancel_scope.cancel)
        wardens.start_soon(self._peer_door.run, peer_port)
        wardens.start_soon(self._introduction_door.run, introduction_port)
        self._statements.bound_at(
            Addresses(
                _with_port(config.peer_listen, peer_port),
                _with_port(config.introduction_listen, introduction_port),
            )
        )
        door = await stack.enter_async_context(opened_door(self._home.door))
        await stack.enter_async_context(
            serve(guarded(own, door.guard), door.inside, max_calls=MAX_CALLS)
        )
        group = await trio.to_thread.run_sync(self._home.admit_group, config.admin_group)
        await stack.enter_async_context(door.accepting(self._home.socket, group))

    def _admin_services(self) -> list[Service]:
        config = self._current.config
        doctor = Doctor(
            self._home,
            self._context,
            self._audit,
            self._heads,
            self._trust,
            self._federation,
            self._examiner,
            self._networks,
            self._directories,
            self._retention,
            self._import_store,
            config.admin_group,
            self._statements.announced,
        )
        signer = self._unlocked.signer
        stores = AdminStores(
            self._audit,
            self._heads,
            self._studies,
            self._import_store,
            self._transfer_store,
            self._maintenance,
            self._retention,
            self._clock_notes,
        )
        about = About(
            signer.facility_id,
            signer.node_id,
            config.display_name,
            self._started_time,
            self._statements.encoded,
            self._statements.bound,
        )
        facilities = Facilities(
            signer.facility_id, config.display_name, self._trust, self._peers, self._networks
        )
        return admin_services(
            about=about,
            home=self._home.root,
            context=self._context,
            stores=stores,
            facilities=facilities,
            imports=Imports(self._import_store, self._examiner, self._events.publish),
            transfers=self._transfers,
            changes=self._changes,
            pairing=self._pairing,
            networks=self._networks,
            near=self._lan,
            federation=self._federation,
            directories=self._directories,
            diagnose=doctor.diagnose,
        )


def _with_port(listen: str, port: int) -> str:
    return f"{listen.rpartition(':')[0]}:{port}"
