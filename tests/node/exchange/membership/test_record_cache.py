"""Records of members are remembered, and stand in for a directory that does not answer."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from node.documents.identity import Identity
from node.documents.lists import sign_list
from node.documents.network import JoinLetter, Membership, Network, Record
from node.domain.ids import FacilityId, NetworkId
from node.errors import PeerUnreachable
from node.exchange.events import Events
from node.exchange.membership.authority import Authority
from node.exchange.membership.memberships import Memberships
from node.exchange.membership.networks import Networks
from node.exchange.membership.record_cache import PIECE, RecordCache
from node.store.context import StoreContext
from node.store.networks import NetworkStore
from node.store.records import RecordStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.members import BILLINGS, HELENA, KEY, ME, NETWORK, NOW, Member


class FakeDirectories:
    """A directory that answers or does not."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.is_away = False
        self.asked: list[Sequence[FacilityId]] = []
        self.tries = 0
        self.expected: list[NetworkId] = []

    def expect_list(self, network: NetworkId) -> None:
        self.expected.append(network)

    async def join(self, letter: JoinLetter, membership: Membership) -> None:
        pass

    async def find(self, network: Network, words: str, limit: int) -> Sequence[Record]:
        self._hold()
        return [m.record() for m in self.members if words.casefold() in m.name.casefold()][:limit]

    async def lookup(self, network: Network, facilities: Sequence[FacilityId]) -> Sequence[Record]:
        self.tries += 1
        self._hold()
        self.asked.append(facilities)
        return [m.record() for m in self.members if m.facility in facilities]

    def _hold(self) -> None:
        if self.is_away:
            raise PeerUnreachable("the directory of Montana is not reachable")


class World:
    """A store that has joined the network, and what is built on it."""

    def __init__(self, context: StoreContext, pairing: Any = None) -> None:
        self.records = RecordStore(context)
        self.book = NetworkStore(context)
        self.directories = FakeDirectories([BILLINGS, HELENA])
        self.record_cache = RecordCache(self.records, ME.facility)
        pairing = pairing or self  # nobody is met here
        events = Events()
        self.memberships = Memberships(self.book, trusts_members=True)
        self.authority = Authority(
            self.book, self.memberships, self.record_cache, pairing, events.publish
        )
        self.networks = Networks(
            self.book,
            self.memberships,
            self.directories,
            self.authority,
            self.record_cache,
            pairing,
            b"",
            events.publish,
        )
        self._number = 0

    async def listed(self, *members: Member, revoked: Sequence[Member] = ()) -> None:
        self._number += 1
        invitations = {m.invitation: m.facility for m in members}
        gone = frozenset(m.invitation for m in revoked)
        encoded = sign_list(KEY, NETWORK, self._number, invitations, gone, NOW)
        await self.authority.accept_list(NETWORK, encoded)

    async def accept_statements(self, identity: Identity) -> None:
        """Nobody is pinned here."""

    async def names(self, words: str) -> list[str]:
        found = await self.networks.find(words, 10)
        return [f.record.identity.profile.display_name for f in found]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    context = make_store(tmp_path)
    world = World(context)
    await world.book.add(ME.letter, ME.membership, actor("me"))
    await world.memberships.load()
    yield world
    context.close()


async def test_found_once_is_found_while_the_directory_is_away(world: World) -> None:
    await world.listed(ME, BILLINGS, HELENA)
    await world.names("billings")
    world.directories.is_away = True
    [found] = await world.networks.find("bilings mr", 10)
    assert found.record.identity == BILLINGS.record().identity
    assert not found.record.is_online
    assert NOW <= found.record.seen_time <= time.time()
    assert (await world.networks.lookup(BILLINGS.facility)).record == found.record
    for ask in (world.networks.find("helena", 10), world.networks.lookup(HELENA.facility)):
        with pytest.raises(PeerUnreachable):
            await ask


async def test_whom_the_directory_does_not_show_comes_after_whom_it_shows(world: World) -> None:
    other = Member("Billings Clinic", "Billings")
    await world.listed(ME, BILLINGS, other)
    await world.names("billings")
    world.directories.members = [other]
    found = await world.networks.find("billings", 10)
    assert [(f.record.identity.facility_id, bool(f.record.seen_time)) for f in found] == [
        (other.facility, False),
        (BILLINGS.facility, True),
    ]
    assert (await world.networks.lookup(BILLINGS.facility)).record.seen_time


async def test_who_is_not_listed_is_not_remembered(world: World) -> None:
    await world.names("billings")  # provisional
    assert await world.records.seen(NETWORK, time.time()) == {}
    await world.listed(ME, HELENA, revoked=[BILLINGS])
    stolen = Member("Attacker")
    stolen.letter, stolen.membership = HELENA.letter, stolen.claimed(HELENA.letter)
    for record in (BILLINGS.record(), stolen.record(), HELENA.record(issued=int(NOW) + 3600)):
        await world.authority.accept_record(NETWORK, record)
    assert await world.records.seen(NETWORK, time.time()) == {}


async def test_revoked_member_is_remembered_no_longer(world: World) -> None:
    await world.listed(ME, BILLINGS)
    await world.names("billings")
    await world.listed(ME, revoked=[BILLINGS])
    assert await world.records.seen(NETWORK, time.time()) == {}
    world.directories.is_away = True
    with pytest.raises(PeerUnreachable):
        await world.names("billings")
    # Let in again, with a new invitation, it is: though it states what it stated before.
    world.directories.is_away = False
    again = Member("Billings Hospital")
    again.__dict__.update(BILLINGS.__dict__)
    _, again.membership = BILLINGS.invited()
    world.directories.members = [again]
    await world.listed(ME, again, revoked=[BILLINGS])
    await world.names("billings")
    world.directories.is_away = True
    assert await world.names("billings") == ["Billings Hospital"]


async def keep_remembering(world: World, is_enough: Callable[[], Awaitable[bool]]) -> None:
    """Have records asked for until that is enough."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.networks.keep_remembering)
        while not await is_enough():
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_all_members_are_asked_for_in_time_and_no_more_often_than_daily(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    offline = [Member(f"Offline {n}") for n in range(PIECE)]
    await world.listed(ME, BILLINGS, HELENA, *offline)

    async def has_seen() -> bool:
        seen = set(await world.records.seen(NETWORK, time.time()))
        return seen == {BILLINGS.facility, HELENA.facility} and world.directories.tries >= 2

    async def has_passed() -> bool:
        return trio.current_time() > started + 3600

    await keep_remembering(world, has_seen)
    started = trio.current_time()
    await keep_remembering(world, has_passed)
    # Nobody is asked for twice, those who are never there neither.
    asked = [facility for some in world.directories.asked for facility in some]
    assert max(map(len, world.directories.asked)) <= PIECE
    assert len(asked) == len(set(asked)) == PIECE + 2
    assert ME.facility not in asked


async def test_directory_that_is_away_ends_no_asking(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.listed(ME, BILLINGS)
    world.directories.is_away = True

    async def asked_in_vain() -> bool:
        return world.directories.tries >= 3

    async def has_seen() -> bool:
        return bool(await world.records.seen(NETWORK, time.time()))

    await keep_remembering(world, asked_in_vain)
    assert not await has_seen()
    world.directories.is_away = False
    await keep_remembering(world, has_seen)
