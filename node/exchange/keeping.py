"""Maintenance of the node on an admin's request: backup, check of the store, retention, clock."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import Protocol

from node.domain.actors import Actor
from node.domain.backups import Piece
from node.domain.display_text import encodable
from node.domain.retention import Aged, Step
from node.exchange.ports import AuditTrail
from node.system import clock


class Maintained(Protocol):
    """The store, as a whole."""

    @property
    def chunk_place(self) -> str:
        """Where chunks are kept, as a person wrote it; empty for the home."""

    async def counts(self) -> Mapping[str, int]:
        """Return how much is here: studies, instances, sealed bytes, held, free bytes."""

    async def check(
        self,
        *,
        read_data: bool,
        report: Callable[[int, int, str], Awaitable[None]],
        studies: Collection[str] = (),
    ) -> int:
        """Hold every closed package, or those of some studies, against envelope and chunks."""

    async def backup(
        self,
        report: Callable[[int, int], Awaitable[None]],
        send: Callable[[Piece], Awaitable[None]],
        had: Collection[bytes] = frozenset(),
    ) -> None:
        """Pass a copy of the whole node to `send`, piece by piece."""


class Retained(Protocol):
    """The retention policy."""

    @property
    def days(self) -> int:
        """For how many days what was received is kept; 0 for ever."""

    async def page(self, after: int) -> list[Aged]:
        """Return some of what is older than that, by number, after a number."""

    async def step(self, actor: Actor) -> Step:
        """Announce what has become old enough, and delete some of what was announced."""


class ClockNotes(Protocol):
    """Audit entries about the clock."""

    async def confirmed(self, by: str, actor: Actor) -> None:
        """Record who confirmed it, and the time that is believed since."""


class Keeping:
    """The use cases of maintaining one node."""

    def __init__(
        self, store: Maintained, retention: Retained, clock_notes: ClockNotes, audit: AuditTrail
    ) -> None:
        self._store = store
        self._retention = retention
        self._clock_notes = clock_notes
        self._audit = audit

    @property
    def chunk_place(self) -> str:
        """Where chunks are kept, as a person wrote it; empty for the home."""
        return self._store.chunk_place

    async def counts(self) -> Mapping[str, int]:
        """Return how much is here: studies, instances, sealed bytes, held, free bytes."""
        return await self._store.counts()

    async def check(
        self,
        *,
        read_data: bool,
        report: Callable[[int, int, str], Awaitable[None]],
        studies: Collection[str] = (),
    ) -> int:
        """Check every closed package against its envelope and its chunks; return how many problems.

        Damage is recorded as it is found. `report` is called with the chunks done, the chunks in
        all, and a problem or an empty text. With `studies`, only what was imported of these is
        checked.

        Cancellation:
            The damage found so far is recorded.
        """
        return await self._store.check(read_data=read_data, report=report, studies=studies)

    async def backup(
        self,
        destination: str,
        had: Collection[bytes],
        report: Callable[[int, int], Awaitable[None]],
        send: Callable[[Piece], Awaitable[None]],
        actor: Actor,
    ) -> None:
        """Pass a copy of the whole node to `send`, piece by piece; recorded in the audit log first.

        Args:
            destination: Where the backup goes, according to the client.
            had: Digests of chunks that the client already has: these are named, not sent.
            report: Called before the first piece with the approximate number of files and bytes.
            send: Called with each piece; the next is read when it returns.
            actor: Who asked.

        Cancellation:
            More is recorded than left. Removals, which wait for its end, go on.
        """
        facts: dict[str, object] = {"destination": encodable(destination)}
        await self._audit.append("node.backed-up", facts, actor)
        await self._store.backup(report, send, had)

    @property
    def retention_days(self) -> int:
        """For how many days what was received is kept; 0 for ever."""
        return self._retention.days

    async def aged(self, actor: Actor) -> AsyncGenerator[list[Aged]]:
        """Yield pages of what is older than the policy's days, by number."""
        await self._audit.note_list("retention.listed", {}, actor)
        last = 0
        while found := await self._retention.page(last):
            last = found[-1].number
            yield found

    async def apply_retention(self, actor: Actor) -> Step:
        """Do now what the node does every hour; durable once this returns.

        Raises:
            Conflict: the clock is suspect: nothing is deleted by it.
        """
        return await self._retention.step(actor)

    async def confirm_clock(self, actor: Actor) -> float:
        """Record a person's confirmation that the clock is right; return its jump in seconds.

        Durable once this returns. The clock is trusted before that: after a kill in between, a
        person must confirm it again.
        """
        jump = clock.CLOCK.jump
        if jump:
            clock.CLOCK.confirm()
            await self._clock_notes.confirmed("a person", actor)
        return jump
