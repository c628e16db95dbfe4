"""Works around a use-after-free in gRPC: waits until other threads have left a critical section.

gRPC (1.85.1) calls our fetcher for the trusted certificates under a lock, releases the lock, and
only then reads the pointer to the configuration for its handshake. If a fetcher returns a new
configuration while another thread is between these two steps, that thread uses freed memory, and
the process crashes.

The section cannot be observed, but this is known: while our fetcher runs, it holds the lock, so no
other thread can enter the section. The section waits for nothing and takes less than 0.1 ms. So a
thread that called the fetcher before us has left it once it sleeps, or once it has had some
milliseconds of CPU time.
"""

import select
import threading
import time
from contextlib import suppress
from pathlib import Path

_LOOK_SECONDS = 0.005
_RAN_NANOSECONDS = 5_000_000
_SLEEPING = "SD"
_LOOKS = 2  # sleeping samples in a row; one could be a short wait for the allocator's lock


class Asking:
    """The threads that have asked. All methods are called under gRPC's lock, so one at a time."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def note(self) -> None:
        """Note that this thread asks."""
        self._threads.add(threading.get_native_id())

    def have_gone_on(self, seconds: float) -> bool:
        """Wait until all other threads that called the fetcher have left the critical section.

        Returns:
            False: not all have left it within the time.
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
