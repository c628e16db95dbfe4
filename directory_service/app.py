"""The running directory: joins the parts and nothing else."""

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio
import trio_asyncio

from directory_service.admin import AdminServer
from directory_service.alarms import Alarms
from directory_service.bus import Bus, NoBus
from directory_service.home import Config, Home, bus_key, database_key
from directory_service.registry import Registry
from directory_service.relay.service import A_MINUTE_OF_STRANGER, Limits, Relay, serve_relay
from directory_service.replica import Replica
from directory_service.rotation import settle
from directory_service.service import MOVE_SECONDS, DirectoryServer
from directory_service.sessions import Sessions, SpentHere
from directory_service.sqlite import SqliteEngine
from directory_service.storage import Engine, Storage
from node.crypto.certificates import fingerprint, validity
from node.errors import ConfigError, ungrouped
from node.rpc.credentials import introduction_credentials
from node.rpc.descriptors import fitted, raise_limit
from node.rpc.serving import DIRECTORY_OPTIONS, serve
from node.rpc.standard import health_service, with_standard_services
from node.rpc.unix import unix_address
from node.rpc.warden import ConnectionBounds, Warden
from node.system.process import Stop, notify, run_until_signal
from node.telemetry.logs import configure_logs
from node.telemetry.metrics import Gauges, served_metrics

log = structlog.get_logger()
MAX_CALLS = 40_000
"""Every node that watches is a call."""

_REQUEST_SECONDS = 15.0
_CLOSE_SECONDS = 15.0
_NODES_TO_STRANGERS = 4  # a hospital group has more nodes than nodes that want a relay at once


def run_directory(home: Home) -> None:
    """Run a directory until SIGINT or SIGTERM.

    Raises:
        NodeError: it could not start, or its database failed; the message says what to do.
    """
    os.umask(0o077)
    raise_limit()
    config = home.load_config()
    configure_logs(config.log_level)
    with home.locked(), ungrouped():
        settle(home)
        trio_asyncio.run(run_until_signal, lambda stop: _serve_until_stopped(home, config, stop))


async def _serve_until_stopped(home: Home, config: Config, stop: Stop) -> None:
    async with open_directory(home, config) as running:
        log.info("directory serves", listen=running.endpoint)
        notify("READY=1", f"STATUS=nodes connect to {running.endpoint}")
        await stop.wait()
        await running.leave()


def run_relay(
    address: str, listen: str, network_key: bytes, limits: Limits, metrics_listen: str = ""
) -> None:
    """Run a standalone relay until SIGINT or SIGTERM, at any facility that the network trusts.

    Raises:
        NodeError: it could not start.
    """
    configure_logs("info")
    raise_limit()

    async def relaying(stop: Stop) -> None:
        alarms = Alarms()
        relay = Relay(address, network_key, limits, alarms=alarms)
        token = trio.lowlevel.current_trio_token()
        read = partial(_relay_gauges, relay, alarms)
        gauges = partial(trio.from_thread.run_sync, read, trio_token=token)
        with served_metrics(metrics_listen, gauges):
            async with serve_relay(relay, listen):
                log.info("relay serves", listen=listen)
                notify("READY=1", f"STATUS=nodes connect to {listen}")
                await stop.wait()
                await relay.leave()

    with ungrouped():
        trio.run(run_until_signal, relaying)


