"""Group commit: what several threads want written at the same time goes into one transaction.

How this works. A thread that wants something written puts it into a queue. If nobody writes, it
leads: it takes what waits, has it committed as one group, and hands the lead to the thread whose
work waits first, if any has come meanwhile. All others sleep until their work is committed. So a
transaction that is alone waits for nobody, and under load one sync to disk serves many.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

MOST_TOGETHER = 32
"""How many are committed as one group."""


class Job:
    """One piece of work, and what became of it: whoever commits groups calls one of its methods."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.is_leading = False
        self.is_failed = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._woken = threading.Event()

    def succeed(self, result: Any) -> None:
        """Note what the work returned. It counts once the group is committed."""
        self._result = result

    def fail(self, error: BaseException) -> None:
        """Note that nothing of the work was kept, and why."""
        self._error, self.is_failed = error, True

    def outcome(self) -> Any:
        """Return what the work returned, or raise what kept it from being done."""
        if self._error is not None:
            raise self._error
        return self._result

    def wake(self) -> None:
        """Let the thread that waits for this go on."""
        self._woken.set()

    def wait(self) -> None:
        """Wait until it is done, or leads."""
        self._woken.wait()


class GroupCommit:
    """Has work committed in groups. Safe to use from several threads."""

    def __init__(self, commit: Callable[[Sequence[Job]], None]) -> None:
        """Prepare; `commit` has a group done as one transaction, and raises nothing."""
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._is_led = False

    def run(self, work: Callable[[Any], Any]) -> Any:
        """Have work committed; return what it returned once that is durable.

        Raises:
            Exception: what the work raised, or what kept its group from being committed.
        """
        job = Job(work)
        with self._lock:
            self._waiting.append(job)
            job.is_leading, self._is_led = not self._is_led, True
        if not job.is_leading:
            job.wait()
        if job.is_leading:
            self._lead()
        return job.outcome()

    def _lead(self) -> None:
        """Have one group committed, the leader's own work first, and hand the lead on."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        try:
            self._commit(group)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_led = following is not None
                if following is not None:
                    following.is_leading = True
            for job in (*group[1:], *([following] if following else ())):
                job.wake()
