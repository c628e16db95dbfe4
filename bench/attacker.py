"""A paired peer that does its worst, as a process of its own: `python -m bench.attacker FOLDER`.

It writes its statements into the folder, and takes orders on its standard input: `ATTACK ADDRESS`
begins an attack and ends the one before it; the end of input ends it. `theirs.statements` is the
victim's identity. It is started on one core, at the lowest priority.
"""

import queue
import secrets
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
import trio_asyncio
from emix.exchange.v1 import exchange_pb2 as pb
from emix.introduction.v1 import introduction_pb2 as introduction

from node.documents.delivery import open_delivery
from node.documents.identity import Identity
from node.documents.messages import Answer, ChunkFrame, ManifestFrame, Offer, Want, Withdraw
from node.errors import NodeError, PeerBusy
from node.rpc.calling import Channel
from node.rpc.methods import Method, method
from tests.integration.attacks.exhaustion import again, promise
from tests.support.hostile import HELLO, WATCH, Forgery, HostilePeer, hello

HEADS = method(
    pb.DESCRIPTOR.services_by_name["ExchangeService"],
    "GetAuditHeads",
    pb.GetAuditHeadsRequest,
    pb.GetAuditHeadsResponse,
)
GET_STATEMENTS = method(
    introduction.DESCRIPTOR.services_by_name["IntroductionService"],
    "GetStatements",
    introduction.GetStatementsRequest,
    introduction.GetStatementsResponse,
)

FLOODS = ("heads", "hello", "resets", "watch", "introduction")
"""Attacks by calls that are refused."""

_TASKS = 16
_FLOOD_CONNECTIONS, _FLOOD_STREAMS = 8, 16  # what one peer may have
_LARGE_CHUNKS = 10_000
_CHUNK_BYTES = 4 * 2**20


class Attacker:
    """One peer's attacks; each runs in many tasks, again and again."""

    def __init__(self, peer: HostilePeer, identity: Identity) -> None:
        self._peer = peer
        self._identity = identity
        self._small = promise(peer, identity, chunks=1)
        self._large: list[Forgery] = []
        noise = secrets.token_bytes(_CHUNK_BYTES)
        self._frames = [noise[: 2 * 2**20], noise[2 * 2**20 :]]

    def prepare(self) -> None:
        """Make what takes long before an attack begins."""
        self._large = [promise(self._peer, self._identity, chunks=_LARGE_CHUNKS) for _ in range(3)]

    async def calls(self, channel: Channel) -> None:
        """Open a transfer and say nothing."""
        async with self._peer.carry(channel, self._identity):
            await trio.lowlevel.checkpoint()

    async def offers(self, channel: Channel) -> None:
        """Offer something new and take it back at once."""
        forgery = again(self._small, self._identity)
        async with self._peer.carry(channel, self._identity) as link:
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            await link.receive()
        async with self._peer.carry(channel, self._identity) as link:
            await link.send(Withdraw(open_delivery(forgery.delivery).transfer_id))
            await link.receive()

    async def manifests(self, channel: Channel) -> None:
        """Have a large manifest read, and go."""
        forgery = again(secrets.choice(self._large), self._identity)
        encoded = forgery.manifest.encode()
        async with self._peer.carry(channel, self._identity) as link:
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            answer = await link.receive()
            if not isinstance(answer, Answer) or not answer.is_manifest_needed:
                return
            for i in range(0, len(encoded), 2**20):
                await link.send(ManifestFrame(encoded[i : i + 2**20]))
            await link.receive()

    async def chunks(self, channel: Channel) -> None:
        """Have chunks wanted, and send others of the same length."""
        forgery = promise(
            self._peer,
            self._identity,
            chunks=4,
            chunk_bytes=_CHUNK_BYTES,
            plaintext_bytes=_CHUNK_BYTES,
        )
        async with self._peer.carry(channel, self._identity) as link:
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            await link.receive()
            await link.send(ManifestFrame(forgery.manifest.encode()))
            wanted = await link.receive()
            if isinstance(wanted, Want):
                for chunk_id in wanted.chunk_ids:
                    await link.send(ChunkFrame(chunk_id, self._frames[0]))
                    await link.send(ChunkFrame(None, self._frames[1]))
                await link.receive()

    async def heads(self, channel: Channel) -> None:
        """Ask for what is kept of audit logs, which is refused after some times."""
        await self._call(channel, HEADS, pb.GetAuditHeadsRequest())

    async def hello(self, channel: Channel) -> None:
        """Say Hello, which is refused after some times."""
        await self._call(channel, HELLO, hello())

    async def resets(self, channel: Channel) -> None:
        """Say Hello, and take the call back (CVE-2023-44487 is this, at full speed)."""
        with trio.move_on_after(0.05):
            await self.hello(channel)

    async def watch(self, channel: Channel) -> None:
        """Open a watch, which ends the one before it."""
        with suppress(PeerBusy):
            async with channel.stream(WATCH, pb.WatchRequest()) as stream:
                await stream.read()

    async def introduction(self, channel: Channel) -> None:
        """Ask who the victim is, as strangers do."""
        await self._call(channel, GET_STATEMENTS, introduction.GetStatementsRequest())

    async def _call(self, channel: Channel, rpc: Method[Any, Any], request: Any) -> None:
        with suppress(PeerBusy):  # the flood goes on, on the same connection
            await channel.unary(rpc, request, timeout=10)

    async def run(self, name: str, address: str) -> None:
        """Attack one of a victim's services for ever."""
        step: Callable[[Channel], Awaitable[None]] = getattr(self, name)
        victim: Any = SimpleNamespace(addresses={"peer": address})
        async with trio.open_nursery() as nursery:
            shape = (_FLOOD_CONNECTIONS, _FLOOD_STREAMS) if name in FLOODS else (_TASKS, 1)
            for _ in range(shape[0]):
                nursery.start_soon(self._repeat, step, victim, shape[1])

    async def _repeat(
        self, step: Callable[[Channel], Awaitable[None]], victim: Any, streams: int
    ) -> None:
        async def go_on(channel: Channel) -> None:
            while True:
                await step(channel)

        while True:
            try:
                async with (
                    self._peer.channel(victim, self._identity) as channel,
                    trio.open_nursery() as nursery,
                ):
                    for _ in range(streams):
                        nursery.start_soon(go_on, channel)
            except* NodeError:
                await trio.sleep(0.01)


def is_of_strangers(attack: str) -> bool:
    """Whether an attack goes to the introduction service."""
    return attack == "introduction"


async def _main(folder: Path) -> None:
    peer = HostilePeer(folder, "attacker")
    (folder / "attacker.statements").write_bytes(peer.statements())
    orders: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(line)
        orders.put("")

    print("ready", flush=True)
    threading.Thread(target=read, daemon=True).start()
    attacker: Attacker | None = None
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        while order := await trio.to_thread.run_sync(orders.get):
            scope.cancel()
            name, address = order.split()
            if attacker is None:
                identity = Identity.decode((folder / "theirs.statements").read_bytes())
                attacker = Attacker(peer, replace(identity))
            if name == "manifests":
                await trio.to_thread.run_sync(attacker.prepare)
            print("begun", flush=True)
            scope = trio.CancelScope()
            if name != "rest":
                nursery.start_soon(_attack, attacker, name, address, scope)
        nursery.cancel_scope.cancel()


async def _attack(attacker: Attacker, name: str, address: str, scope: trio.CancelScope) -> None:
    with scope, suppress(ValueError):
        await attacker.run(name, address)


if __name__ == "__main__":
    trio_asyncio.run(_main, Path(sys.argv[1]))
