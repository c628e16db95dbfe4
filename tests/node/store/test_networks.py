"""A network is kept as its letter and its lists say; a final revocation is never taken back."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from node.crypto.signing import SigningKey, network_id
from node.documents.lists import open_list, sign_list
from node.documents.network import JoinLetter, Membership, Network, claim, invite
from node.domain.ids import InvitationId
from node.domain.network import NO_LIST, NetworkView
from node.errors import NotFound
from node.store.audit import AuditStore
from node.store.networks import NetworkStore
from tests.support.actors import actor
from tests.support.members import BILLINGS, HELENA, KEY, ME, NETWORK, NOW
from tests.support.stores import new_store

DAY = 86400.0
Stores = tuple[NetworkStore, AuditStore]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncGenerator[Stores]:
    context = new_store(tmp_path)
    store = NetworkStore(context)
    await store.add(ME.letter, ME.membership, actor("me"))
    yield store, AuditStore(context)
    context.close()


async def kinds(audit: AuditStore) -> list[tuple[str, str]]:
    return [(entry.kind, entry.operator) for entry in await audit.entries()]


async def only(store: NetworkStore) -> Network:
    [network] = await store.all()
    return network


async def keep(
    store: NetworkStore,
    number: int,
    *,
    revoked: frozenset[InvitationId] = frozenset(),
    final: frozenset[InvitationId] = frozenset(),
    now: float = NOW,
) -> bytes:
    """Keep what is known after a list."""
    members = {ME.invitation: ME.facility, BILLINGS.invitation: BILLINGS.facility}
    encoded = sign_list(KEY, NETWORK, number, members, revoked, now)
    view = NetworkView(open_list(encoded, KEY.public, now), revoked, final)
    await store.keep_view(NETWORK, view, encoded)
    return encoded


async def test_network_is_what_its_letter_says(stores: Stores) -> None:
    store, audit = stores
    network = await only(store)
    assert (network.id, network.network_key, network.name) == (NETWORK, KEY.public, "Montana")
    assert (network.endpoints, network.root_certificate) == (("h:1",), b"root")
    assert network.membership == ME.membership
    assert (network.view.place, network.signed_list) == (NO_LIST, b"")
    assert await kinds(audit) == [("network.joined", "me")]


async def test_joining_again_replaces_the_membership_and_keeps_the_list(stores: Stores) -> None:
    store, audit = stores
    encoded = await keep(store, 1, revoked=frozenset({HELENA.invitation}))
    letter, membership = ME.invited()
    letter = replace(letter, network_name="Big Sky", endpoints=("h:2", "h:3"))
    await store.add(letter, membership, actor("me"))
    network = await only(store)
    assert (network.name, network.endpoints) == ("Big Sky", ("h:2", "h:3"))
    assert network.membership == membership != ME.membership
    assert (network.signed_list, network.view.revoked) == (encoded, frozenset({HELENA.invitation}))
    assert [kind for kind, _ in await kinds(audit)].count("network.joined") == 2


def other_network(epoch: int = 1) -> tuple[JoinLetter, Membership]:
    key = SigningKey.new()
    invitation, token = invite(key, "Me", NOW, list_epoch=epoch)
    letter = JoinLetter(invitation, token, key.public, "Idaho", ("i:1",), b"other")
    return letter, claim(letter, ME.facility_key.public, NOW)


async def test_networks_come_in_the_order_in_which_they_were_joined(stores: Stores) -> None:
    store, _ = stores
    letter, membership = other_network()
    await store.add(letter, membership, actor("me"))
    assert [network.name for network in await store.all()] == ["Montana", "Idaho"]
    await store.add(ME.letter, ME.membership, actor("me"))
    assert [network.name for network in await store.all()] == ["Idaho", "Montana"]


async def test_who_joined_in_a_later_epoch_takes_no_earlier_list(stores: Stores) -> None:
    store, _ = stores
    letter, membership = other_network(epoch=3)
    await store.add(letter, membership, actor("me"))
    networks = {network.name: network.view for network in await store.all()}
    assert (networks["Montana"].least_epoch, networks["Idaho"].least_epoch) == (1, 3)


async def test_view_comes_out_as_it_was_kept(stores: Stores) -> None:
    store, audit = stores
    one, two = HELENA.invitation, InvitationId(bytes(32))
    await keep(store, 1, revoked=frozenset({one, two}), final=frozenset({two}))
    view = (await only(store)).view
    assert (view.place, view.revoked, view.final) == (
        (1, 1),
        frozenset({one, two}),
        frozenset({two}),
    )
    assert view.latest is not None
    assert view.latest.members[BILLINGS.invitation] == BILLINGS.facility
    # What is final now; and what ended with its epoch.
    await keep(store, 2, revoked=frozenset({one}), final=frozenset({one}))
    view = (await only(store)).view
    assert (view.place, view.revoked, view.final) == ((1, 2), frozenset({one}), frozenset({one}))
    last = (await audit.entries())[-1]
    assert (last.kind, last.body) == (
        "network.list",
        f'{{"epoch": 1, "network": "{NETWORK}", "number": 2}}',
    )


async def test_list_that_was_kept_stays_whatever_the_clock_says(stores: Stores) -> None:
    """Whether it was from the future was decided when it was kept."""
    store, _ = stores
    await keep(store, 1, now=NOW + 1000 * DAY)
    assert (await only(store)).view.place == (1, 1)


async def test_network_that_was_left_is_forgotten_with_its_revocations(stores: Stores) -> None:
    store, audit = stores
    letter, membership = other_network()
    await store.add(letter, membership, actor("me"))
    await keep(store, 1, revoked=frozenset({HELENA.invitation}))
    await store.leave(NETWORK, actor("alice"))
    assert [network.name for network in await store.all()] == ["Idaho"]
    with pytest.raises(NotFound):
        await store.leave(NETWORK, actor("alice"))
    assert (await kinds(audit))[-1] == ("network.left", "alice")
    await store.add(ME.letter, ME.membership, actor("me"))
    found = {network.id: network.view for network in await store.all()}
    assert (found[NETWORK].latest, found[NETWORK].revoked) == (None, frozenset())
    assert network_id(letter.network_key) in found


async def test_view_of_a_network_that_was_left_meanwhile_brings_it_not_back(
    stores: Stores,
) -> None:
    store, _ = stores
    await store.leave(NETWORK, actor("me"))
    await keep(store, 1)
    assert await store.all() == []


async def test_what_a_directory_should_not_have_shown_is_one_alarm(stores: Stores) -> None:
    store, audit = stores
    for problem in ("an older list", "an older list", "two lists"):
        await store.alarm(NETWORK, problem)
    assert [entry.kind for entry in await audit.open_alarms()] == ["alarm.directory"] * 2
