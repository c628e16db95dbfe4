"""A facility that is or was pinned here."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.documents.identity import Identity
from node.domain.ids import LEAST_CHARACTERS, FacilityId, InvitationId, NetworkId
from node.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Peer:
    """One facility that is or was pinned here.

    Attributes:
        identity: Its statements, verified.
        endpoint: Where a person said it is reached; empty for what it states itself.
        pinned_how: "id", "file" or "string"; `pinned_by` is the operator.
        removed_time: When a person removed it; None while it is pinned.
        last_seen_time: Last word from it; 0 for never.
        network: Where it is not pinned by a person: the network whose member it is, by
            `invitation`. Then it is trusted as long as it is one.
        name: What it is called here. It stays: a peer that calls itself otherwise later must not
            be taken for another.
    """

    identity: Identity
    endpoint: str
    pinned_how: str
    pinned_by: str
    pinned_time: float
    removed_time: float | None
    last_seen_time: float
    network: NetworkId | None = None
    invitation: InvitationId | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:  # of a pin that was made before names were kept
            object.__setattr__(self, "name", self.identity.profile.display_name)

    @property
    def facility_id(self) -> FacilityId:
        """The peer's facility."""
        return self.identity.facility_id

    @property
    def is_removed(self) -> bool:
        """Whether a person removed it."""
        return self.removed_time is not None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where to try to reach it, best first."""
        return (self.endpoint,) if self.endpoint else self.identity.profile.endpoints


def find_peer(peers: Sequence[Peer], text: str) -> Peer:
    """Return the peer that a person means by a name, an ID, or a long beginning of one.

    A name goes first: an ID that begins like somebody's name can be made.

    Raises:
        NotFound: nobody.
        Conflict: several.
    """
    wanted = text.strip()
    plain = wanted.upper().replace("-", "").replace(" ", "")
    found = [p for p in peers if p.name.casefold() == wanted.casefold()]
    if not found and len(plain) >= LEAST_CHARACTERS:
        found = [p for p in peers if str(p.facility_id).replace("-", "").startswith(plain)]
    if not found:
        raise NotFound(
            f"no paired facility is called {wanted!r}; `emix peers` lists them. Of a Facility ID,"
            f" {LEAST_CHARACTERS} characters are needed at least"
        )
    if len(found) > 1:
        raise Conflict(f"{len(found)} facilities are called so; use the Facility ID")
    return found[0]
