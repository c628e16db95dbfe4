"""PeerService: pairing, listing, removing."""

from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.callers import actor_of
from node.documents.peers import Peer
from node.domain.ids import FacilityId
from node.errors import UsageError
from node.exchange.membership.facilities import Facilities
from node.exchange.membership.meeting import Meeting
from node.exchange.membership.pairing import HowToPair, Pairing, StringPairing
from node.exchange.membership.strangers import Stranger
from node.exchange.transfer.lists import PeerWays, TransferLists
from node.rpc.pages import write_list
from node.rpc.serving import Call, Service, allow_all
from node.system import clock


class PeerHandlers:
    """Handlers of PeerService."""

    def __init__(
        self,
        facilities: Facilities,
        pairing: Pairing,
        meeting: Meeting,
        ways: PeerWays,
        transfers: TransferLists,
    ) -> None:
        self._facilities = facilities
        self._pairing = pairing
        self._meeting = meeting
        self._ways = ways
        self._transfers = transfers

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
        way = self._ways.way(peer.facility_id)
        why_not = self._facilities.why_distrusted(peer)
        warning = self._facilities.warning_of(peer)
        return wire.peer_to_wire(peer, way, why_not, bytes_a_second, warning)

    async def _list(self, call: Call[None]) -> None:
        peers, rates = await self._facilities.all(), await self._transfers.rates()
        entries = (self._wire(peer, rates.get(peer.facility_id, 0)) for peer in peers)
        waiting = map(_string, self._pairing.pending())
        asking = map(_stranger, self._pairing.strangers.all())
        first = pb.ListPeersResponse(waiting_pairings=waiting, asking_facilities=asking)
        await write_list(call, first, "peers", entries)

    async def _pair(self, call: Call[None]) -> pb.PairPeerResponse:
        request: pb.PairPeerRequest = call.request
        actor = actor_of(call)
        how = HowToPair(request.endpoint, request.restore_removed, request.refuse_alike)
        if request.statements:
            peer = await self._pairing.pair_by_statements(request.statements, actor=actor, how=how)
            return await self._paired(peer)
        try:
            facility = FacilityId.parse(request.facility_id)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        peer = await self._meeting.pair(facility, request.at, actor=actor, how=how)
        return await self._paired(peer)

    async def _paired(self, peer: Peer) -> pb.PairPeerResponse:
        warnings = await self._pairing.warnings(peer.facility_id, peer.name)
        return pb.PairPeerResponse(peer=self._wire(peer), warnings=warnings)

    async def _begin_string(self, call: Call[None]) -> pb.BeginStringPairingResponse:
        return _string(await self._pairing.begin(call.request.at))

    async def _list_strings(self, call: Call[None]) -> None:
        pending = self._pairing.pending()
        await write_list(call, pb.ListStringPairingsResponse(), "pairings", map(_string, pending))

    async def _confirm_string(self, call: Call[None]) -> pb.ConfirmStringPairingResponse:
        peer = await self._pairing.confirm(call.request.short_string, actor_of(call))
        warnings = await self._pairing.warnings(peer.facility_id, peer.name)
        return pb.ConfirmStringPairingResponse(peer=self._wire(peer), warnings=warnings)

    async def _remove(self, call: Call[None]) -> pb.RemovePeerResponse:
        peer = await self._pairing.remove(call.request.facility, actor_of(call))
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
