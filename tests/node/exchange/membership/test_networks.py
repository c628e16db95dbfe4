"""A network is joined with its letter, and its members are found, met and admitted by its word."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from node.crypto.certificates import make_directory_root
from node.documents.network import JoinLetter, Membership, Network, Record
from node.domain.events import Event, NetworksChanged
from node.errors import Conflict, NotFound, PeerUnreachable, PeerUntrusted, UsageError
from node.exchange.membership.networks import Networks
from node.exchange.membership.pairing import Pairing
from node.store.context import StoreContext
from node.store.peers import PeerStore
from node.system import clock
from tests.node.exchange.membership.test_record_cache import FakeDirectories, World
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.members import BILLINGS, HELENA, ME, NETWORK, NOW, Member

ALICE = actor("alice")
ROOT = make_directory_root(NOW).certificate_der


def joinable() -> JoinLetter:
    """Return a letter to this facility, as an operator makes it."""
    return replace(ME.invited()[0], root_certificate=ROOT)


class Directories(FakeDirectories):
    """As `FakeDirectories`, and notes who joined."""

    def __init__(self) -> None:
        super().__init__([BILLINGS, HELENA])
        self.joined: list[Membership] = []
        self.refusal: Exception | None = None

    async def join(self, letter: JoinLetter, membership: Membership) -> None:
        if self.refusal:
            raise self.refusal
        self.joined.append(membership)


@dataclass
class Here:
    """A facility with real pins and networks, and a directory that answers or does not."""

    context: StoreContext

    def __post_init__(self) -> None:
        self.events: list[Event] = []
        self.pins = PeerStore(self.context)
        nobody: Any = None
        mine = ME.record().identity.encoded
        self.pairing = Pairing(self.pins, nobody, ME.facility, lambda: mine, self.publish)
        self.world = World(self.context, self.pairing)
        self.directories = Directories()
        self.networks = Networks(
            self.world.book,
            self.world.memberships,
            self.directories,
            self.world.authority,
            self.world.record_cache,
            self.pairing,
            ME.facility_key.public,
            self.publish,
        )

    async def publish(self, event: Event) -> None:
        self.events.append(event)

    async def names(self) -> list[str]:
        return [peer.name for peer in await self.pins.all()]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[Here]:
    context = make_store(tmp_path)
    here = Here(context)
    await here.world.book.add(ME.letter, ME.membership, ALICE)
    await here.world.memberships.load()
    await here.world.listed(ME, BILLINGS, HELENA)
    yield here
    context.close()


async def test_member_is_pinned_by_its_networks_name_when_it_shows_itself(here: Here) -> None:
    identity = BILLINGS.record().identity
    shown = [b"of another network", BILLINGS.membership.encoded]
    assert await here.networks.presented(identity, shown)
    peer = await here.pins.get(BILLINGS.facility)
    assert peer is not None
    assert (peer.network, peer.name, peer.pinned_how) == (NETWORK, "Billings Hospital", "network")
    assert here.pairing.strangers.all() == []


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [HELENA.membership.encoded],
        [b"nonsense"] * 8 + [BILLINGS.membership.encoded],
    ],
)
async def test_who_shows_no_membership_of_its_own_is_a_stranger(
    here: Here, shown: Sequence[bytes]
) -> None:
    assert not await here.networks.presented(BILLINGS.record().identity, shown)
    assert await here.names() == []
    (stranger,) = here.pairing.strangers.all()
    assert stranger.identity.facility_id == BILLINGS.facility


async def test_who_was_revoked_or_removed_is_not_trusted_again_by_its_membership(
    here: Here,
) -> None:
    await here.world.listed(ME, HELENA, revoked=[BILLINGS])
    assert not await here.networks.presented(
        BILLINGS.record().identity, [BILLINGS.membership.encoded]
    )
    await here.networks.presented(HELENA.record().identity, [HELENA.membership.encoded])
    await here.pairing.remove(str(HELENA.facility), ALICE)
    assert not await here.networks.presented(HELENA.record().identity, [HELENA.membership.encoded])
    assert not await here.networks.admit(HELENA.facility)
    with pytest.raises(Conflict):
        await here.networks.meet(str(HELENA.facility))


async def test_who_wants_to_reach_us_is_admitted_if_a_directory_shows_it_as_a_member(
    here: Here,
) -> None:
    assert await here.networks.admit(BILLINGS.facility)
    assert await here.names() == ["Billings Hospital"]
    here.directories.is_away = True
    assert await here.networks.admit(BILLINGS.facility), "it is pinned already"
    assert not await here.networks.admit(HELENA.facility)


async def test_member_is_met_by_its_whole_name_or_id_and_by_no_beginning(here: Here) -> None:
    peer = await here.networks.meet("billings HOSPITAL")
    assert peer.facility_id == BILLINGS.facility
    assert (await here.networks.meet(str(HELENA.facility))).facility_id == HELENA.facility
    for text in ("Billings", str(BILLINGS.facility)[:20], "Nobody"):
        with pytest.raises(NotFound):
            await here.networks.meet(text)


async def test_name_of_two_members_is_met_by_id_only(here: Here) -> None:
    twin = Member("Billings Hospital")
    await here.world.listed(ME, BILLINGS, HELENA, twin)
    here.directories.members = [BILLINGS, twin]
    with pytest.raises(Conflict, match="2 facilities have this name"):
        await here.networks.meet("Billings Hospital")
    peer = await here.networks.meet(str(twin.facility))
    with pytest.raises(Conflict):
        await here.networks.check_one_name("Billings Hospital", peer)
    await here.networks.check_one_name(str(twin.facility), peer)
    here.world.memberships.trusts_members = False
    await here.networks.check_one_name("Billings Hospital", peer)


async def test_member_that_the_list_does_not_confirm_is_not_met_and_it_is_said_why(
    here: Here,
) -> None:
    await here.world.listed(ME, HELENA, revoked=[BILLINGS])
    with pytest.raises(PeerUntrusted, match="revoked by the network"):
        await here.networks.meet("Billings Hospital")
    assert await here.names() == []


async def test_member_is_not_met_where_paired_facilities_only_are_trusted(here: Here) -> None:
    here.world.memberships.trusts_members = False
    with pytest.raises(PeerUntrusted, match=f"emix peers pair {BILLINGS.facility}"):
        await here.networks.meet("Billings Hospital")
    here.directories.is_away = True
    with pytest.raises(NotFound):
        await here.networks.meet("St. Peter's Health")
    assert not await here.networks.presented(
        BILLINGS.record().identity, [BILLINGS.membership.encoded]
    )
    assert await here.names() == []


async def test_network_is_joined_once_its_directory_has_taken_the_invitation(here: Here) -> None:
    letter = joinable()
    await here.networks.leave("montana", ALICE)
    assert here.events == [NetworksChanged()]
    here.directories.refusal = PeerUnreachable("no directory answers")
    with pytest.raises(PeerUnreachable):
        await here.networks.join(letter.encode(), ALICE)
    assert here.networks.all() == []
    here.directories.refusal = None
    network = await here.networks.join(letter.encode(), ALICE)
    assert [one.facility_id for one in here.directories.joined] == [ME.facility]
    assert here.networks.all() == [network] == await here.world.book.all()
    assert here.events == [NetworksChanged()] * 2


async def test_letter_is_kept_by_who_is_a_member_already(here: Here) -> None:
    letter = joinable()
    with pytest.raises(Conflict, match="the letter was not used"):
        await here.networks.join(letter.encode(), ALICE)
    assert here.directories.joined == []


async def test_letter_whose_time_is_over_joins_nothing(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.networks.leave("Montana", ALICE)
    letter = joinable()
    monkeypatch.setattr(clock, "now", lambda: float(letter.invitation.expires_seconds))
    with pytest.raises(PeerUntrusted, match="has expired"):
        await here.networks.join(letter.encode(), ALICE)
    assert (here.directories.joined, here.networks.all()) == ([], [])


async def test_network_is_left_by_its_name_or_a_long_beginning_of_its_id(here: Here) -> None:
    for text in ("Nowhere", str(NETWORK)[:3], ""):
        with pytest.raises(NotFound):
            await here.networks.leave(text, ALICE)
    left = await here.networks.leave(str(NETWORK)[:4], ALICE)
    assert (left.id, here.networks.all()) == (NETWORK, [])


async def test_questions_that_nobody_can_answer_are_not_asked(here: Here) -> None:
    with pytest.raises(UsageError, match="give words of a name"):
        await here.networks.find("  ", 10)
    with pytest.raises(NotFound):
        await here.networks.lookup(Member("Unknown").facility)
    await here.networks.leave("Montana", ALICE)
    for ask in (here.networks.find("billings", 10), here.networks.lookup(BILLINGS.facility)):
        with pytest.raises(UsageError, match="joined no network"):
            await ask


class Forgetful(Directories):
    """Shows more than was asked for."""

    async def find(self, network: Network, words: str, limit: int) -> Sequence[Record]:
        return [m.record() for m in self.members]


async def test_no_more_is_found_than_was_asked_for(here: Here) -> None:
    here.networks._directories = Forgetful()
    assert len(await here.networks.find("hospital", 1)) == 1


async def test_list_that_a_peer_passed_on_is_expected_of_the_directory(here: Here) -> None:
    (network,) = here.networks.all()
    await here.networks.accept_passed_list(BILLINGS.facility, NETWORK, network.signed_list)
    assert here.directories.expected == []
    await here.world.listed(ME, BILLINGS)
    (newer,) = here.networks.all()
    await here.world.book.leave(NETWORK, ALICE)
    await here.world.book.add(ME.letter, ME.membership, ALICE)
    await here.world.memberships.load()
    await here.networks.accept_passed_list(BILLINGS.facility, NETWORK, newer.signed_list)
    assert here.directories.expected == [NETWORK]
