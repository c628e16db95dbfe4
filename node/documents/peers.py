"""A facility that is or was pinned here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.documents.identity import Identity
from node.domain.ids import LEAST_CHARACTERS, FacilityId, InvitationId, NetworkId
from node.domain.names import alike, beginning_of_id, looks_like_id, same_name
from node.domain.texts import shown
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
    """Return the peer that a person means by an ID, a long beginning of one, or a name.

    An ID goes first, and what looks like one is never taken for a name: nobody can be sent what
    is meant for another by calling itself so.

    Raises:
        NotFound: nobody.
        Conflict: several; or another peer's name looks like that one.
    """
    wanted = text.strip()
    beginning = beginning_of_id(wanted)
    found = [p for p in peers if beginning and _id(p).startswith(beginning)]
    if not found and not looks_like_id(wanted):
        found = _called(peers, wanted)
    if not found:
        raise NotFound(
            f"no paired facility is called {shown(wanted)!r}; `emix peers` lists them. Of a"
            f" Facility ID, {LEAST_CHARACTERS} characters are needed at least"
        )
    if len(found) > 1:
        raise Conflict(f"{len(found)} facilities are called so; use the Facility ID")
    return found[0]


def look_alikes(peers: Sequence[Peer], facility: FacilityId, name: str) -> list[Peer]:
    """Return the other peers whose names a person could take for this one."""
    return [p for p in peers if p.facility_id != facility and alike(p.name, name)]


def alike_warning(peer: Peer, peers: Iterable[Peer]) -> str:
    """Return what a person should know of a peer whose name looks like another's; else nothing."""
    if peer.is_removed:
        return ""
    others = look_alikes([p for p in peers if not p.is_removed], peer.facility_id, peer.name)
    if not others:
        return ""
    return (
        f"its name looks like that of facility {others[0].facility_id.short()}: send by Facility ID"
    )


def _called(peers: Sequence[Peer], name: str) -> list[Peer]:
    similar = [p for p in peers if alike(p.name, name)]
    if len(similar) == 1 and not same_name(similar[0].name, name):
        raise NotFound(
            f"no paired facility is called {shown(name)!r}, but one has a name that looks like it;"
            " use its Facility ID"
        )
    return similar


def _id(peer: Peer) -> str:
    return str(peer.facility_id).replace("-", "")
