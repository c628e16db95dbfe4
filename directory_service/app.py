"""The running directory: joins the parts and nothing else."""

import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
import trio
import trio_asyncio

from directory_service.admin import AdminServer
from directory_service.home import Config, Home
from directory_service.registry import Registry
from directory_service.service import DirectoryServer
from directory_service.sessions import Sessions
from directory_service.sqlite import SqliteEngine
from directory_service.storage import Engine, Storage
from node import failure
from node.crypto.certificates import fingerprint
from node.crypto.digests import derive_key
from node.errors import SyncFailed, ungrouped
from node.rpc.credentials import introduction_credentials
from node.rpc.serving import ADMIN_OPTIONS, DIRECTORY_OPTIONS, Service, allow_all, serve
from node.rpc.standard import health_service, reflection_service
from node.telemetry.logs import configure_logs
from node.telemetry.metrics import Gauges, served_metrics

log = structlog.get_logger()
MAX_CALLS = 40_000
"""Every node that watches is a call."""


def run_directory(home: Home) -> None:
    """Run a directory until SIGINT or SIGTERM.

    Raises:
        NodeError: it could not start, or its database failed; the message says what to do.
    """
    os.umask(0o077)
    config = home.load_config()
    configure_logs(config.log_level)
    with home.locked(), ungrouped():
        trio_asyncio.run(_run_until_signal, home, config)


async def _run_until_signal(home: Home, config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    nursery.cancel_scope.cancel()
                    return

            nursery.start_soon(stop_at_signal)
            with failure.watched(_stopper(nursery)):
                async with open_directory(home, config) as endpoint:
                    log.info("directory serves", nodes=endpoint)
                    await trio.sleep_forever()
    if failure.has_failed():
        raise SyncFailed("syncing to disk failed; the directory stopped")


def _stopper(nursery: trio.Nursery) -> Callable[[], None]:
    token = trio.lowlevel.current_trio_token()
    return lambda: token.run_sync_soon(nursery.cancel_scope.cancel)


@asynccontextmanager
async def open_directory(home: Home, config: Config) -> AsyncGenerator[str]:
    """Run a directory for the time of the block, in a home that this process has locked.

    Yields:
        The address where nodes connect.
    """
    key = home.key()
    tls, root = home.tls(), home.root_certificate()
    async with AsyncExitStack() as stack:
        storage = Storage(await _open_engine(home, config, key))
        stack.push_async_callback(_close, storage)
        registry = Registry(config.network_key)
        server = DirectoryServer(
            name=config.name,
            root_digest=fingerprint(root),
            registry=registry,
            storage=storage,
            sessions=Sessions(key),
        )
        await server.load()
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(server.run)
        port = await stack.enter_async_context(
            serve(
                [server.service(), health_service(allow_all)],
                config.listen,
                credentials=introduction_credentials(tls),
                options=DIRECTORY_OPTIONS,
                max_calls=MAX_CALLS,
            )
        )
        endpoint = f"{config.listen.rpartition(':')[0]}:{port}"
        admin = AdminServer(config.name, registry, endpoint, tls.certificate_der, time.time)
        home.socket.unlink(missing_ok=True)
        await stack.enter_async_context(
            serve(
                _admin_services(admin.service()),
                f"unix:{home.socket.resolve()}",
                options=ADMIN_OPTIONS,
            )
        )
        home.socket.chmod(0o600)
        stack.callback(home.socket.unlink, missing_ok=True)
        stack.enter_context(served_metrics(config.metrics_listen, lambda: _gauges(registry)))
        yield endpoint


async def _open_engine(home: Home, config: Config, key: bytes) -> Engine:
    if not config.database:
        return SqliteEngine(home.database, derive_key("emix 2026-11 directory database v1", key))
    from directory_service.postgres import open_postgres  # an extra of the package

    return await open_postgres(config.database)


async def _close(storage: Storage) -> None:
    with trio.CancelScope(shield=True):
        await storage.aclose()


def _admin_services(admin: Service) -> list[Service]:
    names = [admin.descriptor.full_name, "grpc.health.v1.Health"]
    return [admin, health_service(allow_all), reflection_service(names, allow_all)]


def _gauges(registry: Registry) -> Gauges:
    meanings = {
        "facilities": "Facilities that are members or provisional",
        "nodes": "Nodes whose announcement stands",
        "online": "Nodes that watch here now",
    }
    counts: dict[str, Any] = registry.counts
    return {f"directory_{k}": (text, {(): float(counts[k])}) for k, text in meanings.items()}
