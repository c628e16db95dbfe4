"""Reports deletions to senders, and receives them from receivers.

Every Hello carries deletions both ways. A deletion is repeated until the other side confirms it:
the response confirms those of the request, the next request confirms those of the response.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from emix.exchange.v1 import exchange_pb2 as pb

from node.domain.deletions import MOST_AT_ONCE, Deletion
from node.domain.ids import FacilityId, TransferId
from node.federation.connections.wire import transfer_id


class DeletionBook(Protocol):
    """Stores deletions; `node.store.deletions` implements it."""

    async def unreported(self, peer: FacilityId) -> Sequence[Deletion]:
        """Return some of the deletions that a peer has not confirmed."""

    async def confirmed(self, peer: FacilityId, transfers: Sequence[TransferId]) -> None:
        """Forget the deletions that a peer has confirmed."""

    async def take(self, peer: FacilityId, reported: Sequence[Deletion]) -> None:
        """Record which transfers of ours a peer reports as deleted; durable once this returns."""


class DeletionReports:
    """Both sides of the exchange. `is_told`: whether the policy is to report to senders."""

    def __init__(self, book: DeletionBook, is_reported: Callable[[], bool]) -> None:
        self._book = book
        self._is_reported = is_reported
        self._to_confirm: dict[FacilityId, list[bytes]] = {}

    async def give(self, peer: FacilityId) -> list[pb.Deletion]:
        """Return the deletions that a Hello reports to a peer."""
        if not self._is_reported():
            return []
        return [
            pb.Deletion(
                transfer_id=deletion.transfer_id.value,
                deleted_milliseconds=int(deletion.time * 1000),
            )
            for deletion in await self._book.unreported(peer)
        ]

    async def accept(
        self, peer: FacilityId, reported: Sequence[pb.Deletion], confirmed: Sequence[bytes]
    ) -> list[bytes]:
        """Process the deletions and confirmations in a peer's Hello; return what to confirm to it.

        Raises:
            RemoteProtocolError: it names something that is not a transfer ID.
        """
        await self._book.confirmed(peer, [transfer_id(name) for name in confirmed[:MOST_AT_ONCE]])
        taken = [_from_wire(wire) for wire in reported[:MOST_AT_ONCE]]
        await self._book.take(peer, taken)
        return [deletion.transfer_id.value for deletion in taken]

    async def answered(
        self, peer: FacilityId, reported: Sequence[pb.Deletion], confirmed: Sequence[bytes]
    ) -> None:
        """Process a peer's response; the next request confirms its deletions."""
        self._to_confirm[peer] = await self.accept(peer, reported, confirmed)

    def confirmations(self, peer: FacilityId) -> list[bytes]:
        """Return the confirmations for the next request to a peer.

        If that request is lost, the peer repeats its report.
        """
        return self._to_confirm.pop(peer, [])


def _from_wire(wire: pb.Deletion) -> Deletion:
    time = max(0, min(wire.deleted_milliseconds, 2**48)) / 1000
    return Deletion(transfer_id(wire.transfer_id), time)
