"""Schedules the offers to one peer, without I/O: changes go in, due transfers come out.

A held offer waits until the peer reports a person's decision, which it does at once. It is offered
again unprompted only as a slow fallback, in case that report was lost. So held offers cost nothing,
however many there are.
"""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from node.domain.ids import TransferId
from node.domain.transfers import Direction, Priority, State, Transfer

FIRST_HELD_PAUSE, LONGEST_HELD_PAUSE = 600.0, 3600.0
_FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
_MOST_STALE = 1000
_LARGE_BYTES = 5 * 2**20
_MOST_PACKED = 8.0
_QUICK_SECONDS, _SLOW_SECONDS = 10.0, 20.0
_RING_PAUSE = 1.0  # between two offers of one transfer, however often a peer says so


@dataclass
class _Entry:
    """One transfer that waits.

    Attributes:
        transfer_id: The ID by which the peer knows it.
        priority: A lower value goes first.
        size: Its bytes, as a share of a large transfer's; at most 1.
        due: When it is offered next.
        pause: The pause after a failed offer.
        held_pause: The pause after an offer that is held at the peer.
        offered: When it was offered last.
        is_ready: It is due, and waits for a place only.
    """

    transfer_id: TransferId
    priority: Priority
    size: float
    due: float
    pause: float = _FIRST_PAUSE
    held_pause: float = FIRST_HELD_PAUSE
    offered: float = -math.inf
    is_ready: bool = False

    @property
    def is_rung(self) -> bool:
        """Whether it became due again, by a decision or withdrawal, while it was offered."""
        return self.due < math.inf


@dataclass(frozen=True)
class _Going:
    """One transfer that is under way.

    Attributes:
        share: What it takes of the places; none for one of priority stat.
        since: When it was offered.
        is_small: It takes less than a place where small ones share them.
    """

    share: float
    since: float
    is_small: bool


