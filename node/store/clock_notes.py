"""The last believed time, kept for the next process that opens the store: `node.system.clock`."""

from node.domain.actors import NODE, Actor
from node.sql.database import Database, Db
from node.store import audit_rows
from node.system import clock

_TIME, _SEQUENCE = "believed_time", "believed_sequence"


class ClockNotes:
    """What the store knows of the time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self) -> None:
        """Keep the time that is believed now.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        await self._database.write(_note)

    async def alarm(self, doubt: str) -> None:
        """Record that the clock is suspect, unless that is an open alarm; and the time."""

        def work(db: Db) -> None:
            audit_rows.alarm(db, "alarm.clock", {"problem": doubt}, about=())
            _note(db)

        await self._database.write(work)

    async def confirmed(self, by: str, actor: Actor = NODE) -> None:
        """Record who confirmed the clock, and the time that is believed since."""

        def work(db: Db) -> None:
            audit_rows.append(db, "clock.confirmed", {"by": by}, actor)
            _note(db)

        await self._database.write(work)


def last_believed(db: Db) -> float:
    """Return the last time that was believed here, 0 if there is none.

    The note of it, or the time of an audit entry that came later.
    """
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
