"""The catalogue: finds studies, series and instances by their attributes; records each query.

Every interface that searches uses it.
"""

from collections.abc import Sequence
from typing import Protocol

from node.domain.actors import Actor
from node.domain.catalogue import Found
from node.domain.ids import FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.query import Query


class CatalogueStore(Protocol):
    """What the catalogue needs of the store."""

    async def studies(self, query: Query) -> Sequence[tuple[StudyInstanceUID, FacilityId]]:
        """Return the studies that match, newest first, each of an origin once."""

    async def find(self, query: Query) -> Sequence[Found]:
        """Return what matches, the newest study first; of a study its series by their number."""

    async def note_queried(self, query: Query, answers: int, actor: Actor) -> None:
        """Record a query and its actor, durably; a repetition within minutes is not recorded."""


class Catalogue:
    """Answers queries about the studies, series and instances of this node."""

    def __init__(self, store: CatalogueStore) -> None:
        self._store = store

    async def studies(
        self, query: Query, actor: Actor
    ) -> Sequence[tuple[StudyInstanceUID, FacilityId]]:
        """Return the studies that match, newest first, each of an origin once.

        It is in the audit log before this returns.

        Cancellation:
            Nobody was shown anything, whether or not it is in the log.
        """
        found = await self._store.studies(query)
        await self._store.note_queried(query, len(found), actor)
        return found

    async def find(self, query: Query, actor: Actor) -> Sequence[Found]:
        """Return what matches at the query's level, with its values; as `studies` otherwise.

        Raises:
            UsageError: the question would have to look through too many studies.
        """
        found = await self._store.find(query)
        await self._store.note_queried(query, len(found), actor)
        return found
