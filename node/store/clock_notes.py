"""The last time that was believed, for the next start: see `node.clock`."""

from node import clock
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext

_TIME, _SEQUENCE = "believed_time", "believed_sequence"


class ClockNotes:
    """What the store knows of the time."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database

    def last_believed(self) -> float:
        """Return the last time that was believed here, 0 if there is none; on this thread.

        The note of it, or the time of an audit entry that came later.
        """
        return self._database.read_sync(_last_believed)

    async def note(self) -> None:
        """Keep the time that is believed now."""
        await self._database.write(_note)

    async def alarm(self, doubt: str) -> None:
        """Record that the clock is suspect, unless that is an open alarm; and the time."""

        def work(db: Db) -> None:
            audit_rows.alarm(db, "alarm.clock", {"problem": doubt}, about=())
            _note(db)

        await self._database.write(work)

    async def confirmed(self, by: str, operator: str = "node") -> None:
        """Record who confirmed the clock, and the time that is believed since."""

        def work(db: Db) -> None:
            audit_rows.append(db, "clock.confirmed", {"by": by}, operator)
            _note(db)

        await self._database.write(work)


def _last_believed(db: Db) -> float:
    values = dict(db.execute("SELECT key, value FROM meta WHERE key IN (?, ?)", (_TIME, _SEQUENCE)))
    last = next(audit_rows.entries(db, 1), None)
    noted = float(values.get(_TIME, 0.0))
    if last is None or last.sequence <= values.get(_SEQUENCE, 0):
        return noted
    return max(noted, last.time_milliseconds / 1000)


def _note(db: Db) -> None:
    sequence, _ = audit_rows.newest(db) or (0, b"")
    for key, value in ((_TIME, clock.now()), (_SEQUENCE, sequence)):
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
