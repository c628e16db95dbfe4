"""NetworkService: joining, listing, leaving, finding."""

from collections.abc import Callable

from emix.admin.v1 import admin_pb2 as pb

from node.admin.callers import actor_of
from node.documents.network import Network
from node.domain.connections import ConnectionState, PeerWay
from node.domain.ids import NetworkId
from node.domain.network import Standing
from node.exchange.membership.facilities import Facilities
from node.exchange.membership.networks import Found, Networks
from node.rpc.pages import write_list
from node.rpc.serving import Call, Handler, Service, allow_all
from node.system import clock

_FOUND = 20


class NetworkHandlers:
    """Handlers of NetworkService."""

    def __init__(
        self,
        networks: Networks,
        facilities: Facilities,
        directory: Callable[[NetworkId], PeerWay],
    ) -> None:
        self._networks = networks
        self._facilities = facilities
        self._directory = directory

    def service(self) -> Service:
        """Return the service to serve."""
        handlers: dict[str, Handler] = {
            "JoinNetwork": self._join,
            "ListNetworks": self._list,
            "LeaveNetwork": self._leave,
            "FindFacilities": self._find,
        }
        return Service(pb.DESCRIPTOR.services_by_name["NetworkService"], handlers, allow_all)

    def _wire(self, network: Network) -> pb.Network:
        latest = network.view.latest
        state = self._directory(network.id)
        return pb.Network(
            network_id=str(network.id),
            name=network.name,
            standing=_word(network.standing(clock.now())),
            list_epoch=network.view.place[0],
            list_number=network.view.place[1],
            list_expires_seconds=int(latest.expires_time) if latest else 0,
            members=len(latest.members) if latest else 0,
            state=state.state,
            endpoint=state.endpoint,
            problem=state.problem,
            joined_seconds=int(network.joined_time),
        )

    async def _join(self, call: Call[None]) -> pb.JoinNetworkResponse:
        network = await self._networks.join(call.request.letter, actor_of(call))
        return pb.JoinNetworkResponse(network=self._wire(network))

    async def _list(self, call: Call[None]) -> None:
        networks = map(self._wire, self._networks.all())
        await write_list(call, pb.ListNetworksResponse(), "networks", networks)

    async def _leave(self, call: Call[None]) -> pb.LeaveNetworkResponse:
        network = await self._networks.leave(call.request.network, actor_of(call))
        return pb.LeaveNetworkResponse(network=self._wire(network))

    async def _find(self, call: Call[None]) -> None:
        request = call.request
        found = await self._networks.find(request.words, request.limit or _FOUND)
        silent = [
            network.name
            for network in self._networks.all()
            if self._directory(network.id).state is not ConnectionState.CONNECTED
        ]
        first = pb.FindFacilitiesResponse(silent_networks=silent)
        await write_list(call, first, "facilities", map(self._found, found))

    def _found(self, found: Found) -> pb.FoundFacility:
        record, network = found.record, found.network
        facility = record.identity.facility_id
        peer = self._facilities.pin_of(facility)
        return pb.FoundFacility(
            facility_id=str(facility),
            display_name=record.identity.profile.display_name,
            listed_name=record.membership.invitation.display_name,
            city=record.listing.city,
            departments=record.listing.departments,
            recipients=record.listing.recipients,
            online=record.is_online,
            standing=_word(
                network.view.standing(record.membership.invitation.id, facility, clock.now())
            ),
            network=network.name,
            software=record.listing.software,
            seen_seconds=int(record.seen_time),
            paired=peer is not None and not peer.is_removed and peer.network is None,
        )


def _word(standing: Standing) -> str:
    return standing.name.lower().replace("_", "-")
