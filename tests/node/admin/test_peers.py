"""Peers as people see and pair them: with every warning, and only by what was compared."""

from collections.abc import Sequence
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.admin.peers import PeerHandlers
from node.documents.peers import Peer
from node.domain.connections import ConnectionState, PeerWay, Route
from node.domain.ids import FacilityId
from node.errors import NotFound, PeerUntrusted, UsageError
from node.exchange.membership.pairing import HowToPair, StringPairing
from node.exchange.membership.strangers import Strangers
from node.rpc.serving import Service
from node.system import clock
from tests.support.admin_services import AdminCall, answer, answers, facilities_of, peer_of
from tests.support.members import BILLINGS, HELENA, Member
from tests.support.recorded import Recorded

WAYS = {
    BILLINGS.facility: PeerWay(ConnectionState.CONNECTED, Route.DIRECT, "10.0.0.1:7", 0.25),
    HELENA.facility: PeerWay(ConnectionState.UNREACHABLE, problem="nothing listens there"),
}
PENDING = StringPairing("a1b2", "ABCD-EFGH", HELENA.record().identity, 0.0)


class Ways:
    def way(self, facility: FacilityId) -> PeerWay:
        return WAYS.get(facility, PeerWay())


class Parts:
    """The handlers' use cases."""

    def __init__(
        self,
        *peers: Peer,
        why_not: str = "",
        pending: Sequence[StringPairing] = (),
        rates: dict[FacilityId, float] | None = None,
        met: Any = None,
        **paired: Any,
    ) -> None:
        self.now = 1000.0
        self.strangers = Strangers(lambda: self.now)
        pairing: Any = Recorded(**({"warnings": []} | paired))
        pairing.pending, pairing.strangers = lambda: list(pending), self.strangers
        meeting: Any = Recorded(pair=met)
        lists: Any = Recorded(rates=rates or {})
        facilities = facilities_of(*peers, why_not=why_not)
        handlers = PeerHandlers(facilities, pairing, meeting, Ways(), lists)
        self.service: Service = handlers.service()
        self.pairing: Recorded = pairing
        self.meeting: Recorded = meeting


async def listed(parts: Parts) -> pb.ListPeersResponse:
    page: pb.ListPeersResponse = await answer(
        parts.service, "ListPeers", AdminCall(pb.ListPeersRequest())
    )
    return page


# -- listing --------------------------------------------------------------------------------------


async def test_peers_are_listed_by_name_each_with_its_own_way_and_speed() -> None:
    parts = Parts(peer_of(HELENA), peer_of(BILLINGS), rates={BILLINGS.facility: 5000.5})
    billings, helena = (await listed(parts)).peers
    assert (billings.display_name, billings.state) == ("Billings Hospital", "connected")
    assert (billings.route, billings.endpoint) == ("direct", "10.0.0.1:7")
    assert (billings.bytes_a_second, helena.bytes_a_second) == (5000, 0)
    assert (helena.display_name, helena.state) == ("St. Peter's Health", "unreachable")
    assert helena.problem == "nothing listens there"


async def test_peer_that_is_not_trusted_is_listed_with_the_reason() -> None:
    (found,) = (await listed(Parts(peer_of(HELENA), why_not="its invitation was revoked"))).peers
    assert found.problem == "its invitation was revoked"


async def test_peers_whose_names_look_alike_are_listed_with_a_warning_each() -> None:
    peers = peer_of(HELENA, name="Billings"), peer_of(BILLINGS, name="BiIlings")
    for found in (await listed(Parts(*peers))).peers:
        assert "its name looks like that of" in found.warning
        assert found.facility_id in found.warning
    removed = peer_of(HELENA, name="Billings", removed=5.0), peers[1]
    assert [one.warning for one in (await listed(Parts(*removed))).peers] == ["", ""]


async def test_list_shows_which_pairings_wait_for_a_person_here() -> None:
    page = await listed(Parts(pending=[PENDING]))
    (waiting,) = page.waiting_pairings
    assert (waiting.attempt, waiting.short_string) == ("a1b2", "ABCD-EFGH")
    assert waiting.display_name == "St. Peter's Health"
    assert list(page.peers) == []


async def test_list_shows_who_has_asked_and_when_by_this_nodes_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "now", lambda: 9000.0)
    parts = Parts()
    parts.strangers.note(HELENA.record().identity)
    parts.now += 60.0
    (asking,) = (await listed(parts)).asking_facilities
    assert (asking.facility_id, asking.asked_seconds) == (str(HELENA.facility), 8940)
    assert asking.display_name == "St. Peter's Health"


# -- pairing --------------------------------------------------------------------------------------


