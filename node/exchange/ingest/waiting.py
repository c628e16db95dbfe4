"""What of imports waits for a person: held instances, and imports that were not finished."""

from collections.abc import Sequence
from typing import Protocol

from node.domain.actors import Actor
from node.domain.held import HeldInstance
from node.domain.ids import FacilityId, PackageId
from node.domain.imports import UnfinishedImport
from node.exchange.ports import AuditTrail


class WaitingRows(Protocol):
    """What this needs of the store."""

    async def list_held(self) -> Sequence[HeldInstance]:
        """Return instances that wait for a person, oldest first."""

    async def held_of(self, study_uid: str, origin: FacilityId) -> Sequence[HeldInstance]:
        """Return what was imported of a study and waits for a person."""

    async def decide_held(self, held_id: int, *, release: bool, actor: Actor) -> PackageId | None:
        """Release an instance into a package of its study, or discard it."""

    async def list_imports(self) -> Sequence[tuple[UnfinishedImport, bool]]:
        """Return imports that run or were not finished, and whether each runs."""

    async def unfinished_of(self, study_uid: str, origin: FacilityId) -> Sequence[int]:
        """Return the imports that brought a part of a study and are not finished."""

    async def discard_import(self, number: int, actor: Actor) -> int:
        """Delete what an import kept that was not finished."""


class WaitingImports:
    """Shows what waits, and takes decisions about it."""

    def __init__(self, rows: WaitingRows, audit: AuditTrail) -> None:
        self._rows = rows
        self._audit = audit

    async def held(self, actor: Actor) -> Sequence[HeldInstance]:
        """Return instances that wait for a person, oldest first; the audit log has it first."""
        held = await self._rows.list_held()
        await self._audit.note_list("held.listed", {"held": len(held)}, actor)
        return held

    async def held_of(self, study_uid: str, origin: FacilityId) -> Sequence[HeldInstance]:
        """Return what was imported of a study and waits for a person, in no package yet."""
        return await self._rows.held_of(study_uid, origin)

    async def decide(self, held_id: int, *, release: bool, actor: Actor) -> PackageId | None:
        """Release an instance into a package of its study, or discard it; durable on return.

        Returns:
            The package that it is in now; None for one that was discarded.

        Raises:
            NotFound: nothing of that number waits.

        Cancellation:
            It was decided as asked, or it waits still.
        """
        return await self._rows.decide_held(held_id, release=release, actor=actor)

    async def unfinished(self, actor: Actor) -> Sequence[tuple[UnfinishedImport, bool]]:
        """Return imports that run or were not finished, oldest first, and whether each runs."""
        found = await self._rows.list_imports()
        await self._audit.note_list("imports.listed", {"imports": len(found)}, actor)
        return found

    async def count_unfinished(self) -> int:
        """Return how many imports were not finished and do not run."""
        return sum(not is_running for _, is_running in await self._rows.list_imports())

    async def unfinished_of(self, study_uid: str, origin: FacilityId) -> Sequence[int]:
        """Return the imports that brought a part of a study and are not finished."""
        return await self._rows.unfinished_of(study_uid, origin)

    async def discard(self, number: int, actor: Actor) -> int:
        """Delete what an import kept that was not finished; return how many packages that were.

        Raises:
            NotFound: there is none of that number, or it runs.

        Cancellation:
            Some of its packages may be gone; the import is listed until all are.
        """
        return await self._rows.discard_import(number, actor)