@dataclass(frozen=True)
class Running:
    """A directory that runs.

    Attributes:
        endpoint: Where nodes connect.
        leave: Asks its nodes to go elsewhere, and waits a moment until they have.
    """

    endpoint: str
    leave: Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_directory(home: Home, config: Config) -> AsyncGenerator[Running]:
    """Run a directory for the time of the block, in a home that this process has locked."""
    key = home.key()
    tls, root = home.tls(), home.root_certificate()
    async with AsyncExitStack() as stack:
        engine, bus = await _open_engine(home, config, key)
        storage = Storage(engine)
        stack.push_async_callback(_close, storage)
        registry = Registry(config.network_key)
        replica = Replica(registry, storage, bus, time.time, home.kept_list)
        alarms, unnamed = Alarms(), home.unnamed_relays()
        door = Warden(_connection_bounds(config))
        server = DirectoryServer(
            name=config.name,
            root_digest=fingerprint(root),
            replica=replica,
            spend=storage.spend if bus.is_shared else SpentHere().spend,
            sessions=Sessions(key, is_alone=not bus.is_shared),
            tickets=home.tickets(),
            relays=[relay for relay in config.relays if relay not in unnamed],
            alarms=alarms,
            door=door,
            strangers_a_minute=config.strangers_a_minute,
        )
        await replica.load()
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(replica.run)
        service = server.service()
        # Without the database calls are answered from memory only: no node can join or log in.
        health = {service.descriptor.full_name: lambda: not replica.is_database_away}
        port = await stack.enter_async_context(
            serve(
                [service, health_service(server.guard_stranger, health, is_public=True)],
                config.listen,
                credentials=introduction_credentials(tls),
                options=fitted(DIRECTORY_OPTIONS, 2 / 3),
                door=door,
                max_calls=MAX_CALLS,
                request_seconds=_REQUEST_SECONDS,
                grace_seconds=MOVE_SECONDS + 2,
            )
        )
        nursery.start_soon(door.run, port)
        relay = None
        if config.relay_listen:
            if not config.relays:
                raise ConfigError("[relay] addresses must begin with this relay's public address")
            relay = Relay(config.relays[0], config.network_key, _limits(config), alarms=alarms)
            await stack.enter_async_context(serve_relay(relay, config.relay_listen))
        endpoint = f"{config.listen.rpartition(':')[0]}:{port}"
        admin = AdminServer(
            config.name, replica, endpoint, tls.certificate_der, time.time, relay, alarms, unnamed
        )
        home.socket.unlink(missing_ok=True)
        await stack.enter_async_context(
            serve(with_standard_services([admin.service()]), unix_address(home.socket.resolve()))
        )
        home.socket.chmod(0o600)
        stack.callback(home.socket.unlink, missing_ok=True)
        read = partial(_gauges, replica, tls.certificate_der, relay, alarms)
        # What it counts changes in the loop, and the page is asked for on another thread.
        gauges = partial(
            trio.from_thread.run_sync, read, trio_token=trio.lowlevel.current_trio_token()
        )
        stack.enter_context(served_metrics(config.metrics_listen, gauges))

        async def leave() -> None:
            server.say_move()  # and the service's end waits until they are gone
            if relay is not None:
                await relay.leave()

        yield Running(endpoint, leave)


async def _open_engine(home: Home, config: Config, key: bytes) -> tuple[Engine, Bus]:
    if not config.database:
        return SqliteEngine(home.database, database_key(key)), NoBus()
    from directory_service.postgres import PostgresBus, open_postgres  # an extra of the package

    secret = bus_key(key)
    engine = await open_postgres(config.database, secret)
    return engine, PostgresBus(config.database, engine, secret)


async def _close(storage: Storage) -> None:
    with trio.move_on_after(_CLOSE_SECONDS, shield=True):
        await storage.aclose()


def _connection_bounds(config: Config) -> ConnectionBounds:
    # When thousands of nodes come at once, after a start, some wait a minute for their login.
    return ConnectionBounds(
        unknown_of_origin=_NODES_TO_STRANGERS * config.strangers_at_once,
        unknown_seconds=120,
        of_account=4,
    )


def _limits(config: Config) -> Limits:
    return Limits(
        streams_of_facility=config.streams_of_facility,
        bytes_of_facility=config.gib_of_facility * 2**30,
        bytes_a_second=config.mbit_a_second * 10**6 // 8,
        unknown_of_address=config.strangers_at_once,
        a_minute_of_address=config.strangers_at_once * A_MINUTE_OF_STRANGER,
    )


def _gauges(replica: Replica, certificate: bytes, relay: Relay | None, alarms: Alarms) -> Gauges:
    latest = replica.registry.view.latest
    counts = {
        **replica.registry.counts,
        "database_away": int(replica.is_database_away),
        "certificate_expires_seconds": int(validity(certificate)[1]),
        "list_expires_seconds": int(latest.expires_time) if latest else 0,
    }
    return {**_named(counts), **_relay_gauges(relay, alarms)}


def _relay_gauges(relay: Relay | None, alarms: Alarms) -> Gauges:
    counts = {f"relay_{k}": v for k, v in relay.figures.counts.items()} if relay else {}
    return _named({**counts, "alarms": alarms.total})


def _named(values: Mapping[str, int]) -> Gauges:
    return {f"directory_{k}": (_MEANINGS[k], {(): float(v)}) for k, v in values.items()}


_MEANINGS = {
    "facilities": "Facilities that are members or provisional",
    "nodes": "Nodes whose announcement has not expired",
    "online": "Nodes that are connected to the directory now",
    "alarms": "Refused replays and refused uses of leaked join letters",
    "database_away": "1 if the last database request failed",
    "certificate_expires_seconds": "Unix time at which the TLS certificate expires",
    "list_expires_seconds": "Unix time at which the network's newest list expires; 0 without one",
    "relay_pairs": "Pairs of connections relayed since the start",
    "relay_open_pairs": "Pairs of connections relayed now",
    "relay_bytes": "Bytes relayed since the start",
    "relay_refused": "Connections refused by the relay since the start",
}
