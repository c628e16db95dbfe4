"""The running node: joins the parts and nothing else.

One nursery tree: a peer's failure stays in that peer's supervisor, a failing store stops the
node loudly. Shutdown: stop accepting, give running calls two seconds, close the store.
"""

import gc
import math
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
import trio
import trio_asyncio

from node.admin.audit import AuditHandlers
from node.admin.networks import NetworkHandlers
from node.admin.node import NodeHandlers
from node.admin.parts import Parts
from node.admin.peers import PeerHandlers
from node.admin.studies import StudyHandlers
from node.admin.transfers import TransferHandlers
from node.app.config import Config, changed_settings, load_config, taken_while_running
from node.app.doctor import Doctor
from node.app.home import Home, Unlocked, unlock
from node.app.statements import OwnIdentity
from node.dicom.examiner import open_examiner
from node.documents.identity import Profile
from node.documents.network import Listing, Network
from node.domain.ids import FacilityId
from node.domain.relays import RelayPolicy
from node.domain.transfers import Transfer
from node.errors import NodeError, PeerUnreachable, StoreError, ungrouped
from node.exchange.membership.networks import Networks
from node.exchange.membership.pairing import Pairing
from node.exchange.membership.record_cache import Remembered
from node.exchange.transfer.ports import ReceiverPolicy
from node.exchange.transfer.receiving import Receiver
from node.exchange.transfer.sending import Sender
from node.exchange.transfer.transfers import Transfers
from node.federation.connections.deletions import DeletionNews
from node.federation.connections.introduction_client import Introducer
from node.federation.connections.introduction_service import IntroductionServer
from node.federation.connections.list_exchange import ListSharing
from node.federation.connections.peer_service import PROTOCOL_VERSION, ExchangeServer
from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Pinned, Trust
from node.federation.connections.witnessing import Witnessing
from node.federation.directory.directories import Directories
from node.federation.routes.dialing import Dialer, reachable, resolve_names_apart
from node.federation.routes.lan import Lan
from node.federation.routes.relaying import Relaying, remove_ways
from node.proxy import read_proxy
from node.rpc.credentials import renewed_credentials, server_credentials
from node.rpc.descriptors import fitted, raise_limit
from node.rpc.door import MAX_CALLS, opened_door
from node.rpc.serving import (
    AGE_OPTIONS,
    INTRODUCTION_OPTIONS,
    PEER_OPTIONS,
    Guard,
    Service,
    serve,
)
from node.rpc.standard import with_standard_services
from node.rpc.warden import ConnectionBounds, Warden
from node.store.arrivals import ArrivalStore
from node.store.audit import AuditStore
from node.store.chunk_access import ChunkCarrier
from node.store.clock_notes import ClockNotes
from node.store.context import StoreContext, open_store
from node.store.deletions import DeletionStore
from node.store.exporting import Exporter
from node.store.heads import HeadStore
from node.store.imports import ImportStore
from node.store.maintenance import Maintenance
from node.store.networks import NetworkStore
from node.store.peers import PeerStore
from node.store.records import RecordStore
from node.store.retention import RetentionStore
from node.store.studies import StudyStore
from node.store.transfers import TransferStore
from node.system import clock, sync_failure
from node.system.process import Stop, notify, run_until_signal, tune_memory
from node.telemetry.logs import configure_logs, use_level
from node.telemetry.metrics import Gauges, served_metrics
from node.version import SOFTWARE

log = structlog.get_logger()
_GIB, _MIB = 2**30, 2**20
_DAY_SECONDS, _HOUR_SECONDS = 86400.0, 3600.0
_AGAIN_SECONDS = 600.0
_TRUST_SECONDS = 30.0
_CLOCK_SECONDS = 5.0
_NOTE_SECONDS = 600.0
_PEER_CONNECTIONS = ConnectionBounds(unknown_of_origin=64, unknown_seconds=30)
_INTRODUCTION_CONNECTIONS = ConnectionBounds(unknown_of_origin=16, unknown_seconds=30)
_PEER_CALLS = 2048  # every peer watches with one; what one may have is bounded elsewhere
_PEER_REQUESTS = 8  # of one peer on their way: each may be as large as a frame until it is read
_LAST_WORD_SECONDS = 10.0  # for the entry that says that the node stopped
_STRANGER_SECONDS = 10.0  # for a request of a stranger to arrive


