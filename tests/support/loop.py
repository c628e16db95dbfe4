"""One trio-asyncio loop for all tests of a process, on a thread of its own.

grpcio has one completion queue a process, and hands events of a finished test to loops that
are closed by then; a node has one loop for its life, and so do the tests.
"""

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import trio
import trio_asyncio

T = TypeVar("T")
LIMIT_SECONDS = 500


class LoopThread:
    """Runs async functions for tests that are not async."""

    def __init__(self) -> None:
        self._ready: Future[trio.lowlevel.TrioToken] = Future()
        self._send: trio.MemorySendChannel[Any]
        threading.Thread(target=trio_asyncio.run, args=(self._main,), daemon=True).start()
        self._token = self._ready.result(10)

    async def _main(self) -> None:
        self._send, receive = trio.open_memory_channel[Any](100)
        self._ready.set_result(trio.lowlevel.current_trio_token())
        async with trio.open_nursery() as nursery:
            async for work, seconds, future in receive:
                nursery.start_soon(self._run, work, seconds, future)

    async def _run(
        self, work: Callable[[], Awaitable[Any]], seconds: float, future: "Future[Any]"
    ) -> None:
        try:
            with trio.fail_after(seconds):
                future.set_result(await work())
        except BaseException as exc:
            future.set_exception(exc)
            if isinstance(exc, trio.Cancelled):
                raise

    def call_soon(self, work: Callable[[], object]) -> None:
        """Call a function on the loop."""
        self._token.run_sync_soon(work)

    def run(self, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Run an async function to its end and return what it returns."""
        future: Future[T] = Future()
        self._token.run_sync_soon(self._send.send_nowait, (work, seconds, future))
        return future.result(seconds + 10)


_thread: LoopThread | None = None


def call_soon(work: Callable[[], object]) -> None:
    """Call a function on the process's loop, which has run something already."""
    assert _thread is not None
    _thread.call_soon(work)


def run(work: Callable[[], Awaitable[T]], seconds: float = LIMIT_SECONDS) -> T:
    """Run an async function on the process's loop, for so many seconds at most."""
    global _thread
    if _thread is None:
        _thread = LoopThread()
    return _thread.run(work, seconds)
