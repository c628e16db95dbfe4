"""Pins come from an ID, a file or a compared string, and statements only ever go forward."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.crypto.certificates import make_tls_identity
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.identity import Identity, Profile, make_statements
from node.documents.signed import certify_node
from node.domain.events import Event, PinsChanged
from node.domain.ids import InvitationId, NetworkId
from node.errors import (
    BadSignature,
    Conflict,
    NodeError,
    NotFound,
    PeerBusy,
    PeerUntrusted,
    UsageError,
)
from node.exchange.membership import pairing as module
from node.exchange.membership.pairing import HowToPair, Pairing
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.peers import PeerStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor

ALICE, HOW = actor("alice"), HowToPair()
NOW = int(time.time())
MEMBER = (NetworkId(b"n" * 32), InvitationId(b"i" * 32))


class Facility:
    """A facility with a node, which states things of itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key, self._seal = SigningKey.new(), SealKey.new().public
        self._node_key = SigningKey.new()
        self._tls = make_tls_identity(node_id(self._node_key.public), NOW)
        self.id = self.states().facility_id

    def renew_node(self) -> None:
        """Have another node key."""
        self._node_key = SigningKey.new()
        self._tls = make_tls_identity(node_id(self._node_key.public), NOW)

    def states(self, issued: int = NOW, *, generation: int = 1, name: str = "") -> Identity:
        ahead = max(NOW, generation)
        signer = certify_node(self._key, self._node_key, ahead, generation=generation)
        profile = Profile(name or self.name, ("h:1",), (), issued)
        return Identity.decode(
            make_statements(
                self._node_key, signer, [self._tls.certificate_der], self._seal, profile
            )
        )


ME, BILLINGS, HELENA = Facility("Me"), Facility("Billings"), Facility("Helena")


@dataclass
class Introductions:
    """The introduction services that are reached; `alter` changes statements on their way."""

    shown: dict[str, Identity] = field(default_factory=dict)
    others: dict[str, Pairing] = field(default_factory=dict)
    alter: Callable[[bytes], bytes] = bytes

    async def fetch_statements(self, address: str) -> Identity:
        return self.shown[address]

    async def begin_string(self, address: str, commitment: bytes) -> tuple[bytes, bytes, Identity]:
        attempt, nonce = self.others[address].begin_string(commitment)
        return attempt, nonce, self.shown[address]

    async def open_string(
        self, address: str, attempt: bytes, nonce: bytes, statements: bytes
    ) -> None:
        identity = Identity.decode(self.alter(statements))
        await self.others[address].open_string(attempt, nonce, identity)


