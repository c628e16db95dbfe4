"""Networks as people see them: how this facility stands, whom they find, and who is silent."""

from dataclasses import replace
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.admin.networks import NetworkHandlers
from node.documents.network import Network
from node.documents.peers import Peer
from node.domain.connections import ConnectionState, PeerWay
from node.domain.ids import FacilityId, InvitationId
from node.domain.network import NetworkList, NetworkView
from node.errors import DocumentError, NotFound, UsageError
from node.exchange.membership.networks import Found
from node.rpc.serving import Service
from tests.support.admin_services import AdminCall, answer, answers, facilities_of, peer_of
from tests.support.members import BILLINGS, HELENA, KEY, ME, NETWORK, NOW, Member
from tests.support.recorded import Recorded

CONNECTED = PeerWay(ConnectionState.CONNECTED, endpoint="d:1")
AWAY = PeerWay(ConnectionState.UNREACHABLE, endpoint="d:1", problem="nothing listens there")
YEAR = 366 * 86400.0


def signed_list(*members: Member, expires: float = NOW + YEAR) -> NetworkList:
    listed: dict[InvitationId, FacilityId] = {one.invitation: one.facility for one in members}
    return NetworkList(NETWORK, 7, NOW, expires, listed, frozenset(), b"l" * 32, epoch=2)


def network(
    latest: NetworkList | None = None, *, name: str = "Montana", revoked: Member | None = None
) -> Network:
    out = frozenset({revoked.invitation} if revoked else ())
    view = NetworkView(latest, revoked=out)
    return Network(name, KEY.public, ("d:1",), b"root", ME.membership, view, 500.5)


def make(
    *networks: Network, way: PeerWay = CONNECTED, peers: tuple[Peer, ...] = (), **answered: Any
) -> tuple[Service, Recorded]:
    used: Any = Recorded(**answered)
    used.all = lambda: list(networks)
    handlers = NetworkHandlers(used, facilities_of(*peers), lambda _: way)
    return handlers.service(), used


async def listed(*networks: Network, way: PeerWay = CONNECTED) -> list[pb.Network]:
    service, _ = make(*networks, way=way)
    page = await answer(service, "ListNetworks", AdminCall(pb.ListNetworksRequest()))
    return list(page.networks)


async def test_network_is_shown_with_its_list_and_the_way_to_its_directory() -> None:
    expires = NOW + YEAR
    (found,) = await listed(network(signed_list(ME, BILLINGS, expires=expires)))
    assert (found.network_id, found.name, found.standing) == (str(NETWORK), "Montana", "member")
    assert (found.list_epoch, found.list_number, found.members) == (2, 7, 2)
    assert (found.list_expires_seconds, found.joined_seconds) == (int(expires), 500)
    assert (found.state, found.endpoint, found.problem) == ("connected", "d:1", "")


async def test_network_without_a_list_yet_is_shown_as_one_that_has_confirmed_nobody() -> None:
    (found,) = await listed(network(), way=AWAY)
    assert (found.standing, found.members, found.list_expires_seconds) == ("provisional", 0, 0)
    assert (found.list_epoch, found.list_number) == (0, 0)
    assert (found.state, found.problem) == ("unreachable", "nothing listens there")


@pytest.mark.parametrize(
    ("found", "standing"),
    [
        (network(signed_list(ME), revoked=ME), "revoked"),
        (network(signed_list(BILLINGS)), "provisional"),
        (network(signed_list(ME, expires=NOW - 1)), "list-expired"),
    ],
)
async def test_network_is_shown_with_why_this_facility_is_no_member_now(
    found: Network, standing: str
) -> None:
    assert [one.standing for one in await listed(found)] == [standing]


async def test_facility_in_no_network_is_answered_with_an_empty_list() -> None:
    assert await listed() == []


async def test_network_is_joined_with_the_letter_for_who_asked() -> None:
    service, used = make(join=network())
    call = AdminCall(pb.JoinNetworkRequest(letter="emix-join-abc"))
    found = await answer(service, "JoinNetwork", call)
    assert (found.network.name, found.network.standing) == ("Montana", "provisional")
    assert used.calls == [("join", ("emix-join-abc", call.actor))]


async def test_letter_that_is_none_joins_nothing_and_the_reason_is_answered() -> None:
    service, _ = make(join=DocumentError("not a join letter"))
    with pytest.raises(DocumentError, match="not a join letter"):
        await answer(service, "JoinNetwork", AdminCall(pb.JoinNetworkRequest(letter="x")))


