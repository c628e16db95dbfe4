"""The audit log as use cases read and write it."""

from collections.abc import Iterable

import trio

from node.domain.audit import AuditEntry, ChainWalk
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext

_PAGE_ENTRIES = 2000


class AuditStore:
    """The audit log of this node."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database
        self._facility = context.facility

    async def append(self, kind: str, facts: dict[str, object], operator: str = "node") -> None:
        """Record a fact that has no transaction of its own."""
        await self._database.write(lambda db: audit_rows.append(db, kind, facts, operator))

    async def note_start(self, software: str) -> None:
        """Record that the node runs, and before that, once, that it was made."""
        facts: dict[str, object] = {"software": software}
        me = str(self._facility)

        def work(db: Db) -> None:
            if next(audit_rows.entries(db, 1), None) is None:
                audit_rows.append(db, "node.made", {"facility": me})
            audit_rows.append(db, "node.started", facts)

        await self._database.write(work)

    async def entries(self, limit: int = 0) -> list[AuditEntry]:
        """Return the latest entries (0 for all), oldest first."""
        return await self._database.read(lambda db: list(audit_rows.entries(db, limit)))

    async def open_alarms(self, limit: int = 0) -> list[AuditEntry]:
        """Return the latest alarms (0 for all) that nobody has acknowledged, oldest first."""
        return await self._database.read(lambda db: list(audit_rows.open_alarms(db, limit)))

    async def acknowledge(self, through: int, operator: str) -> int:
        """Record that somebody has seen the alarms up to an entry; return how many they were."""
        return await self._database.write(lambda db: audit_rows.acknowledge(db, through, operator))

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
