"""What is here, as the catalogue lists it."""

from node.domain.display_text import words_to_find
from node.domain.ids import FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.query import Level, make_query
from node.store.audit import AuditStore
from node.store.catalogue import CatalogueStore
from node.store.context import StoreContext


async def listed(
    context: StoreContext, words: str = "", limit: int = 0
) -> list[tuple[StudyInstanceUID, FacilityId]]:
    """Return the studies in which all words occur, newest first."""
    store = CatalogueStore(context, AuditStore(context))
    return await store.studies(make_query(Level.STUDY, {}, words_to_find(words), limit=limit))
