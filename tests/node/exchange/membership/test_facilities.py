"""Who is meant by what a person types, and what is said where nobody is."""

from pathlib import Path
from typing import Any

import pytest

from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.ids import FacilityId
from node.errors import Conflict, NotFound, PeerUntrusted
from node.exchange.membership.facilities import Facilities
from tests.support.hostile import HostilePeer
from tests.support.recorded import Recorded

ME = FacilityId(b"m" * 32)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder: Path = tmp_path_factory.mktemp("peers")
    return [Identity.decode(HostilePeer(folder, name).statements()) for name in ("a", "b", "c")]


def peer(identity: Identity, name: str, *, removed: float | None = None) -> Peer:
    return Peer(identity, "", "id", "alice", 1.0, removed, 0.0, name=name)


class Trust:
    """Trusts whom nobody removed, and who is not named."""

    def __init__(self, peers: list[Peer], distrusted: str = "") -> None:
        self.peers = {p.facility_id: p for p in peers}
        self._distrusted = distrusted

    def why_not(self, one: Peer) -> str:
        return "its invitation was revoked" if one.name == self._distrusted else ""

    def is_trusted(self, one: Peer) -> bool:
        return not one.is_removed and not self.why_not(one)


def made(peers: list[Peer], distrusted: str = "", **members: Any) -> tuple[Facilities, Recorded]:
    known = Recorded(**({"meet": NotFound("nobody"), "check_one_name": None} | members))
    book = Recorded(all=peers)
    return Facilities(ME, "Great Falls", Trust(peers, distrusted), book, known), known


async def test_peers_are_named_and_listed_by_name(identities: list[Identity]) -> None:
    peers = [peer(identities[0], "billings"), peer(identities[1], "Anaconda")]
    facilities, _ = made(peers)
    assert facilities.names() == {
        ME.digest: "Great Falls",
        peers[0].facility_id.digest: "billings",
        peers[1].facility_id.digest: "Anaconda",
    }
    assert [p.name for p in await facilities.all()] == ["Anaconda", "billings"]
    assert facilities.name_of(peers[0].facility_id) == "billings"
    assert facilities.name_of(FacilityId(b"x" * 32)) == ""
    assert facilities.pin_of(ME) is None
    assert (await facilities.named("BILLINGS")).name == "billings"


async def test_origin_is_an_id_own_or_a_name_that_one_facility_has(
    identities: list[Identity],
) -> None:
    peers = [
        peer(identities[0], "Billings Hospital"),
        peer(identities[1], "Twins"),
        peer(identities[2], "twins"),
    ]
    facilities, _ = made(peers)
    assert facilities.origin_named("own") == "own"
    assert facilities.origin_named(" OWN") == "own"
    assert facilities.origin_named("great falls") == str(ME)
    billings = str(peers[0].facility_id)
    # The letters of this name are those of an ID's beginning, too.
    assert facilities.origin_named("Billings Hospital") == billings
    assert facilities.origin_named(" BILLINGS  hospital") == billings
    assert facilities.origin_named(billings.replace("-", "")[:16].lower()) == billings
    assert facilities.origin_named("ABCDEFGHIJKLMNOP") == "ABCDEFGHIJKLMNOP"
    assert facilities.origin_named("nobody") == "nobody"
    with pytest.raises(Conflict):
        facilities.origin_named("Twins")


async def test_receiver_is_a_trusted_peer_and_nobody_elses_namesake(
    identities: list[Identity],
) -> None:
    facilities, members = made([peer(identities[0], "Billings")])
    assert (await facilities.receiver_named("Billings")).name == "Billings"
    assert members.names == ["check_one_name"]
    facilities, _ = made([peer(identities[0], "Billings")], check_one_name=Conflict("two"))
    with pytest.raises(Conflict):
        await facilities.receiver_named("Billings")


async def test_member_whom_nobody_pinned_is_met(identities: list[Identity]) -> None:
    member = peer(identities[1], "Helena")
    facilities, members = made([peer(identities[0], "Billings")], meet=member)
    assert await facilities.receiver_named("Helena") is member
    assert members.calls == [("meet", ("Helena",))]


async def test_peer_that_is_not_trusted_is_said_to_be_with_what_helps(
    identities: list[Identity],
) -> None:
    facilities, _ = made([peer(identities[0], "Billings", removed=2.0)])
    with pytest.raises(PeerUntrusted, match="--restore-removed"):
        await facilities.receiver_named("Billings")
    facilities, _ = made([peer(identities[0], "Billings")], distrusted="Billings")
    with pytest.raises(PeerUntrusted, match=r"was revoked\. Pair with it"):
        await facilities.receiver_named("Billings")
    with pytest.raises(NotFound, match="nobody"):
        await facilities.receiver_named("Nowhere")
