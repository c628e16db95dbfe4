"""The audit log as use cases read and write it."""

import json
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable

import trio

from node.domain.actors import NODE, Actor
from node.domain.audit import AuditEntry, AuditFilter, ChainWalk
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext

_LIST_SECONDS = 600.0
_MOST_LISTED = 256
_PAGE_ENTRIES = 2000
_STRETCH_ENTRIES = 50_000
"""Entries that one query scans: about 0.05 s where no index helps."""


class AuditStore:
    """The audit log of this node."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database
        self._facility = context.facility
        self._listed: OrderedDict[tuple[Actor, str, str], float] = OrderedDict()

    async def append(self, kind: str, facts: dict[str, object], actor: Actor = NODE) -> None:
        """Record a fact that has no transaction of its own, on a full disk too."""
        await self._database.write(
            lambda db: audit_rows.append(db, kind, facts, actor), in_need=True
        )

    async def note_list(self, kind: str, facts: dict[str, object], actor: Actor) -> None:
        """Record that somebody was shown a list; the same list again within minutes is not.

        What is repeated shows nothing new to anybody, and commands repeat lists every second.
        """
        shown, now = (actor, kind, json.dumps(facts, sort_keys=True)), time.monotonic()
        if now - self._listed.get(shown, -math.inf) < _LIST_SECONDS:
            return
        await self.append(kind, facts, actor)
        self._listed[shown] = now
        self._listed.move_to_end(shown)
        if len(self._listed) > _MOST_LISTED:
            self._listed.popitem(last=False)

    async def note_start(self, software: str) -> None:
        """Record that the node runs, and before that, once, that it was made."""
        facts: dict[str, object] = {"software": software}
        me = str(self._facility)

        def work(db: Db) -> None:
            if next(audit_rows.entries(db, 1), None) is None:
                audit_rows.append(db, "node.made", {"facility": me})
            audit_rows.append(db, "node.started", facts)

        await self._database.write(work, in_need=True)

    async def entries(self, limit: int = 0) -> list[AuditEntry]:
        """Return the latest entries (0 for all), oldest first."""
        return await self._database.read(lambda db: list(audit_rows.entries(db, limit)))

    async def search(self, wanted: AuditFilter, limit: int = 0) -> AsyncGenerator[list[AuditEntry]]:
        """Yield the latest `limit` entries (0 for all) that are asked for, oldest first, in pages.

        The database is asked for a stretch of the log at a time: others use it meanwhile.
        """
        newest = await self._database.read(audit_rows.newest)
        end = newest[0] + 1 if newest else 1
        low = await self._begin(wanted, end, limit) if limit else 1
        while low < end:
            high = min(low + _STRETCH_ENTRIES, end)
            page = await self._find(wanted, low, high, _PAGE_ENTRIES, is_newest_first=False)
            if page:
                yield page
            low = page[-1].sequence + 1 if len(page) == _PAGE_ENTRIES else high

    async def _begin(self, wanted: AuditFilter, end: int, limit: int) -> int:
        """Return the number of the first of the latest `limit` matching entries."""
        high, left = end, limit
        while high > 1:
            low = max(1, high - _STRETCH_ENTRIES)
            count = min(left, _PAGE_ENTRIES)
            found = await self._find(wanted, low, high, count, is_newest_first=True)
            left -= len(found)
            if not left:
                return found[-1].sequence
            high = found[-1].sequence if len(found) == count else low
        return 1

    async def _find(
        self, wanted: AuditFilter, low: int, high: int, limit: int, *, is_newest_first: bool
    ) -> list[AuditEntry]:
        return await self._database.read(
            lambda db: audit_rows.find(
                db, wanted, low, high, limit, is_newest_first=is_newest_first
            )
        )

    async def open_alarms(self, limit: int = 0) -> list[AuditEntry]:
        """Return the latest alarms (0 for all) that nobody has acknowledged, oldest first."""
        return await self._database.read(lambda db: list(audit_rows.open_alarms(db, limit)))

    async def acknowledge(self, through: int, actor: Actor) -> int:
        """Record that somebody has seen the alarms up to an entry; return how many they were."""
        return await self._database.write(lambda db: audit_rows.acknowledge(db, through, actor))

    async def verify(self, wanted: Iterable[int] = ()) -> ChainWalk:
        """Walk the chain from its first entry; keep the digests of those entries that are wanted.

        A page at a time: others use the database meanwhile, and memory is bounded. What is added
        meanwhile is walked too.
        """
        walk = ChainWalk(wanted)
        while not walk.problem:
            page = await self._database.read(
                lambda db: audit_rows.following(db, walk.entries, _PAGE_ENTRIES)
            )
            if not page:
                break
            await trio.to_thread.run_sync(walk.feed, page)
        return walk

    async def last_time(self) -> float:
        """Return the time of the newest entry, 0 if there is none."""
        entries = await self.entries(1)
        return entries[-1].time_milliseconds / 1000 if entries else 0.0
