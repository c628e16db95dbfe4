"""A server process: one in its home, until it is told to stop or writing to disk has failed."""

import ctypes
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
import trio

from node import failure
from node.errors import ConfigError, StoreLocked, SyncFailed

log = structlog.get_logger()


async def run_until_signal(serve: Callable[[], Awaitable[None]]) -> None:
    """Run a server until SIGINT or SIGTERM.

    Args:
        serve: Opens everything, says so, and sleeps for ever; it is cancelled to stop.

    Raises:
        SyncFailed: writing to disk failed; nothing more was acknowledged.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    nursery.cancel_scope.cancel()
                    return

            nursery.start_soon(stop_at_signal)
            with failure.watched(_stopper(nursery)):
                await serve()
    if failure.has_failed():
        raise SyncFailed("syncing to disk failed; it stopped and acknowledged nothing more")


def _stopper(nursery: trio.Nursery) -> Callable[[], None]:
    """Return what stops the server from any thread."""
    token = trio.lowlevel.current_trio_token()

    def stop() -> None:
        log.error("syncing to disk failed; stopping")
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(nursery.cancel_scope.cancel)

    return stop


@contextmanager
def locked(home: Path, name: str) -> Iterator[None]:
    """Hold a home for this process; the kernel lets go of it when the process ends.

    Raises:
        StoreLocked: another process holds it.
        ConfigError: it is not ours to use.
    """
    try:
        fd = os.open(home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigError(f"{home} cannot be used ({exc.strerror})") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreLocked(f"another process is using {home}") from exc
        yield
    finally:
        os.close(fd)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def tune_memory() -> None:
    """Have glibc keep large blocks instead of mapping and unmapping each.

    *Measured*: with its defaults the page faults of fresh 4 MiB blocks cost more than the
    cipher. Other C libraries ignore this.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)
        libc.mallopt(_M_ARENA_MAX, 2)
