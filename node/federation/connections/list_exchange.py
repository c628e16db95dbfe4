"""Passes networks' lists on between peers, so that a directory cannot withhold one.

In every Hello each side says which lists it has, of networks in which the other side is listed. The
side with the older list gets the newer one: at once when a connection begins, else at the next
Hello, since an honest directory is faster.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.lists import MAX_LIST_BYTES
from node.documents.peers import Peer
from node.domain.ids import FacilityId, NetworkId
from node.domain.network import NO_LIST, ListPlace
from node.errors import NodeError, RemoteProtocolError
from node.rpc.bounds import Bound
from node.rpc.calling import Channel
from node.rpc.limits import RateLimit
from node.rpc.methods import method
from node.rpc.pieces import Gathering, pieces
from node.rpc.serving import Call

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["ExchangeService"]
LIST = Bound(MAX_LIST_BYTES + 1024)
_GET_LIST = method(_SERVICE, "GetList", pb.GetListRequest, pb.GetListResponse, answer=LIST)
_GIVE_LIST = method(_SERVICE, "GiveList", pb.GiveListRequest, pb.GiveListResponse)
_CALL_SECONDS = 30.0
_MOST_LISTS = 16
_LISTS_A_MINUTE = 20
"""Of one peer: each is a signature to verify, and up to four megabytes."""

_LISTS_AT_ONCE, _LISTS_AT_ONCE_IN_ALL = 1, 16
"""How many lists may be arriving at once: from one peer, and from all."""

Places = Mapping[NetworkId, ListPlace]
"""Of the newest lists known, by network."""


class KnownLists(Protocol):
    """The lists of this node's networks; `node.exchange.membership.memberships` implements it."""

    def list_places(self) -> Places:
        """Return where the newest lists stand; `NO_LIST` where there is none yet."""

    def list_places_for(self, facility: FacilityId) -> Places:
        """Return the same, of those lists that name a facility as a member."""

    def list_for(self, facility: FacilityId, network_id: NetworkId) -> bytes:
        """Return a newest list, as signed; `NotFound` if it does not name the facility."""


Accept = Callable[[FacilityId, NetworkId, bytes], Awaitable[None]]
"""Accepts a list that a peer has, if it is the network's and newer; nothing is verified yet."""


@dataclass(frozen=True)
class Plan:
    """Which lists to pass on."""

    to_get: frozenset[NetworkId]
    to_give: frozenset[NetworkId]


@dataclass
class Compared:
    """The lists of both sides at the last Hello; `ours` is None before the first."""

    ours: Places | None = None
    theirs: Places = field(default_factory=dict)


def plan(last: Compared, all_ours: Places, for_them: Places, theirs: Places) -> Plan:
    """Return which lists to pass on after a Hello.

    Args:
        last: What both sides had at the last Hello.
        all_ours: Our lists.
        for_them: Those of them that name the peer.
        theirs: What the peer says.
    """
    is_first, ours_before = last.ours is None, last.ours or {}
    ahead = {n for n, place in theirs.items() if n in all_ours and place > all_ours[n]}
    behind = {n for n, place in for_them.items() if place > theirs.get(n, place)}
    return Plan(
        to_get=frozenset(n for n in ahead if is_first or last.theirs.get(n, NO_LIST) > all_ours[n]),
        to_give=frozenset(n for n in behind if is_first or ours_before.get(n, NO_LIST) > theirs[n]),
    )


class ListExchange:
    """Client and server of passing lists on."""

    def __init__(self, lists: KnownLists, accept: Accept) -> None:
        self._lists = lists
        self._accept = accept
        self._rate = RateLimit(_LISTS_A_MINUTE, in_all=10**6)
        self._gathering = Gathering(
            MAX_LIST_BYTES, of_caller=_LISTS_AT_ONCE, in_all=_LISTS_AT_ONCE_IN_ALL
        )

    def known(self, facility: FacilityId) -> list[pb.KnownList]:
        """Return the lists to report to a peer."""
        places = list(self._lists.list_places_for(facility).items())[:_MOST_LISTS]
        return [pb.KnownList(network_id=n.digest, epoch=e, number=m) for n, (e, m) in places]

    async def compare(
        self, peer: FacilityId, channel: Channel, shown: Sequence[pb.KnownList], last: Compared
    ) -> None:
        """Pass lists on after a Hello of ours; updates `last`.

        A failure is logged only: another Hello or another peer may succeed.
        """
        try:
            await self._pass_on(peer, channel, _places(shown), last)
        except NodeError as exc:
            log.info("lists not passed on", peer=peer.short(), code=exc.code.value)

    async def _pass_on(
        self, peer: FacilityId, channel: Channel, theirs: Places, last: Compared
    ) -> None:
        ours, for_them = self._lists.list_places(), self._lists.list_places_for(peer)
        found = plan(last, ours, for_them, theirs)
        last.ours, last.theirs = ours, theirs
        for network_id in found.to_get:
            request = pb.GetListRequest(network_id=network_id.digest)
            answer = await channel.unary(_GET_LIST, request, timeout=_CALL_SECONDS)
            await self._accept(peer, network_id, answer.list)
        for network_id in found.to_give:
            encoded = self._lists.list_for(peer, network_id)
            name = network_id.digest
            given = [pb.GiveListRequest(network_id=name, list=piece) for piece in pieces(encoded)]
            await channel.bring(_GIVE_LIST, given, timeout=_CALL_SECONDS)
            log.info("list passed on", network=network_id.short(), peer=peer.short())

    async def get_list(self, call: Call[Peer]) -> pb.GetListResponse:
        """Handle the RPC."""
        self._count(call)
        network_id = _network_id(call.request.network_id)
        return pb.GetListResponse(list=self._lists.list_for(call.caller.facility_id, network_id))

    async def give_list(self, call: Call[Peer]) -> pb.GiveListResponse:
        """Handle the RPC."""
        self._count(call)
        first, encoded = await self._gathering.gather(call, lambda request: bytes(request.list))
        network_id = _network_id(first.network_id)
        await self._accept(call.caller.facility_id, network_id, encoded)
        return pb.GiveListResponse()

    def _count(self, call: Call[Peer]) -> None:
        self._rate.count(str(call.caller.facility_id))


def _network_id(digest: bytes) -> NetworkId:
    try:
        return NetworkId(digest)
    except ValueError as exc:
        raise RemoteProtocolError("a network ID does not have 32 bytes") from exc


def _places(shown: Sequence[pb.KnownList]) -> dict[NetworkId, ListPlace]:
    try:
        return {NetworkId(k.network_id): (k.epoch, k.number) for k in shown[:_MOST_LISTS]}
    except ValueError as exc:
        raise RemoteProtocolError("a network ID does not have 32 bytes") from exc
