"""Verifies the lists and records that directories and peers show; accepts them or raises an alarm.

A directory is not trusted. Each list is verified here, once; the return value says whether it is
the newest one known. A list that contradicts an earlier one raises an alarm and changes nothing.
"""

import time
from collections import Counter

import structlog
import trio

from node.documents.lists import open_list
from node.documents.network import Record
from node.domain.events import NetworksChanged, Publish
from node.domain.ids import FacilityId, NetworkId
from node.domain.network import ListProblem
from node.errors import DocumentError, PeerRefused
from node.exchange.membership.memberships import Memberships, NetworkBook
from node.exchange.membership.pairing import Pairing
from node.exchange.membership.record_cache import RecordCache
from node.system import clock

log = structlog.get_logger()
_LATE = (ListProblem.OLDER.value, ListProblem.EXPIRED.value)
"""Problems that an honest peer may have: it does not have our list yet, or was off for a week."""

_SAME_ALARMS = 20
"""Of one text a minute; the audit log has each once, until an admin has seen it."""


class Authority:
    """Accepts lists and records, and reports forged ones."""

    def __init__(
        self,
        book: NetworkBook,
        memberships: Memberships,
        record_cache: RecordCache,
        pairing: Pairing,
        publish: Publish,
    ) -> None:
        self._book = book
        self._memberships = memberships
        self._record_cache = record_cache
        self._pairing = pairing
        self._publish = publish
        self._accepting = trio.Lock()
        self._alarmed: Counter[tuple[NetworkId, str]] = Counter()
        self._alarmed_minute = 0

    # -- lists ----------------------------------------------------------------------------

    async def accept_list(self, network_id: NetworkId, encoded: bytes) -> bool:
        """Accept a list that a directory shows, if it is the network's and newer.

        Returns:
            Whether it is the list that is known now, accepted just now or before.
        """
        problem = await self._accept(network_id, encoded)
        if problem:
            await self.report_forgery(network_id, problem)
        network = self._memberships.get(network_id)
        return network is not None and network.signed_list == encoded

    async def accept_passed_list(
        self, facility: FacilityId, network_id: NetworkId, encoded: bytes
    ) -> bool:
        """Accept a list that a peer has, if it is the network's and newer.

        Returns:
            Whether it was newer than what was known.

        Raises:
            PeerRefused: it is wrong, and of a network that the two do not share.
        """
        before = self._memberships.list_places().get(network_id)
        problem = await self._accept(network_id, encoded)
        if problem and problem not in _LATE:
            if not self._memberships.is_listed(network_id, facility):
                raise PeerRefused("a list of a network that the two nodes do not share")
            await self.report_forgery(network_id, f"facility {facility.short()} shows {problem}")
        return self._memberships.list_places().get(network_id) != before

    async def _accept(self, network_id: NetworkId, encoded: bytes) -> str:
        """Accept a list if it is the network's and newer; return what is wrong with it."""
        async with self._accepting:  # a directory's and a peer's, or an older one could come last
            return await self._accept_next(network_id, encoded)

    async def _accept_next(self, network_id: NetworkId, encoded: bytes) -> str:
        network = self._memberships.get(network_id)
        if network is None or network.signed_list == encoded:
            return ""  # it was left just now, or says what is known
        now = clock.now()
        try:
            shown = open_list(encoded, network.network_key, now)
        except DocumentError as exc:
            return f"a list that the network did not sign: {exc}"
        following = network.view.after(shown, now)
        if isinstance(following, ListProblem):
            return following.value
        if following is network.view:
            return ""
        await self._book.keep_view(network_id, following, encoded)
        epoch, number = shown.place
        log.info("list accepted", network=network_id.short(), epoch=epoch, number=number)
        await self._memberships.load()
        await self._publish(NetworksChanged())
        accepted = self._memberships.get(network_id)
        if accepted is not None:  # else it was left just now
            await self._record_cache.listed(accepted)
        return ""

    # -- records --------------------------------------------------------------------------

    async def accept_record(self, network_id: NetworkId, record: Record) -> None:
        """Accept a member's new record: remember it, and renew the member's pin if it has one."""
        network = self._memberships.get(network_id)
        if network is not None:
            await self._record_cache.take(network, [record])
        await self._pairing.accept_statements(record.identity)

    # -- alarms ---------------------------------------------------------------------------

    async def report_forgery(self, network_id: NetworkId, problem: str) -> None:
        """Raise an alarm: a directory, a relay or a peer presented a forged or invalid document.

        Durable once this returns; cancelled, it was done whole or not at all.

        Args:
            network_id: Whose directory, relay or member it is.
            problem: In our own words: others' would get around the bound on equal alarms.
        """
        minute = int(time.monotonic() // 60)
        if minute != self._alarmed_minute:
            self._alarmed_minute = minute
            self._alarmed.clear()
        key = (network_id, problem)
        self._alarmed[key] += 1
        if self._alarmed[key] > _SAME_ALARMS:
            return  # a directory must not fill the logs
        log.error("directory alarm", network=network_id.short(), problem=problem)
        await self._book.alarm(network_id, problem)
