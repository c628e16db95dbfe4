"""Waiting until other threads have left a short stretch of C code in which they cannot be seen.

gRPC (1.85.1) asks our fetcher for the trusted certificates under a lock, lets go of it, and only
then reads the pointer to what handshakes are made with. When a fetcher returns something new while
another thread is between the two, that thread uses what was just freed, and the process dies.

What is known: while our fetcher runs, the lock is held, so nobody else can come to that stretch. It
does not wait for anything, and takes less than a tenth of a millisecond. So a thread that asked
before us has left it once it sleeps, or has had a core for some milliseconds.
"""

import select
import threading
import time
from contextlib import suppress
from pathlib import Path

_LOOK_SECONDS = 0.005
_RAN_NANOSECONDS = 5_000_000
_SLEEPING = "SD"
_LOOKS = 2  # to wait for the allocator's lock is to sleep, too, but not for so long


class Asking:
    """The threads that have asked. All methods are called under gRPC's lock, so one at a time."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def note(self) -> None:
        """Note that this thread asks."""
        self._threads.add(threading.get_native_id())

    def have_gone_on(self, seconds: float) -> bool:
        """Wait until all others that have asked are past what they asked for.

        Returns:
            False: not all were, in the time given.
        """
        others = self._threads - {threading.get_native_id()}
        ran = {thread: _look(thread)[1] for thread in others}
        seen = dict.fromkeys(others, 0)
        end = time.monotonic() + seconds
        while others:
            if time.monotonic() > end:
                return False
            _pause(_LOOK_SECONDS)
            for thread in list(others):
                state, now = _look(thread)
                if not state:
                    self._threads.discard(thread)  # it has ended
                seen[thread] = seen[thread] + 1 if state in _SLEEPING else 0
                if seen[thread] >= _LOOKS or now - ran[thread] > _RAN_NANOSECONDS:
                    others.discard(thread)
        return True


def _pause(seconds: float) -> None:
    """Wait for a span of time; raises nothing, for gRPC would keep what was trusted before.

    `time.sleep` waits for a moment of a clock, which fails where that clock is another for it than
    for its caller (libfaketime: EINVAL, every other time).
    """
    select.select([], [], [], seconds)


def _look(thread: int) -> tuple[str, int]:
    """Return the state of a thread of ours and for how long it has run; no state: it ended."""
    folder, ran = Path("/proc/self/task") / str(thread), 0
    try:
        state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0].decode("ascii")
    except OSError:
        return "", 0
    with suppress(OSError):  # not every kernel counts
        ran = int((folder / "schedstat").read_bytes().split()[0])
    return state, ran
