"""What directories showed of members, for when none answers.

A record is signed by the facility and its membership by the network, so an old one is as good as
a new one: it may lead to an address that is no longer right, and nowhere else. Whether who it
names is a member still, the newest signed list says.
"""

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from node.documents.network import Network, Record
from node.domain.ids import FacilityId, NetworkId
from node.domain.network import Standing
from node.domain.search import Search
from node.errors import NodeError

PIECE = 50
"""Of how many members the records are asked for at once."""

FRESH_SECONDS = 86400.0
_MEMBER_SECONDS = 0.36  # all nodes of a network together ask for 140 records a second, at most
_LEAST_PAUSE, _LONGEST_PAUSE = 30.0, 3600.0


class RecordBook(Protocol):
    """What remembering needs of the store."""

    async def keep(self, network: NetworkId, records: Sequence[Record], now: float) -> None:
        """Keep records that are newer than what is kept."""

    async def seen(self, network: NetworkId) -> Mapping[FacilityId, float]:
        """Return when the facilities of a network were seen."""

    async def texts(self, network: NetworkId) -> Mapping[FacilityId, Sequence[str]]:
        """Return by which texts the facilities of a network are found."""

    async def get(self, network: Network, facilities: Sequence[FacilityId]) -> list[Record]:
        """Return what is kept of facilities, in their order."""


Lookup = Callable[[Network, Sequence[FacilityId]], Awaitable[Sequence[Record]]]
"""Asks a network's directory for records of facilities, or raises `NodeError`."""


class Remembered:
    """Records of members, as they were shown last."""

    def __init__(self, book: RecordBook, me: FacilityId) -> None:
        self._book = book
        self._me = me

    async def take(self, network: NetworkId, records: Sequence[Record]) -> None:
        """Remember verified records that a directory shows."""
        await self._book.keep(network, records, time.time())

    async def find(self, network: Network, words: str, limit: int) -> list[Record]:
        """Return remembered records that fit, best first."""
        texts = await self._book.texts(network.id)
        fitting = await trio.to_thread.run_sync(_fitting, texts, words, 2 * limit)
        records = await self._book.get(network, fitting)
        return _not_revoked(network, records)[:limit]

    async def lookup(self, network: Network, facility: FacilityId) -> list[Record]:
        """Return a facility's remembered record, if there is one."""
        return _not_revoked(network, await self._book.get(network, [facility]))

    async def keep_fresh(self, networks: Callable[[], Sequence[Network]], ask: Lookup) -> None:
        """Ask directories for members that were not seen for a day, some at a time, for ever.

        The more members, the slower, so that what a directory has to answer stays the same.
        """
        while True:
            members = sum(len(n.view.latest.members) for n in networks() if n.view.latest)
            pause = min(max(_MEMBER_SECONDS * members, _LEAST_PAUSE), _LONGEST_PAUSE)
            await trio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
            for network in networks():
                with suppress(NodeError):  # its directory is away: the next time, perhaps
                    await self._ask_for_some(network, ask)

    async def _ask_for_some(self, network: Network, ask: Lookup) -> None:
        latest = network.view.latest
        if latest is None:
            return
        seen, now = await self._book.seen(network.id), time.time()
        due = [
            facility
            for invitation, facility in latest.members.items()
            if facility != self._me
            and invitation not in network.view.revoked
            and not now - FRESH_SECONDS < seen.get(facility, 0.0) <= now
        ]
        if due:
            some = random.sample(due, min(PIECE, len(due)))
            await self.take(network.id, await ask(network, some))


def _fitting(texts: Mapping[FacilityId, Sequence[str]], words: str, limit: int) -> list[FacilityId]:
    search = Search[FacilityId]()
    for facility, known in texts.items():
        search.put(facility, known)
    return search.find(words, limit)


def _not_revoked(network: Network, records: Sequence[Record]) -> list[Record]:
    now = time.time()
    return [
        r
        for r in records
        if network.view.standing(r.membership.invitation.id, r.identity.facility_id, now)
        is not Standing.REVOKED
    ]
