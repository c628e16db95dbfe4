"""PeerService: pairing, listing, removing."""

from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.parts import Parts, actor_of
from node.documents.identity import Identity
from node.documents.peers import Peer, alike_warning
from node.domain.ids import FacilityId
from node.errors import DocumentError, NodeError, PeerError, UsageError
from node.exchange.membership.pairing import HowToPair, StringPairing
from node.exchange.membership.strangers import Stranger
from node.rpc.pages import write_list
from node.rpc.serving import Call, Service, allow_all
from node.system import clock


class PeerHandlers:
    """Handlers of PeerService."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "ListPeers": self._list,
            "PairPeer": self._pair,
            "BeginStringPairing": self._begin_string,
            "ListStringPairings": self._list_strings,
            "ConfirmStringPairing": self._confirm_string,
            "RemovePeer": self._remove,
        }
        return Service(pb.DESCRIPTOR.services_by_name["PeerService"], handlers, allow_all)

    def _wire(self, peer: Peer, bytes_a_second: float = 0) -> pb.Peer:
        connection = self._parts.federation.connection(peer.facility_id)
        why_not = self._parts.trust.why_not(peer)
        warning = alike_warning(peer, self._parts.trust.peers.values())
        return wire.peer_to_wire(peer, connection, why_not, bytes_a_second, warning)

    async def _list(self, call: Call[None]) -> None:
        peers = sorted(await self._parts.peer_store.all(), key=lambda p: p.name.casefold())
        rates = await self._parts.transfer_store.rates()
        entries = (self._wire(peer, rates.get(peer.facility_id, 0)) for peer in peers)
        waiting = map(_string, self._parts.pairing.pending())
        asking = map(_stranger, self._parts.pairing.strangers.all())
        first = pb.ListPeersResponse(waiting_pairings=waiting, asking_facilities=asking)
        await write_list(call, first, "peers", entries)

    async def _pair(self, call: Call[None]) -> pb.PairPeerResponse:
        request: pb.PairPeerRequest = call.request
        pairing, actor = self._parts.pairing, actor_of(call)
        how = HowToPair(request.endpoint, request.restore_removed, request.refuse_alike)
        if request.statements:
            peer = await pairing.pair_by_statements(request.statements, actor=actor, how=how)
            return await self._paired(peer)
        try:
            facility = FacilityId.parse(request.facility_id)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        near = self._parts.lan.introductions(facility)
        for at in [request.at] if request.at else near:
            try:
                peer = await pairing.pair_by_id(facility, at, actor=actor, how=how)
            except (PeerError, DocumentError):  # whoever is near can say to be anyone
                if request.at:
                    raise
                continue
            return await self._paired(peer)
        identity, name = await self._shown(facility)
        peer = await pairing.pair_by_identity(identity, name, actor=actor, how=how)
        return await self._paired(peer)

    async def _shown(self, facility: FacilityId) -> tuple[Identity, str]:
        """Return the newest that a facility's directory shows of it, or it has shown itself here.

        With it comes the name that its network gave it; empty where it is in none.
        """
        asking = self._parts.pairing.strangers.identity(facility)
        if asking is None and not self._parts.networks.all():
            raise UsageError(
                "say where its introduction service is: --at HOST:PORT (or pair with its"
                " file, or join a network whose directory knows it)"
            )
        try:
            found = await self._parts.networks.lookup(facility)
        except NodeError:  # no network knows it, or no directory is reached
            if asking is None:
                raise
            return asking, ""
        listed = found.record.identity
        newest = max(listed, asking or listed, key=lambda shown: shown.order)
        return newest, found.record.membership.invitation.display_name

    async def _paired(self, peer: Peer) -> pb.PairPeerResponse:
        warnings = await self._parts.pairing.warnings(peer.facility_id, peer.name)
        return pb.PairPeerResponse(peer=self._wire(peer), warnings=warnings)

    async def _begin_string(self, call: Call[None]) -> pb.BeginStringPairingResponse:
        return _string(await self._parts.pairing.begin(call.request.at))

    async def _list_strings(self, call: Call[None]) -> None:
        pending = self._parts.pairing.pending()
        await write_list(call, pb.ListStringPairingsResponse(), "pairings", map(_string, pending))

    async def _confirm_string(self, call: Call[None]) -> pb.ConfirmStringPairingResponse:
        peer = await self._parts.pairing.confirm(call.request.short_string, actor_of(call))
        warnings = await self._parts.pairing.warnings(peer.facility_id, peer.name)
        return pb.ConfirmStringPairingResponse(peer=self._wire(peer), warnings=warnings)

    async def _remove(self, call: Call[None]) -> pb.RemovePeerResponse:
        peer = await self._parts.pairing.remove(call.request.facility, actor_of(call))
        return pb.RemovePeerResponse(peer=self._wire(peer))


def _stranger(stranger: Stranger) -> pb.AskingFacility:
    return pb.AskingFacility(
        facility_id=str(stranger.identity.facility_id),
        display_name=stranger.identity.profile.display_name,
        asked_seconds=int(clock.now() - stranger.seconds_ago),
    )


def _string(pairing: StringPairing) -> pb.BeginStringPairingResponse:
    return pb.BeginStringPairingResponse(
        attempt=pairing.attempt,
        short_string=pairing.short_string,
        display_name=pairing.identity.profile.display_name,
    )
