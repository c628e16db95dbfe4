"""Alarms about refused attempts: counted, and shown to the operator for a week.

Only an attempt that needs a stolen secret or a recorded message raises an alarm, so nobody can
raise alarms at will.
"""

import time
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger()
_MOST = 100
SHOWN_SECONDS = 7 * 86400
"""How long an alarm is shown after the last attempt; it stays in the log."""


class Alarms:
    """Alarms of one process, by what they say."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._last: dict[str, float] = {}
        self._total = 0

    @property
    def total(self) -> int:
        """How many there were since the start."""
        return self._total

    def note(self, text: str) -> None:
        """Note that something was tried."""
        log.warning("directory alarm", problem=text)
        self._total += 1
        self._forget_old()
        if text in self._counts or len(self._counts) < _MOST:
            self._counts[text] += 1
            self._last[text] = self._clock()

    def acknowledge(self) -> int:
        """Hide all present alarms, because a person has seen them; return how many."""
        self._forget_old()
        seen = len(self._counts)
        log.info("directory alarms acknowledged", alarms=seen)
        self._counts.clear()
        self._last.clear()
        return seen

    def texts(self) -> list[str]:
        """Return the recent alarms, each with its count and last time."""
        self._forget_old()
        return [
            f"{text} (refused; {count} times, last {_moment(self._last[text])})"
            for text, count in self._counts.items()
        ]

    def _forget_old(self) -> None:
        oldest = self._clock() - SHOWN_SECONDS
        for text in [text for text, last in self._last.items() if last <= oldest]:
            del self._counts[text], self._last[text]


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
