"""What somebody tried and did not get: counted since the start, for the operator's eyes.

Only what takes a stolen secret or a recorded message is noted, so nobody can raise alarms at will.
"""

import time
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger()
_MOST = 100


class Alarms:
    """Alarms of one process, by what they say."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    @property
    def total(self) -> int:
        """How many there were."""
        return self._counts.total()

    def note(self, text: str) -> None:
        """Note that something was tried."""
        log.warning("directory alarm", problem=text)
        if text in self._counts or len(self._counts) < _MOST:
            self._counts[text] += 1
            self._last[text] = self._clock()

    def texts(self) -> list[str]:
        """Return what was tried, how often, and when at last."""
        return [
            f"{text} (refused; {count} times since the start, last {_moment(self._last[text])})"
            for text, count in self._counts.items()
        ]


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
