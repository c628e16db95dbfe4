"""The time of day, as far as this machine's clock can be believed.

A clock that is wrong at one start must not cause deletions or leave future times in the records. So
the wall clock is compared with an expected time: the last believed time plus the time elapsed on
the clock that counts since boot. A wall clock that is more than two days off is suspect until
another facility or a person confirms it. Meanwhile the expected time is used. Once the wall clock
agrees again, it is believed again without confirmation. A smaller step back is followed, since it
makes nothing expire, but nothing is deleted until it is confirmed.

A process has one wall clock and one judgement of it: `now` replaces `time.time`.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

OFF_SECONDS = 2 * 86400.0
"""The largest difference at which the wall clock is believed: the node may have been off."""

SKEW_SECONDS = 600.0
"""The largest difference at which two facilities' clocks count as agreeing."""

_MOST_HEARD = 1000
_HEARD_SECONDS = 86400.0


@dataclass(frozen=True)
class _Heard:
    """What a facility's clock showed: how far ahead of ours, and when that was by `steady`."""

    ahead: float
    at: float


def _steady() -> float:
    """Return seconds since the machine started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """A judgement of one wall clock. May be asked from any thread."""

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady
    ) -> None:
        self.wall = wall  # what the machine's clock shows, believed or not
        self._steady = steady
        self._lock = threading.Lock()
        self._believed, self._at = wall(), steady()
        self._latest, self._latest_at = self._believed, self._at
        self._heard: dict[Hashable, _Heard] = {}

    def begin(self, believed: float) -> None:
        """Begin with the last time that was believed before, by the store; 0 for none."""
        with self._lock:
            self._believe(believed or self.wall(), self._steady())
            self._heard.clear()

    def _believe(self, time_: float, at: float) -> None:
        self._believed, self._at = self._latest, self._latest_at = time_, at

    def now(self) -> float:
        """Return the time, in seconds since 1970: by the wall clock, unless that is suspect."""
        with self._lock:
            return self._look()[0]

    def _look(self) -> tuple[float, float]:
        """Return the time, and by how much the wall clock is ahead of what is expected."""
        wall, at = self.wall(), self._steady()
        expected = self._believed + at - self._at
        ahead = wall - expected
        if abs(ahead) <= OFF_SECONDS:
            self._believed, self._at = wall, at
            if wall >= self._latest + at - self._latest_at:
                self._latest, self._latest_at = wall, at
            return wall, 0.0
        return expected, ahead

    def heard(self, facility: Hashable, shown: float) -> bool:
        """Take the time that a facility's clock shows; return whether ours is believed anew.

        One that agrees with the wall clock confirms it.
        """
        with self._lock:
            wall, at = self.wall(), self._steady()
            if len(self._heard) >= _MOST_HEARD:
                self._heard.clear()
            self._heard[facility] = _Heard(shown - wall, at)
            was_off = self._off()
            if abs(shown - wall) <= SKEW_SECONDS:
                self._believe(wall, at)
            return bool(was_off) and not self._off()

    def confirm(self) -> None:
        """Take a person's word that the wall clock is right."""
        with self._lock:
            self._believe(self.wall(), self._steady())

    @property
    def jump(self) -> float:
        """By how many seconds the wall clock is ahead of what was known; 0 if nobody doubts it."""
        with self._lock:
            return self._off()

    def _off(self) -> float:
        time_, ahead = self._look()
        behind = self._latest + self._steady() - self._latest_at - time_
        return ahead or (-behind if behind > SKEW_SECONDS else 0.0)

    @property
    def agreeing(self) -> tuple[int, int]:
        """How many facilities' clocks agreed with this one within a day, and how many did not."""
        with self._lock:
            since = self._steady() - _HEARD_SECONDS
            recent = [h for h in self._heard.values() if h.at >= since]
            agree = sum(abs(h.ahead) <= SKEW_SECONDS for h in recent)
            return agree, len(recent) - agree

    @property
    def doubt(self) -> str:
        """Why nothing may be deleted by this clock; empty if it may."""
        jump = self.jump
        if jump:
            where = f"{shown_seconds(abs(jump))} {'ahead of' if jump > 0 else 'behind'}"
            return f"the clock is {where} the last recorded time, and no facility confirms it"
        agree, differ = self.agreeing
        if differ > agree:
            return f"the clocks of {differ} facilities differ from this one, and {agree} agree"
        return ""


def shown_seconds(seconds: float) -> str:
    """Return a time for people, in one unit."""
    for name, size in (("years", 31557600), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


CLOCK = Clock()
now = CLOCK.now
