"""The networks that this facility has joined, and which members of them are trusted."""

from typing import Protocol

from node.documents.network import JoinLetter, Membership, Network
from node.documents.peers import Peer
from node.domain.actors import Actor
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.network import ListPlace, NetworkView, Standing
from node.errors import NotFound
from node.system import clock


class NetworkBook(Protocol):
    """What networks need of the store."""

    async def all(self) -> list[Network]:
        """Return all networks that the facility has joined."""

    async def add(self, letter: JoinLetter, membership: Membership, actor: Actor) -> None:
        """Keep a network that the facility has joined."""

    async def keep_view(self, network: NetworkId, view: NetworkView, encoded: bytes) -> None:
        """Keep what is known of a network after a newer list."""

    async def leave(self, network: NetworkId, actor: Actor) -> None:
        """Forget a network."""

    async def alarm(self, network: NetworkId, problem: str) -> None:
        """Record that a forged or invalid document was presented, unless that is an open alarm."""


class Memberships:
    """All networks of this facility, in memory. `load` reads them from the store.

    Attributes:
        trusts_members: The policy: whether members of a network are trusted without pairing.
    """

    def __init__(self, book: NetworkBook, *, trusts_members: bool) -> None:
        self._book = book
        self.trusts_members = trusts_members
        self._known: dict[NetworkId, Network] = {}
        self._listed: dict[NetworkId, frozenset[FacilityId]] = {}

    async def load(self) -> None:
        """Read all networks from the store; all other methods answer from memory."""
        self._known = {network.id: network for network in await self._book.all()}
        lists = [(n.id, n.view.latest) for n in self._known.values()]
        self._listed = {n: frozenset(one.members.values()) for n, one in lists if one}

    def all(self) -> list[Network]:
        """Return all networks, in the order in which they were joined."""
        return list(self._known.values())

    def get(self, network: NetworkId) -> Network | None:
        """Return a network; None for one that this facility is not in, or has left."""
        return self._known.get(network)

    # -- members that nobody pinned -------------------------------------------------------

    def distrust(self, peer: Peer) -> str:
        """Return why a peer is not trusted now; empty for one that is, or that a person pinned."""
        if peer.network is None or peer.invitation is None:
            return ""
        if not self.trusts_members:
            return "it is only a member of a network, and this node trusts paired facilities only"
        network = self._known.get(peer.network)
        if network is None:
            return "this facility has left their common network"
        return objection(network, peer.invitation, peer.facility_id)

    def presented(self) -> list[bytes]:
        """Return the memberships that show this facility to other members."""
        return [n.membership.encoded for n in self._known.values()] if self.trusts_members else []

    # -- lists ----------------------------------------------------------------------------

    def is_listed(self, network: NetworkId, facility: FacilityId) -> bool:
        """Whether the newest list of a network names a facility."""
        return facility in self._listed.get(network, ())

    def list_places(self) -> dict[NetworkId, ListPlace]:
        """Return where the newest lists known stand, by network; `NO_LIST` for none yet."""
        return {n.id: n.view.place for n in self._known.values()}

    def list_places_for(self, facility: FacilityId) -> dict[NetworkId, ListPlace]:
        """Return the same for the lists that name a facility, which alone may learn of them.

        Expired lists are left out: nobody accepts them any more.
        """
        now = clock.now()
        lists = {n: self._known[n].view.latest for n, f in self._listed.items() if facility in f}
        return {n: one.place for n, one in lists.items() if one and now < one.expires_time}

    def list_for(self, facility: FacilityId, network: NetworkId) -> bytes:
        """Return a network's newest list as it was signed.

        Raises:
            NotFound: it does not name that facility, or there is none.
        """
        if not self.is_listed(network, facility):
            raise NotFound("there is no list of that network here for the calling facility")
        return self._known[network].signed_list


def objection(network: Network, invitation: InvitationId, facility: FacilityId) -> str:
    """Return why a facility and this one are not both members now; empty if they are."""
    now = clock.now()
    mine = network.standing(now)
    if mine is not Standing.MEMBER:
        return f"this facility is {mine.value}"
    standing = network.view.standing(invitation, facility, now)
    return "" if standing is Standing.MEMBER else f"it is {standing.value}"
