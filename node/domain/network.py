"""A network as one node sees it: its present members, and the lists that the node has seen.

Lists only go forward: an older list from a directory, or another list under the same number,
changes nothing here and is reported. Lists are ordered by epoch first, then by number. Only the
network key begins an epoch; that overrules everything a stolen list key has signed.

A revocation in a list signed by the network key is permanent. A revocation that only a list key
signed stays in force within its epoch, whatever later lists of that epoch say.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from node.domain.ids import FacilityId, InvitationId, NetworkId

MAX_LISTED = 50
"""Departments, recipients, or relays, that a facility lists of itself."""


class Standing(enum.Enum):
    """Whether a facility may exchange studies as a member, and why not: it *is* each value."""

    MEMBER = "a member"
    PROVISIONAL = "not confirmed yet by the network's signed list"
    REVOKED = "revoked by the network"
    OTHER_FACILITY = "not the facility that the network's signed list names for its invitation"
    LIST_EXPIRED = "a member only by a signed list that has expired"


ListPlace = tuple[int, int]
"""Epoch and number: of two lists the one with the higher place is the newer."""

NO_LIST: ListPlace = (0, 0)


class ListProblem(enum.Enum):
    """Why a list is not taken over."""

    OLDER = "an older list than the one known here was presented"
    TWO_LISTS = "two different lists with the same number were presented"
    EXPIRED = "an unknown list was presented that had already expired"
    WITHHELD = "a list that a peer has was withheld"


@dataclass(frozen=True, slots=True)
class NetworkList:
    """Members and revocations, as the network signed them.

    Attributes:
        members: Which facility came in with which invitation.
        revoked: Invitations that make nobody a member any more.
        digest: Names the exact list.
        list_key_expires: Until when the list key stands that signed it; None for the network key.
    """

    network: NetworkId
    number: int
    issued_time: float
    expires_time: float
    members: Mapping[InvitationId, FacilityId]
    revoked: frozenset[InvitationId]
    digest: bytes
    epoch: int = 1
    list_key_expires: float | None = None

    @property
    def place(self) -> ListPlace:
        """Where it stands among the network's lists."""
        return (self.epoch, self.number)

    @property
    def final(self) -> frozenset[InvitationId]:
        """Those of its revocations that no later list takes back."""
        return self.revoked if self.list_key_expires is None else frozenset()


@dataclass(frozen=True, slots=True)
class NetworkView:
    """What a node knows of a network.

    Attributes:
        latest: The newest list that it has seen; None before the first.
        revoked: Every revocation that stands: all final ones, and all of this epoch.
        final: Every revocation that it has ever seen in a list that the network key signed.
        least_epoch: No list of an earlier one is taken over, not even as the first.
    """

    latest: NetworkList | None = None
    revoked: frozenset[InvitationId] = frozenset()
    final: frozenset[InvitationId] = frozenset()
    least_epoch: int = 1

    @property
    def place(self) -> ListPlace:
        """Where the newest list stands; `NO_LIST` before the first."""
        return self.latest.place if self.latest else NO_LIST

    def after(self, shown: NetworkList, now: float) -> "NetworkView | ListProblem":
        """Return the view after a verified list was shown; the same one for the same list.

        An expired list is not accepted: its signing key may have been stolen or revoked since. To
        restore a list that was already judged when it was kept, pass 0 as `now`.
        """
        known = self.latest
        if known is not None and shown.digest == known.digest:
            return self
        if shown.place < self.place or shown.epoch < self.least_epoch:
            return ListProblem.OLDER
        if shown.place == self.place:
            return ListProblem.TWO_LISTS
        if now >= shown.expires_time:
            return ListProblem.EXPIRED
        stands = self.revoked if known is None or known.epoch == shown.epoch else self.final
        return replace(
            self,
            latest=shown,
            revoked=stands | shown.revoked,
            final=self.final | shown.final,
        )

    def standing(self, invitation: InvitationId, facility: FacilityId, now: float) -> Standing:
        """Return the standing of a facility with a verified membership."""
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
