"""Telling senders what was deleted here, and hearing it from receivers.

Every Hello carries it both ways. What is told is told again until the other side confirms it: the
answer confirms what the request told, the next request what the answer told.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from emix.exchange.v1 import exchange_pb2 as pb

from node.domain.deletions import MOST_AT_ONCE, Deletion
from node.domain.ids import FacilityId, TransferId
from node.federation.connections.wire import transfer_id


class DeletionBook(Protocol):
    """Keeps it; `node.store.deletions` does."""

    async def untold(self, peer: FacilityId) -> Sequence[Deletion]:
        """Return some of what a peer is still to be told of."""

    async def confirmed(self, peer: FacilityId, transfers: Sequence[TransferId]) -> None:
        """Forget what a peer knows now."""

    async def take(self, peer: FacilityId, told: Sequence[Deletion]) -> None:
        """Keep what a peer says that it deleted of ours; durable once this returns."""


class DeletionNews:
    """Both sides of it. `is_told` says whether this facility's policy tells its senders."""

    def __init__(self, book: DeletionBook, is_told: Callable[[], bool]) -> None:
        self._book = book
        self._is_told = is_told
        self._to_confirm: dict[FacilityId, list[bytes]] = {}

    async def give(self, peer: FacilityId) -> list[pb.Deletion]:
        """Return what a Hello tells a peer."""
        if not self._is_told():
            return []
        return [
            pb.Deletion(
                transfer_id=deletion.transfer_id.value,
                deleted_milliseconds=int(deletion.time * 1000),
            )
            for deletion in await self._book.untold(peer)
        ]

    async def accept(
        self, peer: FacilityId, told: Sequence[pb.Deletion], confirmed: Sequence[bytes]
    ) -> list[bytes]:
        """Take what a peer's Hello tells and confirms; return what is to be confirmed to it.

        Raises:
            RemoteProtocolError: what it names is no transfer.
        """
        await self._book.confirmed(peer, [transfer_id(name) for name in confirmed[:MOST_AT_ONCE]])
        news = [_from_wire(wire) for wire in told[:MOST_AT_ONCE]]
        await self._book.take(peer, news)
        return [deletion.transfer_id.value for deletion in news]

    async def answered(
        self, peer: FacilityId, told: Sequence[pb.Deletion], confirmed: Sequence[bytes]
    ) -> None:
        """Take what a peer's answer tells and confirms; the next request confirms it."""
        self._to_confirm[peer] = await self.accept(peer, told, confirmed)

    def confirmations(self, peer: FacilityId) -> list[bytes]:
        """Return what the next request to a peer confirms.

        They are lost with a connection: then the peer tells again.
        """
        return self._to_confirm.pop(peer, [])


def _from_wire(wire: pb.Deletion) -> Deletion:
    time = max(0, min(wire.deleted_milliseconds, 2**48)) / 1000
    return Deletion(transfer_id(wire.transfer_id), time)