@dataclass(frozen=True)
class Addresses:
    """Where the node's services are bound."""

    peer: str
    introduction: str


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
    context = open_store(
        home.root,
        unlocked.root_key,
        unlocked.secrets,
        unlocked.signer,
        reserve_bytes=config.reserve_mib * _MIB,
        ballast_bytes=config.ballast_mib * _MIB,
    )
    try:
        async with AsyncExitStack() as stack:
            with context.ballast.in_need():  # files are made at a start, a certificate perhaps
                node = _Node(home, config, unlocked, context)
                addresses = await node.start(stack)
            yield Running(addresses, node.use)
    finally:
        context.close()


class _Node:
    """The parts of one node while it runs."""

    def __init__(
        self, home: Home, config: Config, unlocked: Unlocked, context: StoreContext
    ) -> None:
        self._home = home
        self._config = config
        self._unlocked = unlocked
        self._context = context
        self._started_time = clock.now()
        self._addresses = Addresses("", "")
        self._peer_door = Warden(_PEER_CONNECTIONS)
        self._introduction_door = Warden(_INTRODUCTION_CONNECTIONS)
        self._own = OwnIdentity(home, unlocked)
        self._trust = Trust(self._own.tls(), lambda peer: self._networks.distrust(peer))
        self._peer_store = PeerStore(context)
        self._pinned = Pinned(self._trust, self._peer_store.all)
        self._transfer_store = TransferStore(context)
        self._arrivals = ArrivalStore(context, self._transfer_store)
        self._maintenance = Maintenance(context, home.root)
        self._audit = AuditStore(context)
        self._clock_notes = ClockNotes(context.database)
        self._retention = RetentionStore(context, config.retention_days)
        self._heads = HeadStore(context)
        self._witnessing = Witnessing(self._heads)
        self._deletions = DeletionStore(context)
        self._deletion_news = DeletionNews(
            self._deletions, lambda: self._config.tell_deletions == "senders"
        )
        self._studies = StudyStore(context)
        self._dialer = Dialer(read_proxy(config.proxy, config.proxy_credentials))
        self._lan = Lan(context.facility, unlocked.signer.node_id, self._seen_near)
        introducer = Introducer(self._dialer)
        self._pairing = Pairing(self._peer_store, introducer, context.facility, self._statements)
        self._pairing.on_change = self._pins_changed
        self._directories = Directories(
            signer=unlocked.signer,
            statements=self._statements,
            listing=self._listing,
            interests=self._trusted_facilities,
            dial=self._dial,
            take_ticket=lambda network, half: self._relaying.took_ticket(network, half),
            dialer=self._dialer,
        )
        self._relaying = Relaying(
            me=unlocked.signer.node_id,
            home=home.root,
            peer_service=lambda: _local(self._addresses.peer),
            let_in=lambda facility: self._networks.let_in(facility),
            is_allowed=self._is_relay_allowed,
            dialer=self._dialer,
            tls=config.relay_tls,
            brought=self._peer_door.brought,
        )
        self._networks = Networks(
            NetworkStore(context),
            self._directories,
            Remembered(RecordStore(context), context.facility),
            self._pairing,
            unlocked.signer.signer.facility_key,
            trusts_members=config.trust == "network",
        )
        self._networks.on_change = self._networks_changed
        self._sharing = ListSharing(self._networks)

    async def start(self, stack: AsyncExitStack) -> Addresses:
        """Start everything; it ends when the stack is closed."""
        config, context = self._config, self._context
        resolve_names_apart()
        removed = await self._maintenance.tidy_at_start()
        if removed:
            log.info("removed chunks that nothing names", chunks=removed)
        await self._audit.note_start(SOFTWARE)
        stack.push_async_callback(self._note_stop)
        await self._networks.load()
        await self._pinned.refresh()
        examiner = await stack.enter_async_context(open_examiner(required=config.required_layers))
        for layer, why in examiner.denied.items():
            log.warning("the kernel denies parsers a layer", layer=layer, reason=why)
        carrier = ChunkCarrier(context)
        federation = Federation(
            identity=self._own.tls,
            trust=self._trust,
            news=self._pairing,
            statements=self._statements,
            ask_dial_back=self._directories.ask_dial_back,
            memberships=self._networks.memberships,
            dialer=self._dialer,
            lan=self._lan,
            relaying=self._relaying,
            sharing=self._sharing,
            witnessing=self._witnessing,
            deletions=self._deletion_news,
            ask_ticket=self._ask_ticket,
            is_networked=lambda: bool(self._networks.all()),
            alarm=self._networks.was_fooled,
        )
        receiver = Receiver(
            me=context.facility,
            seal_keys=self._unlocked.secrets.seal_keys,
            store=self._arrivals,
            transfers=self._transfer_store,
            carrier=carrier,
            examiner=examiner,
            policy=_policy(config),
            clock=clock.now,
            replaced_since=self._trust.replaced_since,
        )
        transfers = Transfers(
            signer=self._unlocked.signer,
            book=self._transfer_store,
            sender=Sender(self._transfer_store, carrier),
            receiver=receiver,
            links=federation,
            offer_seconds=config.offer_days * _DAY_SECONDS,
            has_summaries=config.offer_summary == "sealed",
        )
        self._federation, self._receiver, self._transfers = federation, receiver, transfers
        self._tell_changes(transfers)
        parts = self._parts(examiner, transfers, federation)
        exchange = ExchangeServer(
            self._trust,
            transfers,
            self._pairing,
            self._statements,
            federation,
            self._sharing,
            self._witnessing,
            self._deletion_news,
            self._peer_door,
        )
        remove_ways(self._home.root)
        # Outlives the services: peers that came by relay hear from them that we stop.
        relaying = await stack.enter_async_context(trio.open_nursery())
        stack.callback(relaying.cancel_scope.cancel)
        relaying.start_soon(self._relaying.run)
        await self._serve(stack, parts, exchange)
        gauges = partial(self._gauges, trio.lowlevel.current_trio_token())
        stack.enter_context(served_metrics(config.metrics_listen, gauges))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(federation.run, transfers)
        await self._networks_changed()
        if config.lan == "on":
            nursery.start_soon(self._lan.run, self._addresses.peer, self._addresses.introduction)
        nursery.start_soon(self._directories.run, self._networks)
        nursery.start_soon(self._networks.keep_remembering)
        nursery.start_soon(self._look_after, transfers)
        nursery.start_soon(transfers.watch_overdue)
        nursery.start_soon(self._keep_trust_fresh)
        nursery.start_soon(self._watch_clock)
        nursery.start_soon(self._own.keep_fresh, self._trust.use)
        return self._addresses

    async def use(self, config: Config) -> list[str]:
        """Take what can change of these settings; return what needs a restart."""
        before, self._config = self._config, taken_while_running(self._config, config)
        changed = changed_settings(before, self._config)
        if changed:
            await self._audit.append("node.settings-changed", {"settings": changed})
        self._receiver.use_policy(_policy(self._config))
        self._transfers.use_offer_seconds(self._config.offer_days * _DAY_SECONDS)
        self._context.storage.use_reserve(self._config.reserve_mib * _MIB)
        self._retention.days = self._config.retention_days
        use_level(self._config.log_level)
        return changed_settings(self._config, config)

    async def _note_stop(self) -> None:
        if not sync_failure.has_failed():
            with trio.move_on_after(_LAST_WORD_SECONDS, shield=True):
                await self._audit.append("node.stopped", {})
                await self._clock_notes.note()

    async def _serve(self, stack: AsyncExitStack, parts: Parts, exchange: ExchangeServer) -> None:
        config = self._config
        peer_port = await stack.enter_async_context(
            serve(
                [exchange.service()],
                config.peer_listen,
                credentials=server_credentials(self._trust.snapshot),
                options=fitted((*PEER_OPTIONS, *AGE_OPTIONS), 1 / 2),
                door=self._peer_door,
                max_calls=_PEER_CALLS,
                requests_of_caller=_PEER_REQUESTS,
            )
        )
        introduction_port = await stack.enter_async_context(
            serve(
                [
                    IntroductionServer(
                        self._statements, self._pairing, self._networks.presented
                    ).service()
                ],
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
        self._addresses = Addresses(
            _with_port(config.peer_listen, peer_port),
            _with_port(config.introduction_listen, introduction_port),
        )
        door = await stack.enter_async_context(opened_door(self._home.door))
        await stack.enter_async_context(
            serve(admin_services(parts, door.guard), door.inside, max_calls=MAX_CALLS)
        )
        group = await trio.to_thread.run_sync(self._home.let_in, config.admin_group)
        await stack.enter_async_context(door.accepting(self._home.socket, group))

    def _parts(self, examiner: Any, transfers: Transfers, federation: Federation) -> Parts:
        imports = ImportStore(self._context)
        doctor = Doctor(
            self._home,
            self._context,
            self._audit,
            self._heads,
            self._trust,
            federation,
            examiner,
            self._networks,
            self._directories,
            self._retention,
            imports,
            self._config.admin_group,
            lambda: {
                "peer service": self._profile().endpoints,
                "introduction": self._profile().introduction_endpoints,
            },
        )
        return Parts(
            home=self._home.root,
            display_name=self._config.display_name,
            signer=self._unlocked.signer,
            started_time=self._started_time,
            imports=imports,
            examiner=examiner,
            studies=self._studies,
            exporter=Exporter(self._context, self._studies),
            transfer_store=self._transfer_store,
            transfers=transfers,
            peer_store=self._peer_store,
            pairing=self._pairing,
            lan=self._lan,
            networks=self._networks,
            directories=self._directories,
            federation=federation,
            trust=self._trust,
            audit=self._audit,
            heads=self._heads,
            maintenance=self._maintenance,
            retention=self._retention,
            clock_notes=self._clock_notes,
            statements=self._statements,
            endpoints=lambda: (self._addresses.peer, self._addresses.introduction),
            diagnose=doctor.diagnose,
        )

    def _peer_states(self) -> Counter[str]:
        peers = [p for p in self._trust.peers.values() if not p.is_removed]
        return Counter(self._federation.connection(p.facility_id).state for p in peers)

    def _gauges(self, token: trio.lowlevel.TrioToken) -> Gauges:
        """Return the metrics; called on a thread of the HTTP server's.

        What the database says is read there, what the node's tasks change in trio's thread.
        """
        counts = self._maintenance.counts_sync()
        states = trio.from_thread.run_sync(self._peer_states, trio_token=token)
        meanings = {
            "studies": "Studies in the store",
            "instances": "Instances in the store",
            "sealed_bytes": "Sealed bytes in the store",
            "free_bytes": "Bytes that still fit, the reserve left out",
            "lost_chunks": "Chunks that are missing or damaged on this disk",
            "held_instances": "Instances that wait for a person",
            "unfinished_imports": "Imports that run or were not finished",
            "alarms": "Alarms in the audit log that nobody has acknowledged",
        }
        gauges: dict[str, Any] = {
            name: (text, {(): float(counts[name])}) for name, text in meanings.items()
        }
        transfers = self._maintenance.transfers_sync()
        gauges["transfers"] = (
            "Transfers by direction and state",
            {(("direction", d), ("state", s)): float(n) for (d, s), n in transfers.items()},
        )
        gauges["peers"] = (
            "Paired facilities by state of their connection",
            {(("state", state),): float(n) for state, n in states.items()},
        )
        gauges["connections_ended"] = (
            "Connections of peers and strangers that were ended since the start: too many of one",
            {(): float(self._peer_door.ended + self._introduction_door.ended)},
        )
        log = self._heads.confirmed_sync()
        gauges["audit_unconfirmed_seconds"] = (
            "Age of the oldest audit entry that no other facility confirms; 0 if there is none",
            {(): log.unconfirmed_seconds(clock.now())},
        )
        gauges["audit_contradictions"] = (
            "Heads that other facilities keep of the audit log, and that it does not fit",
            {(): float(log.contradictions)},
        )
        return gauges

    def _tell_changes(self, transfers: Transfers) -> None:
        token = trio.lowlevel.current_trio_token()

        def on_change(row: Transfer) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(transfers.changes.tell, row.id, row)

        self._transfer_store.on_change = on_change
        self._deletions.on_change = on_change

    async def _pins_changed(self) -> None:
        for peer in await self._pinned.refresh():
            await self._peer_store.alarm(peer.facility_id, self._trust.why_not(peer))
        self._federation.refresh()

    async def _networks_changed(self) -> None:
        self._directories.refresh(self._networks.all())
        await self._pins_changed()

    async def _keep_trust_fresh(self) -> None:
        """See to it that whose membership has run out is let go: time changes no pin."""
        while True:
            await trio.sleep(_TRUST_SECONDS)
            await self._pins_changed()

    async def _watch_clock(self) -> None:
        """Raise an alarm where the clock is suspect, and note the time that is believed."""
        was_suspect, noted = False, -math.inf
        while True:
            doubt, now = clock.CLOCK.doubt, trio.current_time()
            try:
                if doubt and not was_suspect:
                    log.warning("the clock is suspect", why=doubt)
                    await self._clock_notes.alarm(doubt)
                elif was_suspect and not doubt:
                    log.info("the clock is believed again")
                    await self._clock_notes.confirmed("itself, or another facility's")
                    noted = now
                elif now - noted >= _NOTE_SECONDS:
                    await self._clock_notes.note()
                    noted = now
                was_suspect = bool(doubt)
            except StoreError as exc:  # a full disk: tried again
                log.warning("the time could not be noted", code=exc.code.value)
            await trio.sleep(_CLOCK_SECONDS)

    def _trusted_facilities(self) -> list[FacilityId]:
        return [p.facility_id for p in self._trust.peers.values() if self._trust.is_trusted(p)]

    def _is_relay_allowed(self, relay: str) -> bool:
        return self._relay_policy().allows(relay)

    def _relay_policy(self) -> RelayPolicy:
        return RelayPolicy(self._config.relay == "never", self._config.only_relays)

    async def _ask_ticket(self, facility: FacilityId) -> tuple[Network, bytes]:
        policy = self._relay_policy()
        if policy.is_never:
            raise PeerUnreachable("no direct way, and the policy allows no relay")
        return await self._directories.ask_ticket(facility, policy.only, self._relaying.avoided())

    def _seen_near(self, facility: FacilityId) -> None:
        self._federation.dial(facility, by_peer=False)

    async def _dial(self, facility: FacilityId) -> None:
        if await self._networks.let_in(facility):
            self._federation.dial(facility)

    async def _look_after(self, transfers: Transfers) -> None:
        """Every hour: what has expired, and retention. A full disk ends nothing here."""
        while True:
            pause = _HOUR_SECONDS
            try:
                await self._look_once(transfers)
            except StoreError as exc:  # a failed sync ends the node by itself
                log.warning("looking after the store failed; again soon", code=exc.code.value)
                pause = _AGAIN_SECONDS
            await trio.sleep(pause)

    async def _look_once(self, transfers: Transfers) -> None:
        await trio.to_thread.run_sync(self._context.ballast.fill)
        if clock.CLOCK.doubt:
            return  # the alarm says so, and nothing ends by such a clock
        expired = await transfers.expire()
        if expired:
            log.info("transfers expired", transfers=expired)
        if self._config.transfers_days:
            forgotten = await self._transfer_store.forget_old(self._config.transfers_days)
            if forgotten:
                log.info("old transfers forgotten", transfers=forgotten)
        step = await self._retention.step()
        if step.announced or step.deleted:
            log.info("retention", announced=step.announced, deleted=step.deleted)

    def _profile(self) -> Profile:
        config = self._config
        return Profile(
            display_name=config.display_name,
            endpoints=config.announce or reachable(self._addresses.peer),
            introduction_endpoints=config.announce_introduction
            or reachable(self._addresses.introduction),
            issued_seconds=self._own.stated_seconds,
        )

    def _listing(self) -> Listing:
        config = self._config
        return Listing(
            city=config.city,
            departments=config.departments,
            recipients=config.recipients,
            software=SOFTWARE,
            protocol_version=PROTOCOL_VERSION,
            issued_seconds=self._own.stated_seconds,
            relays=self._relay_policy(),
        )

    def _statements(self) -> bytes:
        return self._own.statements(self._profile())


def admin_services(parts: Parts, guard: Guard) -> list[Service]:
    """Return what the admin socket serves, reflection and health included, behind its guard."""
    own = [
        NodeHandlers(parts).service(),
        PeerHandlers(parts).service(),
        NetworkHandlers(parts).service(),
        StudyHandlers(parts).service(),
        TransferHandlers(parts).service(),
        AuditHandlers(parts).service(),
    ]
    return [replace(service, guard=guard) for service in with_standard_services(own)]


def _policy(config: Config) -> ReceiverPolicy:
    return ReceiverPolicy(config.incoming == "ask", config.quota_gib * _GIB)


def _with_port(listen: str, port: int) -> str:
    return f"{listen.rpartition(':')[0]}:{port}"


def _local(address: str) -> str:
    """Return how we ourselves reach an address that is bound here."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, address)  # noqa: S104
