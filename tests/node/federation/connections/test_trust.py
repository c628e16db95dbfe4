"""Trust: what is pinned now, and what is not any more."""

from dataclasses import replace
from pathlib import Path
from time import time

import pytest
import trio
import trio.testing

from node.crypto.certificates import der_to_pem, make_tls_identity
from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.ids import NodeId
from node.errors import PeerUntrusted
from node.federation.connections.trust import Pinned, Trust
from tests.support.hostile import HostilePeer

ME = make_tls_identity(NodeId(bytes(32)), time())


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    identity = Identity.decode(_statements(tmp_path_factory.mktemp("peer")))
    return Peer(identity, "", "file", "somebody", time(), None, 0.0)


def _statements(folder: Path) -> bytes:
    return HostilePeer(folder).statements()


def test_only_pinned_certificates_are_in_the_snapshot(peer: Peer) -> None:
    trust = Trust(ME)
    assert trust.snapshot().certificates == frozenset()
    trust.update([peer])
    assert trust.snapshot().certificates == set(peer.identity.certificates)
    trust.update([replace(peer, removed_time=time())])
    assert trust.snapshot().certificates == frozenset()


def test_certificate_names_its_peer_and_others_nobody(peer: Peer) -> None:
    trust = Trust(ME)
    trust.update([peer])
    assert trust.identify(der_to_pem(peer.identity.certificates[0])) == peer
    for wrong in (None, b"", b"no certificate", der_to_pem(ME.certificate_der)):
        with pytest.raises(PeerUntrusted):
            trust.identify(wrong)
    trust.update([replace(peer, removed_time=time())])
    with pytest.raises(PeerUntrusted):
        trust.identify(der_to_pem(peer.identity.certificates[0]))


async def test_lease_ends_when_its_peer_is_removed(peer: Peer) -> None:
    trust = Trust(ME)
    trust.update([peer])
    with pytest.raises(PeerUntrusted, match="removed"):  # noqa: PT012  # all of it is meant
        with trust.lease(peer.facility_id):
            trust.update([replace(peer, removed_time=time())])
            await trio.sleep_forever()
    with pytest.raises(PeerUntrusted):
        with trust.lease(peer.facility_id):
            raise AssertionError("a removed peer got a lease")


async def test_lease_lives_on_through_changes_of_others(peer: Peer) -> None:
    trust = Trust(ME)
    trust.update([peer])
    with trust.lease(peer.facility_id):
        trust.update([replace(peer, last_seen_time=time())])
        await trio.lowlevel.checkpoint()


def test_certificate_that_two_facilities_claim_is_the_earliers(peer: Peer, tmp_path: Path) -> None:
    other = HostilePeer(tmp_path, "other").keys.signer.signer
    thief = replace(
        peer, identity=replace(peer.identity, signer=other), pinned_time=peer.pinned_time + 1
    )
    for order in ([peer, thief], [thief, peer]):
        trust = Trust(ME)
        trust.update(order)
        assert trust.identify(der_to_pem(peer.identity.certificates[0])) == peer
        with pytest.raises(PeerUntrusted):
            trust.trusted(thief.facility_id)


async def test_node_that_was_replaced_or_has_expired_is_let_go(peer: Peer, tmp_path: Path) -> None:
    """Its facility is trusted as before: what runs for the old node ends all the same."""
    other = Identity.decode(HostilePeer(tmp_path, "successor").statements())
    successor = replace(peer, identity=replace(other, signer=peer.identity.signer))
    expired = replace(
        peer, identity=replace(peer.identity, cert=replace(peer.identity.cert, expires_seconds=1))
    )
    for later in (successor, expired):
        trust = Trust(ME)
        trust.update([peer])
        with pytest.raises(PeerUntrusted):  # noqa: PT012  # all of it is meant
            with trust.lease(peer.facility_id):
                trust.update([later])
                await trio.sleep_forever()
    with pytest.raises(PeerUntrusted, match="emix node renew"):
        trust.identify(der_to_pem(peer.identity.certificates[0]))


async def test_pins_that_were_read_earlier_bring_back_nobody_who_was_removed(peer: Peer) -> None:
    """A renewal reads the pins, a person removes the peer, and the renewal's reading comes last."""
    trust, pins, held = Trust(ME), [peer], trio.Event()

    async def read() -> list[Peer]:
        found = list(pins)
        if not found[0].is_removed:
            await held.wait()
        return found

    pinned = Pinned(trust, read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pinned.refresh)
        await trio.testing.wait_all_tasks_blocked()
        pins[0] = replace(peer, removed_time=time())
        nursery.start_soon(pinned.refresh)
        await trio.testing.wait_all_tasks_blocked()
        held.set()
    with pytest.raises(PeerUntrusted, match="removed"):
        trust.trusted(peer.facility_id)