async def test_network_is_left_by_the_name_that_a_person_gave() -> None:
    service, used = make(leave=network())
    call = AdminCall(pb.LeaveNetworkRequest(network="montana"))
    assert (await answer(service, "LeaveNetwork", call)).network.network_id == str(NETWORK)
    assert used.calls == [("leave", ("montana", call.actor))]
    service, _ = make(leave=NotFound("no network is called so"))
    with pytest.raises(NotFound):
        await answer(service, "LeaveNetwork", call)


# -- finding --------------------------------------------------------------------------------------


async def find(
    *found: Found, peers: tuple[Peer, ...] = (), way: PeerWay = CONNECTED
) -> pb.FindFacilitiesResponse:
    service, _ = make(network(), peers=peers, way=way, find=list(found))
    call = AdminCall(pb.FindFacilitiesRequest(words="hospital"))
    page: pb.FindFacilitiesResponse = await answer(service, "FindFacilities", call)
    return page


async def test_found_facility_has_both_its_names_and_how_it_stands() -> None:
    """A member chooses what it calls itself; the network has signed the other name."""
    member = Member("St. Peter's", "Helena")
    member.name = "Mayo Clinic"
    record = member.record()
    listing = replace(record.listing, recipients=("Emergency",), software="emix 1")
    page = await find(Found(network(signed_list(member)), replace(record, listing=listing)))
    (one,) = page.facilities
    assert one.facility_id == str(member.facility)
    assert (one.display_name, one.listed_name) == ("Mayo Clinic", "St. Peter's")
    assert (one.city, one.software) == ("Helena", "emix 1")
    assert (list(one.departments), list(one.recipients)) == (["MR"], ["Emergency"])
    assert (one.online, one.standing, one.network) == (True, "member", "Montana")
    assert (one.seen_seconds, one.paired) == (0, False)


async def test_found_facility_that_another_is_listed_for_is_shown_so() -> None:
    latest = signed_list(BILLINGS)
    forged = replace(latest, members={HELENA.invitation: BILLINGS.facility})
    pages = [await find(Found(network(one), HELENA.record())) for one in (latest, forged)]
    assert [page.facilities[0].standing for page in pages] == ["provisional", "other-facility"]


async def test_remembered_facility_says_when_a_directory_last_showed_it() -> None:
    record = replace(HELENA.record(), is_online=False, seen_time=77.9)
    (one,) = (await find(Found(network(), record))).facilities
    assert (one.online, one.seen_seconds) == (False, 77)


@pytest.mark.parametrize(
    ("peer", "is_paired"),
    [
        (peer_of(HELENA), True),
        (peer_of(HELENA, removed=5.0), False),
        (peer_of(HELENA, network=NETWORK), False),
        (peer_of(BILLINGS), False),
    ],
)
async def test_paired_is_whom_a_person_here_has_pinned_and_not_removed(
    peer: Peer, is_paired: bool
) -> None:
    page = await find(Found(network(), HELENA.record()), peers=(peer,))
    assert page.facilities[0].paired is is_paired


async def test_networks_whose_directory_does_not_answer_are_named_beside_what_was_found() -> None:
    page = await find(Found(network(), HELENA.record()), way=AWAY)
    assert list(page.silent_networks) == ["Montana"]
    assert len(page.facilities) == 1
    assert list((await find(way=AWAY)).silent_networks) == ["Montana"]
    assert list((await find()).silent_networks) == []


@pytest.mark.parametrize(("asked", "limit"), [(0, 20), (3, 3)])
async def test_twenty_are_found_unless_another_number_is_asked_for(asked: int, limit: int) -> None:
    service, used = make(network(), find=[])
    request = pb.FindFacilitiesRequest(words="billings mr", limit=asked)
    assert list((await answer(service, "FindFacilities", AdminCall(request))).facilities) == []
    assert used.calls == [("find", ("billings mr", limit))]


async def test_facility_that_is_in_no_network_is_answered_with_what_to_do() -> None:
    service, _ = make(find=UsageError("this facility has joined no network yet"))
    call = AdminCall(pb.FindFacilitiesRequest(words="x"))
    with pytest.raises(UsageError, match="joined no network"):
        await answers(service, "FindFacilities", call)
    assert call.got == []
