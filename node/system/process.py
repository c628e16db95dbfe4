"""A server process: it runs until it is asked to stop or a write to disk fails.

SIGINT and SIGTERM end it, and so does SIGHUP if its terminal was closed. Any other SIGHUP makes it
read its settings again. If SIGHUP was ignored at the start, as under `nohup`, every SIGHUP does
that: the server and its children outlive the terminal. If systemd started it, systemd is notified
when it serves and when it stops (`sd_notify`).
"""

import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
import trio

from node.errors import SyncFailed
from node.sandbox import children
from node.system import sync_failure

log = structlog.get_logger()


class Stop:
    """The end of a server's run, for the server to wait for."""

    def __init__(self) -> None:
        self._asked = trio.Event()
        self._is_awaited = False
        self._reload = trio.Event()
        self._is_reload_awaited = False

    async def wait(self) -> None:
        """Wait until the server is to stop; it may still shut down in order."""
        self._is_awaited = True
        await self._asked.wait()

    async def wait_reload(self) -> None:
        """Wait until the server is to read its settings again. Asked meanwhile, that counts."""
        self._is_reload_awaited = True
        await self._reload.wait()
        self._reload = trio.Event()

    def ask_reload(self) -> bool:
        """Ask the server to read its settings again; return whether it ever does."""
        self._reload.set()
        return self._is_reload_awaited

    def ask(self) -> bool:
        """Ask the server to stop; return whether it is waiting and was not asked before."""
        is_first = self._is_awaited and not self._asked.is_set()
        self._asked.set()
        return is_first


async def run_until_signal(serve: Callable[[Stop], Awaitable[None]]) -> None:
    """Run a server until SIGINT or SIGTERM, or until its terminal is closed (see above).

    A second such signal ends it without an orderly shutdown.

    Args:
        serve: Opens everything, reports that, waits for the stop, and shuts down in order. If a
            signal comes while it is not waiting, it is cancelled.

    Raises:
        SyncFailed: writing to disk failed; nothing more was acknowledged.
    """
    stop = Stop()
    had_terminal = _has_terminal()
    outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    if outlives:
        children.keep_apart()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for number in signals:
                    is_ours = outlives or had_terminal == _has_terminal()
                    if number == signal.SIGHUP and is_ours:
                        if not stop.ask_reload():
                            log.info("SIGHUP ignored: settings are read at a start only")
                        continue
                    notify("STOPPING=1")
                    log.info("stopping", signal=signal.Signals(number).name)
                    if not stop.ask():
                        nursery.cancel_scope.cancel()

            nursery.start_soon(stop_at_signal)
            with sync_failure.watched(_stopper(nursery)):
                await serve(stop)
            nursery.cancel_scope.cancel()
    if sync_failure.has_failed():
        raise SyncFailed("syncing to disk failed; it stopped and acknowledged nothing more")


def _has_terminal() -> bool:
    """Return whether this process has a terminal that is open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def notify(*lines: str) -> None:
    """Notify the service manager that started this process, if there is one (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as manager:
        manager.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1))


def _stopper(nursery: trio.Nursery) -> Callable[[], None]:
    """Return what stops the server from any thread."""
    token = trio.lowlevel.current_trio_token()

    def stop() -> None:
        log.error("syncing to disk failed; stopping")
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(nursery.cancel_scope.cancel)

    return stop
