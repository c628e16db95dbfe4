"""The use cases of export: plan one, write it in any order, or stream it."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from node.domain.actors import Actor
from node.domain.exports import Report, Sink
from node.exchange.export.schedule import schedule
from node.exchange.export.streams import Overlay, Piece, Unchanged, instance_stream
from node.exchange.ports import ExportPlan, ExportStore

P = TypeVar("P", bound=ExportPlan)


class Exports(Generic[P]):
    """Exports studies from the store."""

    def __init__(self, store: ExportStore[P]) -> None:
        self._store = store

    async def plan(self, study: str, origin: str, *, all_versions: bool, include_held: bool) -> P:
        """Decide what an export contains.

        Args:
            study: The study, as a person names it.
            origin: The facility whose packages to export; empty for any.
            all_versions: Every version of an instance instead of the latest.
            include_held: Also held instances.

        Raises:
            NotFound, Conflict: the text matches no study, or several.
            SeveralOrigins: the study has packages of several origins; a person must name one.
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
        report: Report,
    ) -> None:
        """Write every planned byte to a sink, in whatever order is fastest.

        The export is in the audit log before the first byte leaves.

        Raises:
            StoreError: a chunk is lost or damaged; what the sink raises passes through.

        Cancellation:
            The audit log has more than was exported; the caller removes what the sink wrote.
        """
        await self._store.export(
            plan,
            sink,
            actor=actor,
            destination=destination,
            safe_preamble=safe_preamble,
            report=report,
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
        """Stream what was planned, one instance after the other, for the time of the block.

        The export is in the audit log before the first byte leaves; if it is interrupted, the log
        has more than was exported.

        Args:
            plan: What to export.
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