class Outbox:
    """What waits for one peer. Times are of one clock that never goes back, in seconds."""

    def __init__(
        self, at_once: int, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        """Prepare.

        Args:
            at_once: So many large ones are under way at once; of small ones up to eight times as
                many, as long as each is over soon. Three would leave a long line empty most of the
                time, and many on a slow line would each come too late. Those of priority stat wait
                for nobody.
            jitter: Returns a number between two.
        """
        self._at_once = at_once
        self._jitter = jitter
        self._entries: dict[int, _Entry] = {}
        self._numbers: dict[TransferId, int] = {}
        self._going: dict[int, _Going] = {}
        self._packed = 1.0  # how many small ones share a place
        # Heaps with the time at which each waiting transfer becomes due, those of priority stat
        # apart, and one of those that are due. What is not as an entry says is passed over.
        self._later: dict[bool, list[tuple[float, int]]] = {False: [], True: []}
        self._ready: list[tuple[Priority, int]] = []

    def __contains__(self, number: int) -> bool:
        """Whether a transfer waits."""
        return number in self._entries

    @property
    def next_due(self) -> float:
        """When something is due next, or was, as long as nothing changes; infinite for never."""
        is_full = self._is_full()
        dues = [self._first_later(is_stat=True)]
        if not is_full:
            dues.append(self._first_later(is_stat=False))
        number = self._first_ready()
        if number is not None and self._may_go(number, is_full):
            dues.append(self._entries[number].due)
        return min(dues)

    def _first_later(self, *, is_stat: bool) -> float:
        heap = self._later[is_stat]
        while heap and not self._is_later(*heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def _is_later(self, due: float, number: int) -> bool:
        entry = self._entries.get(number)
        return (
            entry is not None
            and entry.due == due
            and not entry.is_ready
            and number not in self._going
        )

    def _first_ready(self) -> int | None:
        while self._ready:
            number = self._ready[0][1]
            entry = self._entries.get(number)
            if entry is not None and entry.is_ready and number not in self._going:
                return number
            heapq.heappop(self._ready)
        return None

    def _put_off(self, number: int, due: float) -> None:
        """Have a transfer become due at a time; infinite for never by itself."""
        entry = self._entries[number]
        entry.due, entry.is_ready = due, False
        if due == math.inf:
            return
        heap = self._later[entry.priority is Priority.STAT]
        heapq.heappush(heap, (due, number))
        if len(heap) > 2 * len(self._entries) + _MOST_STALE:
            heap[:] = [kept for kept in heap if self._is_later(*kept)]
            heapq.heapify(heap)

    def _is_full(self) -> bool:
        return sum(going.share for going in self._going.values()) >= self._at_once

    def _may_go(self, number: int, is_full: bool) -> bool:
        return self._entries[number].priority is Priority.STAT or not is_full

    def found(self, row: Transfer, now: float) -> None:
        """Add a transfer that was stored before changes were subscribed to.

        The first offers of held transfers are spread over minutes: the peer reports at once those
        that are decided.
        """
        self.changed(row, now)
        if row.id in self._entries and row.state is State.HELD and not row.withdrawal_pending:
            due = self._entries[row.id].due + self._jitter(0.1, 1.0) * FIRST_HELD_PAUSE
            self._put_off(row.id, due)

    def changed(self, row: Transfer, now: float) -> None:
        """Note a transfer's new state; one that does not wait any more is removed."""
        if row.direction is not Direction.SEND:
            return
        entry = self._entries.get(row.id)
        if row.state.is_final and not row.withdrawal_pending:
            if entry is not None:
                del self._entries[row.id], self._numbers[entry.transfer_id]
        elif entry is None:
            size = min(1.0, row.bytes_total / _LARGE_BYTES)
            self._entries[row.id] = _Entry(row.transfer_id, row.priority, size, now)
            self._numbers[row.transfer_id] = row.id
            self._put_off(row.id, now)
        elif row.withdrawal_pending and row.id not in self._going:
            self._hurry(row.id, now)

    def take_due(self, now: float, most: int | None = None) -> list[int]:
        """Return the numbers of what is to be offered now, most urgent first; not too many."""
        for heap in self._later.values():
            while heap and heap[0][0] <= now:
                due, number = heapq.heappop(heap)
                if self._is_later(due, number):
                    entry = self._entries[number]
                    entry.is_ready = True
                    heapq.heappush(self._ready, (entry.priority, number))
        taken: list[int] = []
        while len(taken) != most:
            first = self._first_ready()
            if first is None or not self._may_go(first, self._is_full()):
                break
            heapq.heappop(self._ready)
            entry = self._entries[first]
            share = max(entry.size, 1 / self._packed)
            if entry.priority is Priority.STAT:
                share = 0.0
            self._going[first] = _Going(share, now, is_small=entry.size < 1)
            self._put_off(first, math.inf)
            taken.append(first)
        return taken

    def take_next(self, now: float) -> int | None:
        """Return the number of the most urgent that is to be offered now; None if nothing is."""
        taken = self.take_due(now, most=1)
        return taken[0] if taken else None

    def offered(self, number: int, row: Transfer, now: float) -> None:
        """Note a transfer's state after a successful offer: ended, or held by the peer."""
        going = self._going[number]
        if going.is_small and row.state is State.DELIVERED and now - going.since < _QUICK_SECONDS:
            self._packed = min(self._packed * 1.25, _MOST_PACKED)
        entry = self._ended(number, row, now)
        if entry is not None and not entry.is_rung:
            self._put_off(number, now + self._jitter(0.8, 1.2) * entry.held_pause)
            entry.pause = _FIRST_PAUSE
            entry.held_pause = min(2 * entry.held_pause, LONGEST_HELD_PAUSE)

    def failed(self, number: int, row: Transfer | None, now: float, later: float = 0) -> None:
        """Note an offer that failed and may succeed later.

        Args:
            number: The number of the transfer.
            row: The transfer's present state; None if it could not be read.
            now: The time.
            later: The seconds until the next offer, approximately; 0 for growing pauses.
        """
        entry = self._ended(number, row, now)
        if entry is not None and not entry.is_rung:
            self._put_off(number, now + self._jitter(0.8, 1.2) * (later or entry.pause))
            if not later:
                entry.pause = min(2 * entry.pause, LONGEST_PAUSE)

    def _ended(self, number: int, row: Transfer | None, now: float) -> _Entry | None:
        going = self._going.pop(number)
        if going.is_small and now - going.since > _SLOW_SECONDS:
            self._packed = max(self._packed / 2, 1.0)
        if row is not None:
            self.changed(row, now)
        entry = self._entries.get(number)
        if entry is not None:
            entry.offered = now
            if entry.is_rung:
                self._put_off(number, now + _RING_PAUSE)
        return entry

    def rung(self, transfer_id: TransferId, now: float) -> bool:
        """Make a transfer due since the peer has decided; return whether it was waiting."""
        number = self._numbers.get(transfer_id)
        if number is None:
            return False
        self._hurry(number, now)
        return True

    def _hurry(self, number: int, now: float) -> None:
        """Have a transfer become due as soon as it may; one that is due stays it."""
        entry = self._entries[number]
        due = max(now, entry.offered + _RING_PAUSE)
        if due < entry.due and not entry.is_ready:
            self._put_off(number, due)
