"""Exports, as whoever gives a study away asks for them."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from node.domain.actors import Actor
from node.domain.exports import Sink, Tell
from node.exchange.export.schedule import schedule
from node.exchange.export.streams import Overlay, Piece, Unchanged, instance_stream
from node.exchange.ports import ExportPlan, ExportStore

P = TypeVar("P", bound=ExportPlan)


class Exports(Generic[P]):
    """Gives away what the store has."""

    def __init__(self, store: ExportStore[P]) -> None:
        self._store = store

    async def plan(self, study: str, origin: str, *, all_versions: bool, include_held: bool) -> P:
        """Decide what an export is to give away.

        Args:
            study: How a person names it.
            origin: Whose packages of it; empty where it is all the same.
            all_versions: Every version of an instance instead of the latest.
            include_held: Also instances that wait for a person.

        Raises:
            NotFound, Conflict: no study is meant, or several.
            SeveralOrigins: a person must say whose packages are meant.
        """
        return await self._store.plan(
            study, origin, all_versions=all_versions, include_held=include_held
        )

    async def scatter(
        self,
        plan: P,
        sink: Sink,
        *,
        actor: Actor,
        destination: str,
        safe_preamble: bool,
        tell: Tell,
    ) -> None:
        """Give every byte of what was planned to a sink, in any order: the fastest.

        The audit log has it before the first byte leaves.

        Raises:
            StoreError: a chunk is lost or damaged; what the sink raises passes through.

        Cancellation:
            More is recorded than left; what the sink has is its owner's to remove.
        """
        await self._store.export(
            plan,
            sink,
            actor=actor,
            destination=destination,
            safe_preamble=safe_preamble,
            tell=tell,
        )

    @asynccontextmanager
    async def stream(
        self,
        plan: P,
        *,
        actor: Actor,
        destination: str,
        overlay: Callable[[int], Overlay] = lambda _: Unchanged(),
    ) -> AsyncGenerator[AsyncIterator[Piece]]:
        """Give away what was planned, for the time of the block, one instance after the other.

        The audit log has it before the first byte leaves: cut off, more is recorded than left.

        Args:
            plan: What.
            actor: Who asked for it.
            destination: Where it goes, for the audit log.
            overlay: Returns what changes an instance, by its number in the plan.

        Raises:
            Conflict: the instances are scattered over their chunks.
            StoreError: a chunk is lost or damaged.
        """
        found = schedule(plan.places)
        open_chunk = partial(self._store.open_chunk, plan)
        async with instance_stream(found, open_chunk, overlay) as pieces:
            await self._store.note_begun(plan, actor, destination)
            yield pieces
        await self._store.note_ended(plan)
