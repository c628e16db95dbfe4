"""Names of facilities, and which facility a person means by a name or an ID."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from node.documents.peers import Peer, alike_warning, find_peer
from node.domain.ids import FacilityId
from node.domain.names import OWN, find_named
from node.domain.waiting import HOW_TO_TRUST
from node.errors import NodeError, NotFound, PeerUntrusted


class TrustView(Protocol):
    """Which peers are trusted now; `node.federation.connections.trust` implements it."""

    @property
    def peers(self) -> Mapping[FacilityId, Peer]:
        """All peers, removed ones too."""

    def is_trusted(self, peer: Peer) -> bool:
        """Whether a peer is trusted now."""

    def why_not(self, peer: Peer) -> str:
        """Return why a peer that nobody removed is not trusted; empty if it is."""


class PeerBook(Protocol):
    """The pins, as the store has them."""

    async def all(self) -> list[Peer]:
        """Return all peers, removed ones too."""


class Members(Protocol):
    """Members of networks that no person pinned."""

    async def meet(self, text: str) -> Peer:
        """Return the member that a person means, pinned as one."""

    async def check_one_name(self, text: str, peer: Peer) -> None:
        """Check that a name by which a peer was found is not another member's, too."""


class Facilities:
    """This facility, those pinned here, and members of its networks."""

    def __init__(
        self, me: FacilityId, own_name: str, trust: TrustView, book: PeerBook, members: Members
    ) -> None:
        """Prepare.

        Args:
            me: The ID of this facility.
            own_name: The name of this facility.
            trust: Which peers are trusted.
            book: The pins.
            members: Members of networks that no person pinned.
        """
        self.me = me
        self.own_name = own_name
        self._trust = trust
        self._book = book
        self._members = members

    def names(self) -> dict[bytes, str]:
        """Return the names of this facility and of those pinned here, by id."""
        names = {p.facility_id.digest: p.name for p in self._trust.peers.values()}
        names[self.me.digest] = self.own_name
        return names

    def name_of(self, facility: FacilityId) -> str:
        """Return a facility's name; empty if it has no pin."""
        peer = self._trust.peers.get(facility)
        return peer.name if peer else ""

    def pin_of(self, facility: FacilityId) -> Peer | None:
        """Return a facility's pin, removed or not."""
        return self._trust.peers.get(facility)

    def why_distrusted(self, peer: Peer) -> str:
        """Return why a peer that nobody removed is not trusted; empty if it is."""
        return self._trust.why_not(peer)

    def warning_of(self, peer: Peer) -> str:
        """Return a warning if a peer's name looks like another's; else empty."""
        return alike_warning(peer, self._trust.peers.values())

    async def all(self) -> list[Peer]:
        """Return all peers by name, removed ones too."""
        return sorted(await self._book.all(), key=lambda peer: peer.name.casefold())

    async def named(self, text: str) -> Peer:
        """Return the peer that a person means, trusted or not.

        Raises:
            NotFound, Conflict: nobody is meant, or several.
        """
        return find_peer(await self._book.all(), text)

    def origin_named(self, text: str) -> str:
        """Return an origin in the form that the store accepts: a name is replaced by the ID.

        What names no facility that is known here goes on as it is: it may be the ID of another.

        Raises:
            Conflict: several facilities have that name.
        """
        if text.strip().casefold() == OWN:
            return OWN
        names = {FacilityId(digest): name for digest, name in self.names().items()}
        try:
            return str(find_named(names, text))
        except NotFound:
            return text

    async def receiver_named(self, text: str) -> Peer:
        """Return the facility that is to be sent to.

        Raises:
            NotFound, Conflict: nobody is meant, or several.
            PeerUntrusted: it is known and not trusted; the message says what to do, and where.

        Cancellation:
            A member that was met first may be pinned as one; nothing else has changed.
        """
        peers = await self._book.all()
        trusted = [p for p in peers if self._trust.is_trusted(p)]
        try:
            peer = find_peer(trusted, text)
        except NotFound:
            try:
                return await self._members.meet(text)
            except NotFound:
                self._explain_untrusted([p for p in peers if p not in trusted], text)
                raise
        await self._members.check_one_name(text, peer)
        return peer

    def _explain_untrusted(self, peers: Sequence[Peer], text: str) -> None:
        """Raise `PeerUntrusted` with the reason if the text names a known, untrusted facility."""
        try:
            peer = find_peer(peers, text)
        except NodeError:
            return
        if peer.is_removed:
            raise PeerUntrusted(
                "it was removed here: `emix peers pair --restore-removed` accepts it again"
            )
        raise PeerUntrusted(f"{self._trust.why_not(peer)}. {HOW_TO_TRUST}")
