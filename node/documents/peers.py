"""A facility that is or was pinned here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.documents.identity import Identity
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.names import alike, facilities_text, find_named


@dataclass(frozen=True, slots=True)
class Peer:
    """One facility that is or was pinned here.

    Attributes:
        identity: Its statements, verified.
        endpoint: Where a person said it is reached; empty for what it states itself.
        pinned_how: "id", "file" or "string"; `pinned_by` is the operator.
        removed_time: When a person removed it; None while it is pinned.
        last_seen_time: When it was last in contact; 0 for never.
        network: For a peer that no person pinned: the network of which it is a member, by
            `invitation`. It is trusted only while it is a member.
        name: Its local name. It does not change when the peer changes its own name, so that the
            peer cannot be confused with another.
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
    """Return the peer that a person means; see `find_named`, and what it raises."""
    facility = find_named({p.facility_id: p.name for p in peers}, text)
    return next(p for p in peers if p.facility_id == facility)


def look_alikes(peers: Sequence[Peer], facility: FacilityId, name: str) -> list[Peer]:
    """Return the other peers whose names a person could confuse with this one."""
    return [p for p in peers if p.facility_id != facility and alike(p.name, name)]


def alike_warning(peer: Peer, peers: Iterable[Peer]) -> str:
    """Return what a person should know of a peer whose name looks like another's; else nothing."""
    if peer.is_removed:
        return ""
    others = look_alikes([p for p in peers if not p.is_removed], peer.facility_id, peer.name)
    if not others:
        return ""
    others_text = facilities_text({p.facility_id: p.name for p in others})
    return (
        f"its name looks like that of {others_text}: send by Facility ID; its own is"
        f" {peer.facility_id}"
    )
