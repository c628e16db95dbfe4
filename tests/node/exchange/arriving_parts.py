"""A receiver over a real store, and the sender's end of its link in the test's hands."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import trio

from node.dicom.examiner import open_examiner
from node.documents.identity import Identity
from node.documents.messages import Message
from node.domain.capabilities import Capability
from node.domain.connections import Route
from node.domain.ids import FacilityId
from node.exchange.transfer.ports import ReceiverPolicy
from node.exchange.transfer.receiving import Receiver
from node.exchange.transfer.transfers import Transfers
from node.store.arrivals import ArrivalStore
from node.store.chunk_access import ChunkAccess
from node.store.context import StoreContext, open_store
from node.store.transfers import TransferStore
from tests.support.examining import LocalExpander
from tests.support.hostile import HostilePeer


class MemoryLink:
    """One end of a link without a network."""

    route = Route.DIRECT
    capabilities = frozenset(Capability)

    def __init__(
        self,
        peer: FacilityId,
        send: trio.MemorySendChannel[Message],
        receive: trio.MemoryReceiveChannel[Message],
    ) -> None:
        self.peer = peer
        self._send, self._receive = send, receive

    async def send(self, message: Message) -> None:
        await self._send.send(message)

    async def end(self) -> None:
        """End this side's stream."""
        await self._send.aclose()

    async def receive(self) -> Message | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None


def link_pair(a: FacilityId, b: FacilityId) -> tuple[MemoryLink, MemoryLink]:
    """Return the ends at a, whose peer is b, and at b."""
    to_b, at_b = trio.open_memory_channel[Any](100)
    to_a, at_a = trio.open_memory_channel[Any](100)
    return MemoryLink(b, to_b, at_a), MemoryLink(a, to_a, at_b)


@dataclass
class Receiving:
    """A receiver and what it is made of."""

    context: StoreContext
    identity: Identity
    store: TransferStore
    receiver: Receiver
    transfers: Transfers

    @property
    def facility(self) -> FacilityId:
        return self.context.facility

    def chunk_files(self, home: Path) -> list[Path]:
        return list((home / "chunks").glob("??/*"))


@asynccontextmanager
async def open_receiving(
    folder: Path, carrier: type[ChunkAccess] = ChunkAccess, *, quota_bytes: int = 0
) -> AsyncGenerator[Receiving]:
    """Open a receiver whose home is `folder / "home"`."""
    me = HostilePeer(folder, "me")
    home = folder / "home"
    home.mkdir()
    keys = me.keys
    context = open_store(
        home, keys.root_key, keys.secrets, keys.signer, reserve_bytes=0, expander=LocalExpander()
    )
    try:
        async with open_examiner(parsers=1) as examiner:
            store = TransferStore(context)
            receiver = Receiver(
                me=context.facility,
                seal_keys=keys.secrets.seal_keys,
                store=ArrivalStore(context, store),
                transfers=store,
                carrier=carrier(context),
                examiner=examiner,
                policy=ReceiverPolicy(quota_bytes=quota_bytes),
                clock=time,
                installed=frozenset(Capability),
            )
            transfers = Transfers(
                signer=keys.signer,
                book=store,
                sender=None,  # type: ignore[arg-type]
                receiver=receiver,
                links=None,  # type: ignore[arg-type]
                offer_seconds=60.0,
            )
            identity = Identity.decode(me.statements())
            yield Receiving(context, identity, store, receiver, transfers)
    finally:
        context.close()
