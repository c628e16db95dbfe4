"""Pins: a person's word is worth more than a network's, and nothing goes back."""

import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from node.crypto.certificates import make_tls_identity
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.identity import Identity, Profile, make_statements
from node.documents.signed import certify_node
from node.domain.ids import InvitationId, NetworkId
from node.errors import Conflict
from node.store.audit import AuditStore
from node.store.peers import PeerStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor

MEMBER = (NetworkId(b"n" * 32), InvitationId(b"i" * 32))
NODE_KEY = SigningKey.new()
FACILITY = SigningKey.new()
SIGNER = certify_node(FACILITY, NODE_KEY, time.time())
SIGNER_GENERATION = SIGNER.verified().generation
TLS = make_tls_identity(node_id(NODE_KEY.public), time.time())
SEAL = SealKey.new().public


def stated(issued: int, name: str = "Billings", endpoint: str = "h:1") -> Identity:
    profile = Profile(name, (endpoint,), (), issued)
    return Identity.decode(make_statements(NODE_KEY, SIGNER, [TLS.certificate_der], SEAL, profile))


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncGenerator[tuple[PeerStore, AuditStore]]:
    context = make_store(tmp_path)
    yield PeerStore(context), AuditStore(context)
    context.close()


Stores = tuple[PeerStore, AuditStore]


async def test_persons_pin_never_becomes_a_members(stores: Stores) -> None:
    store, _ = stores
    mine = await store.pin(stated(10), endpoint="10.1.2.3:1", how="id", actor=actor("me"))
    shown = await store.pin(
        stated(99), endpoint="", how="network", actor=actor("node"), name="Other", member=MEMBER
    )
    assert shown == mine == await store.get(mine.facility_id)
    assert (shown.network, shown.endpoint, shown.pinned_how) == (None, "10.1.2.3:1", "id")


async def test_person_takes_over_a_members_pin_and_a_removal_holds(stores: Stores) -> None:
    store, _ = stores
    pin = {"endpoint": "", "how": "network", "actor": actor("node"), "name": "As listed"}
    found = await store.pin(stated(10), member=MEMBER, **pin)  # type: ignore[arg-type]
    assert ((found.network, found.invitation), found.name) == (MEMBER, "As listed")
    found = await store.pin(stated(10), endpoint="", how="file", actor=actor("me"))
    assert (found.network, found.name) == (None, "As listed")
    await store.remove(found.facility_id, actor("me"))
    with pytest.raises(Conflict, match="removed here"):
        await store.pin(stated(99), member=MEMBER, **pin)  # type: ignore[arg-type]


async def test_statements_never_go_back_and_the_name_stays(stores: Stores) -> None:
    store, _ = stores
    found = await store.pin(stated(20, endpoint="new:1"), endpoint="", how="id", actor=actor("me"))
    found = await store.pin(
        stated(10, endpoint="old:1"), endpoint="", how="file", actor=actor("me")
    )
    assert found.endpoints == ("new:1",)
    await store.renew(stated(30, name="Great Falls Clinic", endpoint="new:1"))
    again = await store.get(found.facility_id)
    assert again is not None
    assert (again.name, again.identity.profile.display_name) == ("Billings", "Great Falls Clinic")


async def test_renewal_that_comes_late_brings_back_no_older_node(stores: Stores) -> None:
    """Whoever has a stolen node key races the new node: both were looked at before one is kept."""
    store, audit = stores
    found = await store.pin(stated(10), endpoint="", how="id", actor=actor("me"))
    newer_key = SigningKey.new()
    newer = certify_node(FACILITY, newer_key, time.time() + 60, generation=SIGNER_GENERATION + 1)
    tls = make_tls_identity(node_id(newer_key.public), time.time())
    profile = Profile("Billings", ("h:1",), (), 20)
    successor = Identity.decode(
        make_statements(newer_key, newer, [tls.certificate_der], SEAL, profile)
    )
    assert await store.renew(successor)
    assert not await store.renew(stated(30))
    now = await store.get(found.facility_id)
    assert now is not None
    assert now.identity.node_id == successor.node_id
    assert "peer.renewed" in [entry.kind for entry in await audit.entries()]


async def test_renewal_is_recorded_when_the_way_to_a_peer_changes(stores: Stores) -> None:
    store, audit = stores
    await store.pin(stated(1), endpoint="", how="id", actor=actor("me"))

    async def renewals() -> int:
        return sum(entry.kind == "peer.renewed" for entry in await audit.entries())

    for n in range(2, 12):
        await store.renew(stated(n, name=f"Name {n}"))
    assert await renewals() == 0
    await store.renew(stated(20, endpoint="elsewhere:1"))
    assert await renewals() == 1


async def test_pin_that_was_verified_is_not_verified_again(stores: Stores) -> None:
    """With 2,000 peers it took 1.5 s of every 30, under the lock that all others wait for."""
    store, _ = stores
    await store.pin(stated(1), endpoint="", how="id", actor=actor("me"))
    [first], [again] = await store.all(), await store.all()
    assert first.identity is again.identity
    await store.renew(stated(2, endpoint="elsewhere:1"))
    [renewed] = await store.all()
    assert renewed.endpoints == ("elsewhere:1",)
