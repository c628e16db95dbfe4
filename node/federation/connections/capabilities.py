"""What each peer understands, as it said with its last Hello."""

from collections.abc import Iterable

from node.domain.capabilities import Capability, known
from node.domain.ids import FacilityId


class Capabilities:
    """Of each peer that has said Hello since this node started; of others nothing is known."""

    def __init__(self) -> None:
        self._of: dict[FacilityId, frozenset[Capability]] = {}

    def note(self, peer: FacilityId, names: Iterable[str]) -> None:
        """Take what a peer says; an older version that takes its place says less."""
        self._of[peer] = known(names)

    def of(self, peer: FacilityId) -> frozenset[Capability]:
        """Return what a peer understands."""
        return self._of.get(peer, frozenset())