async def test_facility_is_paired_by_its_id_however_it_was_typed() -> None:
    parts = Parts(met=peer_of(HELENA))
    call = AdminCall(
        pb.PairPeerRequest(
            facility_id=str(HELENA.facility).upper().replace("-", " "),
            at="10.0.0.9:7",
            endpoint="h:2",
            restore_removed=True,
            refuse_alike=True,
        )
    )
    found = await answer(parts.service, "PairPeer", call)
    assert found.peer.facility_id == str(HELENA.facility)
    how = HowToPair("h:2", restores=True, refuses_alike=True)
    assert parts.meeting.calls == [("pair", (HELENA.facility, "10.0.0.9:7", call.actor, how))]


async def test_id_with_a_typing_error_pairs_with_nobody() -> None:
    text = str(HELENA.facility)
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    for typed, reason in ((wrong, "typing error"), (text[:20], "56 characters"), ("", "56")):
        parts = Parts(met=peer_of(HELENA))
        with pytest.raises(UsageError, match=reason):
            await answer(
                parts.service, "PairPeer", AdminCall(pb.PairPeerRequest(facility_id=typed))
            )
        assert parts.meeting.calls == []


async def test_facility_is_paired_by_its_file_without_looking_for_it() -> None:
    parts = Parts(pair_by_statements=peer_of(HELENA))
    request = pb.PairPeerRequest(statements=b"statements", endpoint="h:2")
    call = AdminCall(request)
    found = await answer(parts.service, "PairPeer", call)
    assert found.peer.facility_id == str(HELENA.facility)
    first, *_ = parts.pairing.calls
    assert first == ("pair_by_statements", (b"statements", call.actor, HowToPair("h:2")))
    assert parts.meeting.calls == []


async def test_pairing_answers_with_the_names_that_look_like_this_one() -> None:
    warning = "the name looks like that of 'Billings'"
    peer = peer_of(HELENA, name="Bilings")
    parts = Parts(met=peer, confirm=peer, warnings=[warning])
    request = pb.PairPeerRequest(facility_id=str(HELENA.facility))
    found = await answer(parts.service, "PairPeer", AdminCall(request))
    assert list(found.warnings) == [warning]
    confirmed = pb.ConfirmStringPairingRequest(short_string="ABCD-EFGH")
    found = await answer(parts.service, "ConfirmStringPairing", AdminCall(confirmed))
    assert list(found.warnings) == [warning]
    asked = ("warnings", (HELENA.facility, "Bilings"))
    assert parts.pairing.calls.count(asked) == 2


async def test_node_of_another_facility_is_not_paired_and_the_reason_is_answered() -> None:
    parts = Parts(met=PeerUntrusted("it belongs to another; nothing was pinned"))
    request = pb.PairPeerRequest(facility_id=str(HELENA.facility), at="h:1")
    with pytest.raises(PeerUntrusted, match="nothing was pinned"):
        await answer(parts.service, "PairPeer", AdminCall(request))
    assert parts.pairing.calls == []


async def test_string_to_compare_is_that_of_the_node_at_the_address() -> None:
    parts = Parts(begin=PENDING)
    request = pb.BeginStringPairingRequest(at="h:1")
    found = await answer(parts.service, "BeginStringPairing", AdminCall(request))
    assert (found.attempt, found.short_string) == ("a1b2", "ABCD-EFGH")
    assert found.display_name == "St. Peter's Health"
    assert parts.pairing.calls == [("begin", ("h:1",))]


async def test_pairings_that_wait_are_listed_and_none_is_an_empty_page() -> None:
    another = StringPairing("c3d4", "WXYZ-2345", Member("Other").record().identity, 0.0)
    for pending in ([], [PENDING, another]):
        parts = Parts(pending=pending)
        call = AdminCall(pb.ListStringPairingsRequest())
        (page,) = await answers(parts.service, "ListStringPairings", call)
        assert [one.attempt for one in page.pairings] == [one.attempt for one in pending]


async def test_compared_string_pins_for_who_asked() -> None:
    parts = Parts(confirm=peer_of(HELENA))
    call = AdminCall(pb.ConfirmStringPairingRequest(short_string="abcd efgh"))
    found = await answer(parts.service, "ConfirmStringPairing", call)
    assert found.peer.facility_id == str(HELENA.facility)
    assert parts.pairing.calls[0] == ("confirm", ("abcd efgh", call.actor))
    parts = Parts(confirm=NotFound("no pairing waits with that string"))
    with pytest.raises(NotFound, match="no pairing waits"):
        await answer(parts.service, "ConfirmStringPairing", call)


async def test_removed_peer_is_answered_as_removed() -> None:
    parts = Parts(remove=peer_of(BILLINGS, removed=5.0))
    call = AdminCall(pb.RemovePeerRequest(facility="billings"))
    found = await answer(parts.service, "RemovePeer", call)
    assert (found.peer.state, found.peer.problem) == ("removed", "")
    assert parts.pairing.calls == [("remove", ("billings", call.actor))]
