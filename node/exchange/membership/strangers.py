"""Facilities that have paired with this one and are not paired here: a few, kept for a day.

Their nodes present their statements at the introduction service repeatedly. Statements are signed
by the stranger's own facility key and prove only that: the stranger chose its name, and anybody who
has seen the statements can present them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from node.documents.identity import Identity
from node.domain.ids import FacilityId

MOST = 8
_KEPT_SECONDS = 86400.0


@dataclass(frozen=True)
class Stranger:
    """A facility that waits to be paired here, and how long ago it called."""

    identity: Identity
    seconds_ago: float


class Strangers:
    """Remembers strangers, in memory. A new one replaces the one that called longest ago."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[FacilityId, tuple[float, Identity]] = {}

    def note(self, identity: Identity) -> None:
        """Remember who asks just now, by the newest that it has shown."""
        _, known = self._seen.pop(identity.facility_id, (0.0, identity))
        newest = max(known, identity, key=lambda shown: shown.order)
        self._seen[identity.facility_id] = self._now(), newest
        while len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]

    def forget(self, facility: FacilityId) -> None:
        """Forget a stranger; it is paired now."""
        self._seen.pop(facility, None)

    def all(self) -> list[Stranger]:
        """Return those of the last day, the last one first."""
        now = self._now()
        self._seen = {f: s for f, s in self._seen.items() if now - s[0] < _KEPT_SECONDS}
        return [Stranger(identity, now - seen) for seen, identity in reversed(self._seen.values())]

    def identity(self, facility: FacilityId) -> Identity | None:
        """Return the statements of a stranger; None if it is not remembered."""
        found = [s.identity for s in self.all() if s.identity.facility_id == facility]
        return found[0] if found else None
