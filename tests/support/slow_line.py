"""A slow line between two nodes: a proxy with delay and rate, for benches and tests."""

import threading
from typing import Self

import trio

from tests.support.nodes import Node

DELAY_SECONDS, LINE_BYTES = 0.020, 50e6 / 8


class SlowLine:
    """A TCP proxy with delay and rate, each direction for itself.

    `rate` is in bytes a second, and may be changed while the line is in use.
    """

    def __init__(self, port: int, target: int, rate: float = LINE_BYTES) -> None:
        self._port, self._target = port, target
        self.rate = rate
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(trio.serve_tcp, self._handle, self._port)
                self._ready.set()

    async def _handle(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far)
            nursery.start_soon(self._pump, far, near)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](64)

        async def deliver() -> None:
            async for due, data in receive:
                await trio.sleep_until(due)
                await sink.send_all(data)
            await sink.send_eof()

        free = trio.current_time()
        try:
            async with trio.open_nursery() as nursery, send:
                nursery.start_soon(deliver)
                async for data in source:
                    free = max(free, trio.current_time()) + len(data) / self.rate
                    await trio.sleep_until(free)
                    await send.send((free + DELAY_SECONDS, bytes(data)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def only_through(a: Node, b: Node, address: str) -> None:
    """Have A reach B by the slow line, and B not reach A at all."""
    a.run("peers", "pair", str(b.home.with_suffix(".emix")), "--endpoint", address)
    b.run("peers", "pair", str(a.home.with_suffix(".emix")), "--endpoint", "127.0.0.1:1")
    pause = threading.Event()
    for _ in range(300):
        peer = a.json("peers")["peers"][0]
        if peer["state"] == "connected" and peer["endpoint"] == address:
            return
        pause.wait(0.1)
    raise TimeoutError("not connected by the slow line")
