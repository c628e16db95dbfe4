"""Who is trusted as a member of a network, and who learns of its lists."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from node.documents.peers import Peer
from node.domain.network import NO_LIST
from node.errors import NotFound
from node.exchange.membership.memberships import objection
from node.system import clock
from tests.node.exchange.membership.test_record_cache import World
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.members import BILLINGS, HELENA, ME, NETWORK, NOW, Member


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    context = make_store(tmp_path)
    world = World(context)
    await world.book.add(ME.letter, ME.membership, actor("me"))
    await world.memberships.load()
    yield world
    context.close()


def member(of: Member, **changes: object) -> Peer:
    """Return the pin of a member that nobody paired with."""
    peer = Peer(
        of.record().identity, "", "network", "", NOW, None, 0.0, NETWORK, of.invitation, of.name
    )
    return replace(peer, **changes)  # type: ignore[arg-type]


async def test_member_is_trusted_as_long_as_both_are_listed(world: World) -> None:
    peer, distrust = member(BILLINGS), world.memberships.distrust
    assert "not confirmed yet" in distrust(peer)
    await world.listed(BILLINGS)
    assert distrust(peer).startswith("this facility is not confirmed yet")
    await world.listed(ME, HELENA)
    assert distrust(peer).startswith("it is not confirmed yet")
    await world.listed(ME, BILLINGS)
    assert distrust(peer) == ""
    await world.listed(ME, revoked=[BILLINGS])
    assert distrust(peer) == "it is revoked by the network"
    await world.listed(ME, BILLINGS)
    assert distrust(peer) == "it is revoked by the network", "no later list takes that back"


async def test_invitation_that_another_facility_used_makes_nobody_a_member(world: World) -> None:
    await world.listed(ME, BILLINGS)
    stolen = member(HELENA, invitation=BILLINGS.invitation)
    assert (
        world.memberships.distrust(stolen)
        == "it is not the facility that the network's signed list names for its invitation"
    )


async def test_whom_a_person_pinned_is_trusted_whatever_a_network_says(world: World) -> None:
    await world.listed(ME, revoked=[BILLINGS])
    assert world.memberships.distrust(member(BILLINGS, network=None, invitation=None)) == ""


async def test_no_member_is_trusted_where_paired_facilities_only_are(world: World) -> None:
    await world.listed(ME, BILLINGS)
    assert world.memberships.presented() == [ME.membership.encoded]
    world.memberships.trusts_members = False
    assert "paired facilities only" in world.memberships.distrust(member(BILLINGS))
    assert world.memberships.presented() == []


async def test_network_that_was_left_makes_nobody_trusted_and_is_shown_to_nobody(
    world: World,
) -> None:
    await world.listed(ME, BILLINGS)
    await world.book.leave(NETWORK, actor("me"))
    assert world.memberships.distrust(member(BILLINGS)) == "", "in force when it is loaded"
    await world.memberships.load()
    assert "has left their common network" in world.memberships.distrust(member(BILLINGS))
    assert world.memberships.presented() == []
    assert not world.memberships.is_listed(NETWORK, BILLINGS.facility)
    assert (world.memberships.all(), world.memberships.get(NETWORK)) == ([], None)


async def test_lists_are_for_those_whom_they_name(world: World) -> None:
    memberships = world.memberships
    assert memberships.list_places() == {NETWORK: NO_LIST}
    assert memberships.list_places_for(ME.facility) == {}
    await world.listed(ME, BILLINGS)
    (network,) = memberships.all()
    assert memberships.list_places() == {NETWORK: (1, 1)}
    assert memberships.list_places_for(BILLINGS.facility) == {NETWORK: (1, 1)}
    assert memberships.list_for(BILLINGS.facility, NETWORK) == network.signed_list
    assert memberships.list_places_for(HELENA.facility) == {}
    with pytest.raises(NotFound):
        memberships.list_for(HELENA.facility, NETWORK)
    await world.listed(ME, HELENA)
    with pytest.raises(NotFound):
        memberships.list_for(BILLINGS.facility, NETWORK)


async def test_list_that_has_expired_is_offered_to_nobody_and_makes_nobody_a_member(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.listed(ME, BILLINGS)
    (network,) = world.memberships.all()
    assert objection(network, BILLINGS.invitation, BILLINGS.facility) == ""
    monkeypatch.setattr(clock, "now", lambda: time.time() + 8 * 86400)
    assert world.memberships.list_places_for(BILLINGS.facility) == {}
    assert world.memberships.list_places() == {NETWORK: (1, 1)}
    why_not = objection(network, BILLINGS.invitation, BILLINGS.facility)
    assert why_not == "this facility is a member only by a signed list that has expired"
