"""Which peers are trusted: checked on every handshake, on every call, and while a call runs.

`Trust` is an in-memory snapshot of the pins. A removal takes effect at once, even on open channels:
handshakes use the new set, calls are refused, and leases of the removed peer are cancelled.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from node.crypto.certificates import TlsIdentity, fingerprint, pem_to_der, why_not_valid
from node.documents.peers import Peer
from node.domain.ids import FacilityId, NodeId
from node.errors import PeerUntrusted
from node.rpc.credentials import TrustSnapshot
from node.system import clock

EXPIRED = "its node certificate has expired; its facility renews it: `emix node renew`"


class Trust:
    """The pins in force."""

    def __init__(
        self, identity: TlsIdentity, distrust: Callable[[Peer], str] = lambda _: ""
    ) -> None:
        """Begin with nobody; `distrust` says why a peer that is not removed is not trusted now."""
        self._identity = identity
        self._distrust = distrust
        self._peers: dict[FacilityId, Peer] = {}
        self._by_certificate: dict[bytes, FacilityId] = {}
        self._contested: dict[FacilityId, FacilityId] = {}  # owner of its key
        self._snapshot = TrustSnapshot(identity, frozenset())
        self._leases: dict[FacilityId, set[trio.CancelScope]] = defaultdict(set)

    @property
    def peers(self) -> dict[FacilityId, Peer]:
        """All peers, removed ones too."""
        return self._peers

    def update(self, peers: Sequence[Peer]) -> list[Peer]:
        """Use a new set of pins; leases of peers that are no longer trusted end.

        Leases also end if the peer's node was replaced or its certificate has expired.

        Returns:
            Peers whose node key or certificate is that of a peer pinned earlier: not trusted.
        """
        earlier, self._peers = self._peers, {peer.facility_id: peer for peer in peers}
        self._contested = {}
        trusted = [peer for peer in peers if self.is_trusted(peer)]
        owners: dict[bytes, Peer] = {}
        for peer in sorted(trusted, key=lambda p: p.pinned_time):
            own = [peer.identity.node_id.digest, *map(fingerprint, peer.identity.certificates)]
            others = [owners[digest] for digest in own if digest in owners]
            if others:
                self._contested[peer.facility_id] = others[0].facility_id
            else:
                owners.update(dict.fromkeys(own, peer))
        trusted = [peer for peer in trusted if peer.facility_id not in self._contested]
        ders = frozenset(der for peer in trusted for der in peer.identity.certificates)
        self._by_certificate = {d: p.facility_id for d, p in owners.items()}
        self._snapshot = TrustSnapshot(self._identity, ders)
        now = clock.now()
        kept = {
            peer.facility_id
            for peer in trusted
            if peer.identity.cert.is_valid(now)
            and _node_of(earlier.get(peer.facility_id, peer)) == _node_of(peer)
        }
        for facility, scopes in self._leases.items():
            if facility not in kept:
                for scope in list(scopes):
                    scope.cancel()
        return [self._peers[facility] for facility in self._contested]

    def use(self, identity: TlsIdentity) -> None:
        """Serve with another TLS identity of our own from now on."""
        self._identity = identity
        self._snapshot = TrustSnapshot(identity, self._snapshot.certificates)

    def trusted_facilities(self) -> list[FacilityId]:
        """Return all facilities that are trusted now."""
        return [p.facility_id for p in self._peers.values() if self.is_trusted(p)]

    def snapshot(self) -> TrustSnapshot:
        """Return what handshakes trust; called on gRPC's threads."""
        return self._snapshot

    def trusted(self, facility: FacilityId) -> Peer:
        """Return a peer that is pinned and not removed.

        Raises:
            PeerUntrusted: it is not.
        """
        peer = self._peers.get(facility)
        if peer is None:
            raise PeerUntrusted(f"facility {facility.short()} is not paired with this one")
        if peer.is_removed:
            raise PeerUntrusted(f"facility {facility.short()} was removed here")
        why = self.why_not(peer)
        if why:
            raise PeerUntrusted(f"facility {facility.short()} is not trusted: {why}")
        return peer

    def is_trusted(self, peer: Peer) -> bool:
        """Whether a peer is trusted now."""
        return not peer.is_removed and not self.why_not(peer)

    def why_not(self, peer: Peer) -> str:
        """Return why a peer that nobody removed is not trusted; empty if it is."""
        owner = self._contested.get(peer.facility_id)
        if owner is not None:
            return f"its node key or certificate is facility {owner.short()}'s"
        return self._distrust(peer)

    def replaced_since(self, facility: FacilityId) -> int:
        """Return since when a facility has its present node key; 0 for one that is not known."""
        peer = self._peers.get(facility)
        return peer.identity.cert.generation if peer else 0

    def identify(self, certificate_pem: bytes | None) -> Peer:
        """Return the trusted peer that a certificate is bound to, now.

        Raises:
            PeerUntrusted: no certificate, an unknown one, or one out of date.
        """
        if not certificate_pem:
            raise PeerUntrusted("the connection has no client certificate")
        try:
            der = pem_to_der(certificate_pem)
        except ValueError as exc:
            raise PeerUntrusted("the client certificate cannot be read") from exc
        facility = self._by_certificate.get(fingerprint(der))
        if facility is None:
            raise PeerUntrusted("the client certificate belongs to no paired facility")
        peer = self.trusted(facility)
        if not peer.identity.cert.is_valid(clock.now()):
            raise PeerUntrusted(EXPIRED)
        # By either time, while the clock is suspect: who may be refused wrongly cannot confirm it.
        moments = (clock.now(), clock.CLOCK.wall())
        if not any(der in peer.identity.valid_certificates(moment) for moment in moments):
            raise PeerUntrusted(f"the client certificate {why_not_valid(der, moments[0])}")
        return peer

    @contextmanager
    def lease(self, facility: FacilityId) -> Iterator[Peer]:
        """Cancel the block as soon as a peer is not trusted any more.

        Raises:
            PeerUntrusted: it is not trusted, or stopped being trusted in the block, which was
                cancelled then.
        """
        peer = self.trusted(facility)
        with trio.CancelScope() as scope:
            self._leases[facility].add(scope)
            try:
                yield peer
            finally:
                self._leases[facility].discard(scope)
                if not self._leases[facility]:
                    del self._leases[facility]
        if scope.cancelled_caught:
            self.trusted(facility)  # says why it is not any more
            raise PeerUntrusted(
                f"facility {facility.short()} was removed here, or has another node now"
            )


def _node_of(peer: Peer) -> NodeId:
    return peer.identity.node_id


class Pinned:
    """Updates `Trust` from the pins in the store."""

    def __init__(self, trust: Trust, pins: Callable[[], Awaitable[list[Peer]]]) -> None:
        self._trust = trust
        self._pins = pins
        self._reading = trio.Lock()

    async def refresh(self) -> list[Peer]:
        """Update trust from the stored pins; returns as `Trust.update`.

        Reads are serialised: else an older read could be applied last, and restore a peer that a
        person has just removed.

        Cancellation:
            Trust is as it was; the next refresh applies the changes.
        """
        async with self._reading:
            return self._trust.update(await self._pins())
