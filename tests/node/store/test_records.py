"""The newest record of each member is kept for thirty days, and verified again when it is read."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from node.crypto.signing import SigningKey
from node.documents.network import Network, Record
from node.errors import DocumentError
from node.store.networks import NetworkStore
from node.store.records import RecordStore
from tests.support.actors import actor
from tests.support.members import BILLINGS, HELENA, ME, NETWORK, NOW, Member
from tests.support.stores import new_store

DAY = 86400.0


class World:
    """A store that has joined the network."""

    def __init__(self, records: RecordStore, book: NetworkStore) -> None:
        self.records = records
        self.book = book

    async def network(self) -> Network:
        [network] = await self.book.all()
        return network


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    context = new_store(tmp_path)
    world = World(RecordStore(context), NetworkStore(context))
    await world.book.add(ME.letter, ME.membership, actor("me"))
    yield world
    context.close()


async def kept(world: World, member: Member) -> Record:
    [record] = await world.records.get(await world.network(), [member.facility], time.time())
    return record


async def test_records_come_in_the_order_that_was_asked_for(world: World) -> None:
    await world.records.keep(NETWORK, [BILLINGS.record(), HELENA.record()], NOW)
    asked = [HELENA.facility, ME.facility, BILLINGS.facility]
    found = await world.records.get(await world.network(), asked, NOW)
    assert [record.identity.facility_id for record in found] == [HELENA.facility, BILLINGS.facility]
    assert not any(record.is_online for record in found)


async def test_members_are_found_by_their_names_city_and_departments(world: World) -> None:
    await world.records.keep(NETWORK, [BILLINGS.record(), HELENA.record()], NOW)
    assert await world.records.texts(NETWORK, NOW) == {
        BILLINGS.facility: ["Billings Hospital", "Billings Hospital", "Billings", "MR"],
        HELENA.facility: ["St. Peter's Health", "St. Peter's Health", "Helena", "MR"],
    }


async def test_all_others_are_forgotten_where_only_some_are_kept(world: World) -> None:
    await world.records.keep(NETWORK, [BILLINGS.record(), HELENA.record()], NOW)
    await world.records.keep_only(NETWORK, [HELENA.facility, ME.facility])
    assert await world.records.seen(NETWORK, NOW) == {HELENA.facility: NOW}


async def test_record_never_goes_back(world: World) -> None:
    await world.records.keep(NETWORK, [BILLINGS.record(issued=20, endpoint="new:1")], NOW)
    await world.records.keep(NETWORK, [BILLINGS.record(issued=10, endpoint="old:1")], NOW + DAY)
    record = await kept(world, BILLINGS)
    assert (record.identity.profile.endpoints, record.seen_time) == (("new:1",), NOW)


async def test_presence_writes_once_an_hour(world: World) -> None:
    for later, seen in ((0, 0), (3599, 0), (3601, 3601), (3000, 3000)):  # and a clock set back
        await world.records.keep(NETWORK, [BILLINGS.record()], NOW + later)
        assert (await kept(world, BILLINGS)).seen_time == NOW + seen


async def test_records_go_after_thirty_days_and_with_the_network(world: World) -> None:
    await world.records.keep(NETWORK, [BILLINGS.record()], NOW)
    await world.records.keep(NETWORK, [HELENA.record()], NOW + 30 * DAY + 1)
    later = NOW + 30 * DAY + 1
    assert set(await world.records.seen(NETWORK, later)) == {HELENA.facility}
    assert await world.records.seen(NETWORK, later + 31 * DAY) == {}  # though nothing was written
    await world.book.leave(NETWORK, actor("me"))
    assert await world.records.seen(NETWORK, time.time()) == {}
    await world.records.keep(NETWORK, [BILLINGS.record()], NOW)  # said just before it was left
    assert await world.records.seen(NETWORK, time.time()) == {}


async def test_what_is_kept_is_verified_again(world: World) -> None:
    await world.records.keep(NETWORK, [BILLINGS.record()], NOW)
    network = await world.network()
    other = replace(network, network_key=SigningKey.new().public)
    assert await world.records.get(other, [BILLINGS.facility], NOW) == []  # another network's
    world.records._database.write_sync(
        lambda db: db.execute("UPDATE records SET listing = ?", (HELENA.record().signed_listing,))
    )
    with pytest.raises(DocumentError):
        await world.records.get(network, [BILLINGS.facility], NOW)