@dataclass
class World:
    """A facility's pins in a real store, and what was published."""

    context: StoreContext
    events: list[Event] = field(default_factory=list)
    others: Introductions = field(default_factory=Introductions)

    def __post_init__(self) -> None:
        self.pins = PeerStore(self.context)
        self.pairing = self.of(ME)

    def of(self, facility: Facility) -> Pairing:
        """Return a facility's pairing; of all but `ME` only strings are asked of it."""
        statements = facility.states().encoded
        return Pairing(self.pins, self.others, facility.id, lambda: statements, self.publish)

    async def publish(self, event: Event) -> None:
        self.events.append(event)

    async def names(self) -> list[str]:
        return [peer.name for peer in await self.pins.all() if not peer.is_removed]

    async def alarms(self) -> list[str]:
        entries = await AuditStore(self.context).entries()
        return [entry.kind for entry in entries if entry.kind.startswith("alarm.")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    context = make_store(tmp_path)
    yield World(context)
    context.close()


class Monotonic:
    """The clock that only counts, in the test's hands."""

    def __init__(self) -> None:
        self.time = 10_000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    counting = Monotonic()
    monkeypatch.setattr(module, "time", counting)
    return counting


# -- by ID or file ------------------------------------------------------------------------


async def test_facility_is_pinned_only_where_it_is_the_one_that_was_named(world: World) -> None:
    world.others.shown["there"] = HELENA.states()
    with pytest.raises(PeerUntrusted, match=str(HELENA.id)):
        await world.pairing.pair_by_id(BILLINGS.id, "there", actor=ALICE, how=HOW)
    assert (await world.names(), world.events) == ([], [])
    how = HowToPair(endpoint="10.1.2.3:1")
    peer = await world.pairing.pair_by_id(HELENA.id, "there", actor=ALICE, how=how)
    assert (peer.facility_id, peer.endpoint, peer.pinned_how) == (HELENA.id, "10.1.2.3:1", "id")
    assert world.events == [PinsChanged()]


@pytest.mark.parametrize(
    ("identity", "error"),
    [
        (ME.states(), UsageError),
        (BILLINGS.states(NOW + 3600), UsageError),
        (BILLINGS.states(generation=NOW + 3600), BadSignature),
    ],
)
async def test_what_would_shut_out_all_that_follows_is_not_pinned(
    world: World, identity: Identity, error: type[NodeError]
) -> None:
    with pytest.raises(error):
        await world.pairing.pair_by_statements(identity.encoded, actor=ALICE, how=HOW)
    with pytest.raises(error):
        await world.pairing.pin_member(identity, "As listed", MEMBER)
    assert (await world.names(), world.events) == ([], [])


@pytest.mark.parametrize("name", ["BiIIings", "Me"])
async def test_name_that_looks_like_anothers_or_the_own_is_refused_where_a_person_says_so(
    world: World, name: str
) -> None:
    pairing = world.pairing
    await pairing.pair_by_statements(BILLINGS.states().encoded, actor=ALICE, how=HOW)
    alike = HELENA.states(name=name).encoded
    with pytest.raises(Conflict, match="nothing was pinned"):
        await pairing.pair_by_statements(alike, actor=ALICE, how=HowToPair(refuses_alike=True))
    assert await world.names() == ["Billings"]
    await pairing.pair_by_statements(alike, actor=ALICE, how=HOW)
    assert await world.names() == ["Billings", name]
    assert len(await pairing.warnings(HELENA.id, name)) == 1


async def test_removal_holds_until_a_person_says_otherwise(world: World) -> None:
    pairing = world.pairing
    await pairing.pair_by_statements(BILLINGS.states().encoded, actor=ALICE, how=HOW)
    world.events.clear()
    await pairing.remove("billings", ALICE)
    assert world.events == [PinsChanged()]
    assert not await pairing.presented(BILLINGS.states(NOW + 1))
    with pytest.raises(Conflict):
        await pairing.pin_member(BILLINGS.states(), "As listed", MEMBER)
    with pytest.raises(NotFound):
        await pairing.remove("billings", ALICE)
    assert await world.names() == []
    how = HowToPair(restores=True)
    await pairing.pair_by_statements(BILLINGS.states().encoded, actor=ALICE, how=how)
    assert await world.names() == ["Billings"]


async def test_who_asked_to_be_paired_with_asks_no_longer_once_it_is(world: World) -> None:
    pairing = world.pairing
    for facility in (BILLINGS, HELENA):
        pairing.strangers.note(facility.states())
    await pairing.pair_by_statements(BILLINGS.states().encoded, actor=ALICE, how=HOW)
    assert [one.identity.facility_id for one in pairing.strangers.all()] == [HELENA.id]


# -- what peers state anew ----------------------------------------------------------------


async def test_newer_statements_are_kept_and_older_and_future_ones_are_not(
    world: World, counting: Monotonic
) -> None:
    pairing = world.pairing

    async def kept_after(issued: int) -> int:
        assert await pairing.presented(BILLINGS.states(issued))
        counting.time += 60
        peer = await pairing.pin_of(BILLINGS.id)
        assert peer is not None
        return peer.identity.profile.issued_seconds

    await pairing.pair_by_statements(BILLINGS.states(NOW - 10).encoded, actor=ALICE, how=HOW)
    world.events.clear()
    assert await kept_after(NOW - 20) == NOW - 10
    assert await kept_after(NOW + 3600) == NOW - 10, "it would shut out all that follow"
    assert world.events == []
    assert await kept_after(NOW) == NOW
    assert world.events == [PinsChanged()]


async def test_peer_that_states_anew_all_the_time_is_renewed_every_twenty_seconds(
    world: World, counting: Monotonic
) -> None:
    pairing = world.pairing
    await pairing.pair_by_statements(BILLINGS.states(NOW - 1000).encoded, actor=ALICE, how=HOW)
    world.events.clear()
    for n in range(100):
        assert await pairing.presented(BILLINGS.states(NOW - 900 + n))
        counting.time += 1
    assert len(world.events) == 5


async def test_node_that_was_replaced_speaks_for_nobody_and_raises_an_alarm(world: World) -> None:
    pairing = world.pairing
    facility = Facility("Bozeman")
    old = facility.states()
    await pairing.pair_by_statements(old.encoded, actor=ALICE, how=HOW)
    assert await pairing.presented(facility.states(NOW + 1))
    facility.renew_node()
    assert await pairing.presented(facility.states(generation=2)), "at once, whatever came before"
    peer = await pairing.pin_of(facility.id)
    assert peer is not None
    assert peer.identity.cert.generation == 2
    assert await world.alarms() == []
    assert not await pairing.presented(old)
    assert not await pairing.presented(facility.states(generation=NOW + 3600))
    assert await world.alarms() == ["alarm.peer"]
    assert await pairing.pin_of(facility.id) == peer


async def test_forgery_of_somebody_who_is_not_pinned_fills_no_log(world: World) -> None:
    pairing = world.pairing
    await pairing.report_forged(HELENA.id, "it signed what it must not")
    assert await world.alarms() == []
    await pairing.pair_by_statements(HELENA.states().encoded, actor=ALICE, how=HOW)
    await pairing.report_forged(HELENA.id, "it signed what it must not")
    assert await world.alarms() == ["alarm.peer"]


# -- by short string ----------------------------------------------------------------------


async def test_both_sides_show_one_string_and_whoever_confirms_it_has_paired(
    world: World,
) -> None:
    answering = world.of(HELENA)
    world.others.others["there"], world.others.shown["there"] = answering, HELENA.states()
    mine = await world.pairing.begin("there")
    (theirs,) = answering.pending()
    assert mine.short_string == theirs.short_string
    assert (mine.identity.facility_id, theirs.identity.facility_id) == (HELENA.id, ME.id)
    with pytest.raises(NotFound):
        await world.pairing.confirm("AAAA-AAAA", ALICE)
    assert await world.names() == []
    typed = mine.short_string.lower().replace("-", " ")
    peer = await world.pairing.confirm(typed, ALICE)
    assert (peer.facility_id, peer.pinned_how) == (HELENA.id, "string")
    assert world.pairing.pending() == []
    with pytest.raises(NotFound):
        await world.pairing.confirm(typed, ALICE)


async def test_whoever_stands_in_between_shows_two_strings_or_is_refused(world: World) -> None:
    answering, between = world.of(HELENA), world.of(BILLINGS)
    world.others.others["there"] = answering
    # Who shows its own statements to both sides: the strings differ.
    world.others.others["between"] = between
    world.others.shown.update({"between": BILLINGS.states(), "there": HELENA.states()})
    mine = await world.pairing.begin("between")
    await between.begin("there")
    (theirs,) = answering.pending()
    assert mine.short_string != theirs.short_string
    # Who opens another's commitment with its own statements: it does not open.
    world.others.others["there"] = another = world.of(HELENA)
    world.others.alter = lambda _: BILLINGS.states().encoded
    with pytest.raises(PeerUntrusted, match="does not open"):
        await world.pairing.begin("there")
    assert another.pending() == []
    # Who passes all on, and shows its own statements as the other's.
    world.others.others["there"] = third = world.of(HELENA)
    world.others.alter, world.others.shown["there"] = bytes, BILLINGS.states()
    mine = await world.pairing.begin("there")
    (theirs,) = third.pending()
    assert mine.short_string != theirs.short_string


async def test_attempt_opens_once_and_within_a_minute(world: World, counting: Monotonic) -> None:
    pairing = world.pairing
    identity, nonce = HELENA.states(), bytes(32)
    commitment = module._commitment(nonce, identity.encoded)
    attempt, _ = pairing.begin_string(commitment)
    with pytest.raises(PeerUntrusted):
        await pairing.open_string(attempt, bytes([1]) * 32, identity)
    with pytest.raises(NotFound):
        await pairing.open_string(attempt, nonce, identity)
    counting.time += 61
    late, _ = pairing.begin_string(commitment)
    counting.time += 61
    pairing.pending()
    with pytest.raises(NotFound):
        await pairing.open_string(late, nonce, identity)


async def test_strangers_have_one_attempt_a_minute_and_three_until_a_person_confirms(
    world: World, counting: Monotonic
) -> None:
    """More attempts would find a collision with eight characters sooner or later."""
    pairing = world.pairing
    nonce = bytes(32)

    async def attempt(facility: Facility) -> None:
        identity = facility.states()
        name, _ = pairing.begin_string(module._commitment(nonce, identity.encoded))
        await pairing.open_string(name, nonce, identity)

    for _ in range(3):
        await attempt(HELENA)
        with pytest.raises(PeerBusy):
            await attempt(HELENA)
        counting.time += 61
    with pytest.raises(PeerBusy):
        await attempt(HELENA)
    assert len(pairing.pending()) == 3
    await pairing.confirm(pairing.pending()[0].short_string, ALICE)
    await attempt(BILLINGS)
    counting.time += 601
    assert pairing.pending() == [], "nobody came within ten minutes"
    with pytest.raises(NotFound):
        await pairing.confirm("AAAA-AAAA", ALICE)
