"""Remembered records of members, used when no directory answers.

A record is signed by the facility, and its membership by the network. So an old record is safe: at
worst its address is out of date. The newest signed list says whether the facility is still a
member.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from node.documents.network import SKEW_SECONDS, Network, Record
from node.domain.ids import FacilityId, NetworkId
from node.domain.search import Search
from node.errors import NodeError
from node.system import clock

PIECE = 50
"""Of how many members the records are asked for at once."""

FRESH_SECONDS = 86400.0
_MEMBER_SECONDS = 0.36  # all nodes of a network together ask for 140 records a second, at most
_LEAST_PAUSE = 30.0


class RecordBook(Protocol):
    """What remembering needs of the store."""

    async def keep(self, network: NetworkId, records: Sequence[Record], now: float) -> None:
        """Keep records that are newer than what is kept."""

    async def keep_only(self, network: NetworkId, facilities: Iterable[FacilityId]) -> None:
        """Forget the records of all other facilities of a network."""

    async def seen(self, network: NetworkId, now: float) -> Mapping[FacilityId, float]:
        """Return when the facilities of a network were seen."""

    async def texts(self, network: NetworkId, now: float) -> Mapping[FacilityId, Sequence[str]]:
        """Return by which texts the facilities of a network are found."""

    async def get(
        self, network: Network, facilities: Sequence[FacilityId], now: float
    ) -> list[Record]:
        """Return what is kept of facilities, in their order."""


Lookup = Callable[[Network, Sequence[FacilityId]], Awaitable[Sequence[Record]]]
"""Asks a network's directory for records of facilities, or raises `NodeError`."""


class RecordCache:
    """The last record that a directory showed of each listed member."""

    def __init__(self, book: RecordBook, me: FacilityId) -> None:
        self._book = book
        self._me = me
        self._asked: dict[tuple[NetworkId, FacilityId], float] = {}

    async def take(self, network: Network, records: Sequence[Record]) -> None:
        """Remember verified records of listed members; records from the future are skipped."""
        now = clock.now()
        listed = [r for r in records if _is_listed(network, r) and not _is_ahead(r, now)]
        if listed:
            await self._book.keep(network.id, listed, now)

    async def listed(self, network: Network) -> None:
        """Forget the facilities that the newest list does not name."""
        if network.view.latest is not None:
            await self._book.keep_only(network.id, network.view.latest.members.values())

    async def find(self, network: Network, words: str, limit: int) -> list[Record]:
        """Return remembered records that fit, best first."""
        texts = await self._book.texts(network.id, clock.now())
        latest = network.view.latest
        members = frozenset(latest.members.values()) if latest else frozenset()
        known = {facility: of for facility, of in texts.items() if facility in members}
        fitting = await trio.to_thread.run_sync(_fitting, known, words, 2 * limit)
        records = await self._book.get(network, fitting, clock.now())
        return [r for r in records if _is_listed(network, r)][:limit]

    async def lookup(self, network: Network, facility: FacilityId) -> list[Record]:
        """Return a facility's remembered record, if there is one."""
        records = await self._book.get(network, [facility], clock.now())
        return [r for r in records if _is_listed(network, r)]

    async def keep_fresh(self, networks: Callable[[], Sequence[Network]], ask: Lookup) -> None:
        """Ask directories for members that were not seen for a day, some at a time, for ever.

        The more members, the slower, so that what a directory has to answer stays the same.
        """
        while True:
            members = sum(len(n.view.latest.members) for n in networks() if n.view.latest)
            pause = max(_MEMBER_SECONDS * members, _LEAST_PAUSE)
            await trio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
            for network in networks():
                with suppress(NodeError):  # its directory is away: the next time, perhaps
                    await self._ask_for_some(network, ask)

    async def _ask_for_some(self, network: Network, ask: Lookup) -> None:
        due = await self._due(network, clock.now())
        if not due:
            return
        records = await ask(network, due)
        now = clock.now()
        self._asked.update({(network.id, facility): now for facility in due})
        await self.take(network, records)

    async def _due(self, network: Network, now: float) -> list[FacilityId]:
        """Return the members to ask for, those never seen first; none twice a day."""
        latest = network.view.latest
        if latest is None:
            return []
        self._asked = {key: t for key, t in self._asked.items() if 0 <= now - t < FRESH_SECONDS}
        seen = await self._book.seen(network.id, now)
        due = [
            facility
            for facility in set(latest.members.values())
            if facility != self._me
            and (network.id, facility) not in self._asked
            and not now - FRESH_SECONDS < seen.get(facility, 0.0) <= now
        ]
        random.shuffle(due)  # or all nodes would ask for the same ones
        return sorted(due, key=lambda facility: seen.get(facility, 0.0))[:PIECE]


def _fitting(texts: Mapping[FacilityId, Sequence[str]], words: str, limit: int) -> list[FacilityId]:
    search = Search[FacilityId]()
    for facility, known in texts.items():
        search.put(facility, known)
    return search.find(words, limit)


def _is_listed(network: Network, record: Record) -> bool:
    """Whether the newest list names a record's facility, by its invitation; it may have expired."""
    invitation, latest = record.membership.invitation.id, network.view.latest
    return (
        latest is not None
        and invitation not in network.view.revoked
        and latest.members.get(invitation) == record.identity.facility_id
    )


def _is_ahead(record: Record, now: float) -> bool:
    """Whether a record is from the future: it would keep out those that follow it."""
    issued = max(record.identity.profile.issued_seconds, record.listing.issued_seconds)
    return issued > now + SKEW_SECONDS
