"""Imports that wait for a person: held instances and unfinished imports."""

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
        """Return the held instances that were imported for a study."""

    async def decide_held(self, held_id: int, *, release: bool, actor: Actor) -> PackageId | None:
        """Release an instance into a package of its study, or discard it."""

    async def list_imports(self) -> Sequence[tuple[UnfinishedImport, bool]]:
        """Return imports that run or were not finished, and whether each runs."""

    async def unfinished_of(self, study_uid: str, origin: FacilityId) -> Sequence[int]:
        """Return the unfinished imports that have instances of a study."""

    async def discard_import(self, number: int, actor: Actor) -> int:
        """Delete what an unfinished import has kept."""


class WaitingImports:
    """Lists what waits for a person, and carries out the decisions about it."""

    def __init__(self, rows: WaitingRows, audit: AuditTrail) -> None:
        self._rows = rows
        self._audit = audit

    async def held(self, actor: Actor) -> Sequence[HeldInstance]:
        """Return instances that wait for a person, oldest first; the audit log has it first."""
        held = await self._rows.list_held()
        await self._audit.note_list("held.listed", {"held": len(held)}, actor)
        return held

    async def held_of(self, study_uid: str, origin: FacilityId) -> Sequence[HeldInstance]:
        """Return the held instances that were imported for a study; no package has them yet."""
        return await self._rows.held_of(study_uid, origin)

    async def decide(self, held_id: int, *, release: bool, actor: Actor) -> PackageId | None:
        """Release an instance into a package of its study, or discard it; durable on return.

        Returns:
            The package that has it now; None if it was discarded.

        Raises:
            NotFound: no held instance has that number.

        Cancellation:
            The decision was carried out, or the instance is still held.
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
        """Delete what an unfinished import has kept; return the number of packages deleted.

        Raises:
            NotFound: no unfinished import has that number, or it is running.

        Cancellation:
            Some of its packages may be gone; the import is listed until all are.
        """
        return await self._rows.discard_import(number, actor)
