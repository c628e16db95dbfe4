"""Lists are accepted if they are the network's and newer; what contradicts them is an alarm."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace

import pytest

from node.crypto.signing import SigningKey
from node.documents.lists import sign_list
from node.domain.ids import NetworkId
from node.errors import PeerRefused
from node.exchange.membership import authority as module
from node.exchange.membership.pairing import Pairing
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.peers import PeerStore
from tests.node.exchange.membership.test_record_cache import World
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.members import BILLINGS, HELENA, KEY, ME, NETWORK, NOW, Member


def signed(
    number: int,
    *members: Member,
    key: SigningKey = KEY,
    days: int = 0,
) -> bytes:
    """Return a list of this number, signed so many days ago."""
    named = {one.invitation: one.facility for one in members}
    return sign_list(key, NETWORK, number, named, frozenset(), NOW - days * 86400)


class AlarmedWorld(World):
    """Joined to the network, with the audit log at hand."""

    def __init__(self, context: StoreContext) -> None:
        self.pins = PeerStore(context)
        super().__init__(context, self)
        self._audit = AuditStore(context)

    async def alarms(self) -> list[str]:
        entries = await self._audit.entries()
        return [json.loads(e.body)["problem"] for e in entries if e.kind == "alarm.directory"]

    @property
    def members(self) -> set[str]:
        """Who is listed in the newest list that is known."""
        known = {ME, BILLINGS, HELENA}
        return {m.name for m in known if self.memberships.is_listed(NETWORK, m.facility)}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[AlarmedWorld]:
    context = make_store(tmp_path)
    world = AlarmedWorld(context)
    await world.book.add(ME.letter, ME.membership, actor("me"))
    await world.memberships.load()
    yield world
    context.close()


async def test_newer_list_is_accepted_and_kept_and_the_same_one_is_known(
    world: AlarmedWorld,
) -> None:
    accept = world.authority.accept_list
    assert await accept(NETWORK, signed(1, ME))
    assert await accept(NETWORK, signed(3, ME, BILLINGS))
    assert await accept(NETWORK, signed(3, ME, BILLINGS))
    assert world.members == {"Me", "Billings Hospital"}
    (kept,) = await world.book.all()
    assert (kept.signed_list, kept.view.place) == (signed(3, ME, BILLINGS), (1, 3))
    assert await world.alarms() == []


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        (signed(2, ME), "an older list"),
        (signed(3, ME, HELENA), "two different lists with the same number"),
        (signed(4, ME, HELENA, days=8), "that had already expired"),
        (signed(4, ME, HELENA, days=-1), "a list that the network did not sign"),
        (signed(4, ME, HELENA, key=SigningKey.new()), "a list that the network did not sign"),
        (b"nonsense", "a list that the network did not sign"),
    ],
)
async def test_list_that_must_not_be_shown_is_an_alarm_and_changes_nothing(
    world: AlarmedWorld, shown: bytes, problem: str
) -> None:
    await world.authority.accept_list(NETWORK, signed(3, ME, BILLINGS))
    assert not await world.authority.accept_list(NETWORK, shown)
    assert world.members == {"Me", "Billings Hospital"}
    (alarm,) = await world.alarms()
    assert problem in alarm


async def test_list_of_a_network_that_was_left_is_nothing(world: AlarmedWorld) -> None:
    other = NetworkId(b"o" * 32)
    assert not await world.authority.accept_list(other, b"nonsense")
    assert not await world.authority.accept_passed_list(BILLINGS.facility, other, b"nonsense")
    assert await world.alarms() == []


async def test_peer_may_pass_on_what_is_newer_and_be_late(world: AlarmedWorld) -> None:
    accept = world.authority.accept_passed_list
    await world.authority.accept_list(NETWORK, signed(3, ME, BILLINGS))
    assert await accept(BILLINGS.facility, NETWORK, signed(5, ME, BILLINGS, HELENA))
    for late in (signed(5, ME, BILLINGS, HELENA), signed(4, ME), signed(6, ME, days=8)):
        assert not await accept(BILLINGS.facility, NETWORK, late)
    assert world.members == {"Me", "Billings Hospital", "St. Peter's Health"}
    assert await world.alarms() == []


async def test_peer_that_shows_a_wrong_list_is_named_if_it_is_a_member_and_refused_if_not(
    world: AlarmedWorld,
) -> None:
    await world.authority.accept_list(NETWORK, signed(3, ME, BILLINGS))
    wrong = signed(3, ME)
    with pytest.raises(PeerRefused):
        await world.authority.accept_passed_list(HELENA.facility, NETWORK, wrong)
    assert await world.alarms() == [], "a stranger must not fill the log"
    assert not await world.authority.accept_passed_list(BILLINGS.facility, NETWORK, wrong)
    (alarm,) = await world.alarms()
    assert alarm.startswith(f"facility {BILLINGS.facility.short()} shows two different lists")


async def test_equal_alarms_are_reported_a_few_times_a_minute(
    world: AlarmedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []

    class Book:
        async def alarm(self, _: NetworkId, problem: str) -> None:
            reported.append(problem)

    minute = 60.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: minute))
    monkeypatch.setattr(world.authority, "_book", Book())
    for _ in range(50):
        await world.authority.report_forgery(NETWORK, "one")
    await world.authority.report_forgery(NETWORK, "two")
    assert (reported.count("one"), reported.count("two")) == (20, 1)
    minute += 60
    await world.authority.report_forgery(NETWORK, "one")
    assert reported.count("one") == 21


async def test_record_of_a_listed_member_is_remembered_and_its_pin_renewed(
    world: AlarmedWorld, tmp_path: Path
) -> None:
    pairing = Pairing(world.pins, None, ME.facility, bytes, world.authority._publish)  # type: ignore[arg-type]
    world.accept_statements = pairing.accept_statements  # type: ignore[method-assign]
    await world.authority.accept_list(NETWORK, signed(1, ME, BILLINGS))
    old = BILLINGS.record(issued=int(NOW) - 10).identity
    await pairing.pin_member(old, "As listed", (NETWORK, BILLINGS.invitation))
    newer = BILLINGS.record(issued=int(NOW), endpoint="new:1")
    await world.authority.accept_record(NETWORK, newer)
    peer = await world.pins.get(BILLINGS.facility)
    assert peer is not None
    assert peer.identity == newer.identity
    assert peer.name == "As listed", "what it calls itself could be another's name"
    (network,) = world.networks.all()
    (kept,) = await world.records.get(network, [BILLINGS.facility], NOW)
    assert kept.identity == newer.identity
