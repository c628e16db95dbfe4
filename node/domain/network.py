"""A network of facilities as one node sees it: who is a member now, and what it has seen before.

Lists only go forward, and a revocation that was seen once stays: a directory that shows an
older list, or another one under the same number, changes nothing here and is told of.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from node.domain.ids import FacilityId, InvitationId, NetworkId


class Standing(enum.Enum):
    """Whether a facility may exchange studies as a member, and why not."""

    MEMBER = "a member"
    PROVISIONAL = "not confirmed yet by the network's signed list"
    REVOKED = "revoked by the network"
    OTHER_FACILITY = "another facility is listed for its invitation"
    LIST_EXPIRED = "the network's signed list has expired"


class ListProblem(enum.Enum):
    """Why a list is not taken over."""

    OLDER = "an older list than the one known was shown"
    TWO_LISTS = "two different lists of one number were shown"
    WITHHELD = "a list that a peer has was not shown"


@dataclass(frozen=True, slots=True)
class NetworkList:
    """Members and revocations, as the network signed them.

    Attributes:
        members: Which facility came in with which invitation.
        revoked: Invitations that make nobody a member any more.
        digest: Names the exact list.
    """

    network: NetworkId
    number: int
    issued_time: float
    expires_time: float
    members: Mapping[InvitationId, FacilityId]
    revoked: frozenset[InvitationId]
    digest: bytes


@dataclass(frozen=True, slots=True)
class NetworkView:
    """What a node knows of a network.

    Attributes:
        latest: The newest list that it has seen; None before the first.
        revoked: Every revocation that it has ever seen.
    """

    latest: NetworkList | None = None
    revoked: frozenset[InvitationId] = frozenset()

    def after(self, shown: NetworkList) -> "NetworkView | ListProblem":
        """Return the view after a verified list was shown; the same one for the same list."""
        known = self.latest
        if known is not None:
            if shown.number < known.number:
                return ListProblem.OLDER
            if shown.number == known.number:
                return self if shown.digest == known.digest else ListProblem.TWO_LISTS
        return replace(self, latest=shown, revoked=self.revoked | shown.revoked)

    def standing(self, invitation: InvitationId, facility: FacilityId, now: float) -> Standing:
        """Return how a facility with a verified membership stands."""
        if invitation in self.revoked:
            return Standing.REVOKED
        if self.latest is None:
            return Standing.PROVISIONAL
        if now >= self.latest.expires_time:
            return Standing.LIST_EXPIRED
        listed = self.latest.members.get(invitation)
        if listed is None:
            return Standing.PROVISIONAL
        return Standing.MEMBER if listed == facility else Standing.OTHER_FACILITY
