"""The use cases of looking at and deleting studies."""

from collections.abc import Sequence
from typing import Protocol

from node.domain.actors import Actor
from node.domain.ids import FacilityId
from node.domain.studies import Chosen, Deleted, StudySource
from node.exchange.membership.facilities import Facilities


class StudyRows(Protocol):
    """What this needs of the store."""

    async def sources(self, studies: Sequence[tuple[str, FacilityId]]) -> list[StudySource]:
        """Return what is known of studies; without those that were deleted meanwhile."""

    async def get(self, text: str) -> tuple[Chosen, list[StudySource]]:
        """Return the study that a person means, once per origin, with its series."""

    async def note_shown(self, sources: Sequence[StudySource], actor: Actor) -> None:
        """Record that a study was shown."""

    async def delete(self, text: str, origin: str, actor: Actor) -> Deleted:
        """Delete one origin's packages of a study."""


class Studies:
    """Shows and deletes the studies of this node."""

    def __init__(self, rows: StudyRows, facilities: Facilities) -> None:
        self._rows = rows
        self._facilities = facilities

    async def sources(self, studies: Sequence[tuple[str, FacilityId]]) -> list[StudySource]:
        """Return what is known of studies that were listed; see `Catalogue.studies`."""
        return await self._rows.sources(studies)

    async def look_at(self, text: str, actor: Actor) -> tuple[Chosen, list[StudySource]]:
        """Return the study that a person means, once per origin; the audit log has it first.

        Raises:
            NotFound, Conflict: no study is meant, or several; the message names them by number.

        Cancellation:
            Nobody was shown anything, whether or not it is in the log.
        """
        chosen, sources = await self._rows.get(text)
        await self._rows.note_shown(sources, actor)
        return chosen, sources

    async def delete(self, text: str, origin: str, actor: Actor) -> Deleted:
        """Delete a study here: one origin's packages, and nothing that is in no package.

        Durable once this returns: a kill before that leaves it deleted or not, never half of it.

        Args:
            text: How a person names the study.
            origin: The origin of the packages: an ID, "own", or a facility's name here.
            actor: Who asked.

        Raises:
            NotFound: no such study, or none from that origin.
            SeveralOrigins: it came from several facilities and none is named.
            Conflict: it is being sent.
        """
        return await self._rows.delete(text, self._facilities.origin_named(origin), actor)
