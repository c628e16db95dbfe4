"""The capabilities of this node, and those that each peer stated in its last Hello."""

from collections.abc import Collection, Iterable

from node.domain.capabilities import Capability, known
from node.domain.ids import FacilityId


class Capabilities:
    """The capabilities of each peer that has said Hello since this node started.

    Attributes:
        ours: Those that this node states.
    """

    def __init__(self, ours: Collection[Capability]) -> None:
        self.ours = ours
        self._of: dict[FacilityId, frozenset[Capability]] = {}

    def note(self, peer: FacilityId, names: Iterable[str]) -> None:
        """Note a peer's capabilities; they replace earlier ones, so a downgrade is noticed."""
        self._of[peer] = known(names)

    def of(self, peer: FacilityId) -> frozenset[Capability]:
        """Return a peer's capabilities; empty if it has not said Hello."""
        return self._of.get(peer, frozenset())
