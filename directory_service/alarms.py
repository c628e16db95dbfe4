"""What somebody tried and did not get: counted, and shown for a week, for the operator's eyes.

Only what takes a stolen secret or a recorded message is noted, so nobody can raise alarms at will.
"""

import time
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger()
_MOST = 100
SHOWN_SECONDS = 7 * 86400
"""For so long after it was tried last an alarm is shown; the log has it for good."""


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
        """Show no more what was tried so far, since somebody has seen it; return how many."""
        self._forget_old()
        seen = len(self._counts)
        log.info("directory alarms acknowledged", alarms=seen)
        self._counts.clear()
        self._last.clear()
        return seen

    def texts(self) -> list[str]:
        """Return what was tried of late, how often, and when at last."""
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
