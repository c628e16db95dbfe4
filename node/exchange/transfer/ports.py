"""What receiving needs of the store, and the facility's policy for incoming packages."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from node.crypto.keys import DataKey
from node.documents.arrivals import Arrival
from node.documents.delivery import Delivery
from node.documents.signed import Document
from node.domain.connections import Route
from node.domain.manifest import Manifest
from node.domain.packages import Package
from node.domain.summary import Summary
from node.domain.transfers import NOTHING_CARRIED, Carried, Transfer
from node.domain.verdicts import Checked
from node.exchange.transfer.arriving import ArrivingStore, ChunkKeeper


class ReceiverStore(ArrivingStore, Protocol):
    """What receiving needs of the store's arrivals."""

    async def keep_offer(
        self,
        delivery: Delivery,
        document: Document,
        sealed_key: bytes,
        *,
        is_held: bool,
        summary: Summary | None = None,
        route: Route | None = None,
    ) -> Transfer:
        """Return the transfer of a delivery, kept if it is new."""

    async def find_package(self, row: Transfer) -> Package | None:
        """Return the package that a transfer is about."""

    async def is_whole(self, row: Transfer, reading: trio.CapacityLimiter | None) -> bool:
        """Return whether the package of a receipt is complete here, or was deleted on purpose.

        With a limiter its chunks are read; without one they are only looked up.
        """

    async def begin_arrival(
        self,
        row: Transfer,
        data_key: DataKey,
        manifest: Manifest,
        document: Document,
        arriving_bytes: int,
    ) -> Arrival:
        """Commit what must be there before the first chunk is written."""

    async def commit_arrival(
        self,
        row: Transfer,
        manifest: Manifest,
        checked: Checked,
        arrived: Collection[int] = (),
        carried: Carried = NOTHING_CARRIED,
    ) -> Transfer:
        """Commit a whole package with its receipt, and what is not recorded yet of its way."""

    async def discard_arrival(self, row: Transfer) -> list[int]:
        """Mark what arrived of a transfer that ended; return the package rows to remove."""


class Carrier(ChunkKeeper, Protocol):
    """What receiving does with chunks, on worker threads."""

    def free_bytes(self) -> int:
        """Return how much more fits."""

    def used_bytes(self) -> int:
        """Return the bytes of what packages name, of their envelopes, and of the database."""

    def remove_packages(self, rows: Sequence[int]) -> None:
        """Remove packages that will never be complete."""


@dataclass(frozen=True)
class ReceiverPolicy:
    """This facility's policy for incoming packages."""

    asks_first: bool = False
    quota_bytes: int = 0  # 0: none
