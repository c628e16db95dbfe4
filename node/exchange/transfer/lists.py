"""The use cases of listing and watching transfers, and of explaining why one waits."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Protocol

from node.documents.peers import Peer
from node.domain.actors import Actor
from node.domain.connections import PeerWay
from node.domain.ids import FacilityId
from node.domain.transfers import Transfer
from node.domain.waiting import WayToPeer, why_waiting
from node.exchange.events import Feed, Subscription
from node.exchange.ports import AuditTrail


class TransferRows(Protocol):
    """What lists need of the store."""

    def search(
        self, *, open_only: bool = False, held_only: bool = False, limit: int = 0
    ) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers, newest first, some at a time."""

    async def numbered(self, numbers: Sequence[int]) -> list[Transfer]:
        """Return transfers by their numbers."""

    async def latest(self) -> list[Transfer]:
        """Return those that are not final, and the latest that are."""

    async def open_ones(self) -> Sequence[Transfer]:
        """Return transfers that are not final."""

    async def rates(self) -> Mapping[FacilityId, float]:
        """Return how fast each peer was, in bytes a second."""


class Running(Protocol):
    """Transfers that run; `Transfers` does."""

    def is_carried(self, row: Transfer) -> bool:
        """Whether it is on a link at this moment."""

    def is_yielding(self, row: Transfer) -> bool:
        """Whether more urgent ones to the same peer go first."""


class PeerWays(Protocol):
    """How peers are reached now; `node.federation.connections.supervisor` knows."""

    def way(self, facility: FacilityId) -> PeerWay:
        """Return what is known of the way to a peer."""


class PinView(Protocol):
    """The peers, as `Facilities` has them."""

    def pin_of(self, facility: FacilityId) -> Peer | None:
        """Return a facility's pin, removed or not."""

    def why_distrusted(self, peer: Peer) -> str:
        """Return why a peer that nobody removed is not trusted; empty if it is."""


class TransferLists:
    """Lists transfers, and says why one does not move."""

    def __init__(
        self,
        rows: TransferRows,
        running: Running,
        changes: Feed[Transfer],
        ways: PeerWays,
        pins: PinView,
        audit: AuditTrail,
    ) -> None:
        """Prepare.

        Args:
            rows: The transfers.
            running: Those that run.
            changes: Every transfer that changes.
            ways: How peers are reached.
            pins: The peers.
            audit: Records that offers, which may name patients, were shown.
        """
        self._audit = audit
        self._changes = changes
        self._rows = rows
        self._running = running
        self._ways = ways
        self._pins = pins

    async def search(
        self, actor: Actor, *, open_only: bool, held_only: bool, limit: int
    ) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers, newest first, some at a time.

        An offer may name a patient, so showing it is audited first, as for a study.

        Args:
            actor: Who asked.
            open_only: Only those that are not final.
            held_only: Only offers that a person here decides about.
            limit: At most so many; 0 for all.
        """
        is_noted = False
        pages = self._rows.search(open_only=open_only, held_only=held_only, limit=limit)
        async with aclosing(pages):
            async for some in pages:
                if not is_noted and any(row.summary is not None for row in some):
                    is_noted = True
                    await self._audit.note_list("offers.listed", {}, actor)
                yield some

    async def rates(self) -> Mapping[FacilityId, float]:
        """Return how fast each peer was, in bytes a second."""
        return await self._rows.rates()

    async def open_ones(self) -> Sequence[Transfer]:
        """Return transfers that are not final."""
        return await self._rows.open_ones()

    async def watched(self, numbers: Collection[int]) -> list[Transfer]:
        """Return those of some numbers, or all that are open and the latest, newest first."""
        return await (self._rows.numbered(sorted(numbers)) if numbers else self._rows.latest())

    def subscribed(self) -> AbstractContextManager[Subscription[Transfer]]:
        """Subscribe to changes of transfers, for the time of the block."""
        return self._changes.subscribed()

    def round_trip_seconds(self, row: Transfer) -> float:
        """Return the round-trip time to a transfer's peer; 0 if it is not known."""
        return self._ways.way(row.peer).round_trip_seconds

    def reason(self, row: Transfer) -> str:
        """Return why a transfer does not move, and what to do about it; empty if it moves."""
        peer, way = self._pins.pin_of(row.peer), self._ways.way(row.peer)
        return why_waiting(
            row,
            WayToPeer(
                is_removed=peer is None or peer.is_removed,
                distrusted=self._pins.why_distrusted(peer) if peer else "",
                is_connected=way.is_connected,
                problem=way.problem,
                is_carried=self._running.is_carried(row),
                is_yielding=self._running.is_yielding(row),
            ),
        )
