"""Lists are taken from the network alone, and a change makes the whole of one or nothing."""

import math
import random
import resource

import pytest
from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.signing import SigningKey, network_id
from node.documents.lists import (
    LIST_SECONDS,
    MAX_LIST_BYTES,
    MAX_MEMBERS,
    apply_change,
    base_of,
    delegate_lists,
    leads_to,
    make_change,
    open_list,
    sign_list,
)
from node.domain.ids import FacilityId, InvitationId
from node.errors import BadSignature, DocumentError

NOW = 1_800_000_000.0
KEY, OTHER_KEY, LIST_KEY = SigningKey.new(), SigningKey.new(), SigningKey.new()
NETWORK = network_id(KEY.public)


def test_list_is_taken_from_the_network_or_from_a_key_that_it_certified() -> None:
    member = InvitationId(bytes(range(32)))
    members = {member: FacilityId(bytes(32))}
    revoked = frozenset({InvitationId(b"r" * 32)})
    certificate = delegate_lists(KEY, LIST_KEY.public, NOW + 86400)
    for data in (
        sign_list(KEY, NETWORK, 7, members, revoked, NOW),
        sign_list(LIST_KEY, NETWORK, 7, members, revoked, NOW, certificate=certificate),
    ):
        found = open_list(data, KEY.public, NOW)
        assert (found.number, found.members, found.revoked) == (7, members, revoked)
        with pytest.raises(BadSignature):
            open_list(data, OTHER_KEY.public, NOW)


@pytest.mark.parametrize(
    ("signer", "certifier", "until"),
    [
        (OTHER_KEY, KEY, NOW + 86400),  # not the key that is certified
        (LIST_KEY, OTHER_KEY, NOW + 86400),  # certified by nobody who may
    ],
)
def test_list_of_a_key_that_is_not_certified_for_it_is_refused(
    signer: SigningKey, certifier: SigningKey, until: float
) -> None:
    certificate = delegate_lists(certifier, LIST_KEY.public, until)
    data = sign_list(signer, NETWORK, 1, {}, frozenset(), NOW, certificate=certificate)
    with pytest.raises(BadSignature):
        open_list(data, KEY.public, NOW)


def test_list_ends_with_the_key_that_signed_it_and_one_that_outlives_it_is_refused() -> None:
    certificate = delegate_lists(KEY, LIST_KEY.public, NOW + 60)
    data = sign_list(LIST_KEY, NETWORK, 1, {}, frozenset(), NOW, certificate=certificate)
    assert open_list(data, KEY.public, NOW).expires_time == int(NOW) + 60
    longer = delegate_lists(KEY, LIST_KEY.public, NOW + 10**6)
    wire = pb.SignedList.FromString(
        sign_list(LIST_KEY, NETWORK, 1, {}, frozenset(), NOW, certificate=longer)
    )
    wire.list_key_cert.CopyFrom(documents.SignedBytes.FromString(certificate))
    with pytest.raises(BadSignature, match="expires after"):
        open_list(wire.SerializeToString(), KEY.public, NOW)


def test_list_key_signs_in_its_own_epoch_and_in_no_other() -> None:
    certificate = delegate_lists(KEY, LIST_KEY.public, NOW + 86400, epoch=2)
    members: dict[InvitationId, FacilityId] = {}
    for epoch in (1, 2, 3):
        data = sign_list(
            LIST_KEY, NETWORK, 1, members, frozenset(), NOW, certificate=certificate, epoch=epoch
        )
        if epoch == 2:
            assert open_list(data, KEY.public, NOW).place == (2, 1)
            continue
        with pytest.raises(BadSignature, match="epoch is not"):
            open_list(data, KEY.public, NOW)


def test_number_is_no_higher_than_the_second_so_that_a_next_one_is_always_left() -> None:
    for number in (int(NOW) + 1, 2**40, 2**63):
        with pytest.raises(DocumentError, match="number"):
            open_list(sign_list(KEY, NETWORK, number, {}, frozenset(), NOW), KEY.public, NOW)
    highest = sign_list(KEY, NETWORK, int(NOW), {}, frozenset(), NOW)
    following = sign_list(KEY, NETWORK, int(NOW) + 1, {}, frozenset(), NOW + 1)
    before, after = (open_list(one, KEY.public, NOW) for one in (highest, following))
    assert after.place > before.place


def test_list_of_an_impossible_time_length_or_number_is_refused() -> None:
    with pytest.raises(DocumentError, match="time"):
        open_list(sign_list(KEY, NETWORK, 1, {}, frozenset(), NOW + 3600), KEY.public, NOW)
    with pytest.raises(DocumentError, match="number"):
        open_list(sign_list(KEY, NETWORK, 0, {}, frozenset(), NOW), KEY.public, NOW)
    with pytest.raises(DocumentError, match="too long"):
        open_list(bytes(MAX_LIST_BYTES + 1), KEY.public, NOW)
    for change in (
        {"expires_seconds": int(NOW) + LIST_SECONDS + 1},
        {"expires_seconds": int(NOW)},
        {"members": [pb.ListedMember(invitation_digest=b"i" * 32, facility_id=b"f" * 32)] * 2},
        {"revoked_invitations": [b"short"]},
    ):
        body = pb.NetworkList(
            network_id=NETWORK.digest,
            number=1,
            epoch=1,
            issued_seconds=int(NOW),
            expires_seconds=int(NOW) + 60,
        )
        body.MergeFrom(pb.NetworkList(**change))
        encoded = body.SerializeToString()
        signed = documents.SignedBytes(body=encoded, signature=KEY.sign("network-list", encoded))
        with pytest.raises(DocumentError):
            open_list(pb.SignedList(list=signed).SerializeToString(), KEY.public, NOW)


def test_list_of_a_large_network_fits() -> None:
    def one(n: int) -> bytes:
        return n.to_bytes(32, "big")

    members = {InvitationId(one(n)): FacilityId(one(n)) for n in range(MAX_MEMBERS)}
    data = sign_list(KEY, NETWORK, 1, members, frozenset(), NOW)
    assert len(open_list(data, KEY.public, NOW).members) == MAX_MEMBERS


IDS = st.binary(min_size=32, max_size=32)
MEMBERS = st.dictionaries(IDS.map(InvitationId), IDS.map(FacilityId), max_size=30)
REVOKED = st.frozensets(IDS.map(InvitationId), max_size=10)


@given(earlier=MEMBERS, later=MEMBERS, kept=st.sets(st.integers(0, 29)), gone=REVOKED, also=REVOKED)
def test_change_makes_exactly_the_list_that_was_signed(
    earlier: dict[InvitationId, FacilityId],
    later: dict[InvitationId, FacilityId],
    kept: set[int],
    gone: frozenset[InvitationId],
    also: frozenset[InvitationId],
) -> None:
    later |= {i: f for n, (i, f) in enumerate(earlier.items()) if n in kept}
    base = open_list(sign_list(KEY, NETWORK, 1, earlier, gone, NOW), KEY.public, NOW)
    certificate = delegate_lists(KEY, LIST_KEY.public, NOW + 86400)
    for encoded in (
        sign_list(KEY, NETWORK, 2, later, gone | also, NOW + 60),
        sign_list(LIST_KEY, NETWORK, 2, later, gone | also, NOW + 60, certificate=certificate),
    ):
        change = make_change(base, open_list(encoded, KEY.public, NOW), encoded)
        assert len(change) < len(encoded)
        if change:  # else the whole is no longer
            assert apply_change(base, change) == encoded


def large(number: int, *, without: int = -1) -> bytes:
    """A list of 10,000, one of which is gone."""
    ids = random.Random(1)
    members = {
        InvitationId(ids.randbytes(32)): FacilityId(ids.randbytes(32)) for _ in range(10_000)
    }
    one = sorted(members)[without]
    gone = {one} if without >= 0 else set()
    kept = {i: f for i, f in members.items() if i not in gone}
    return sign_list(KEY, NETWORK, number, kept, frozenset(gone), NOW)


def test_revocation_in_a_large_network_is_a_small_change() -> None:
    base, encoded = open_list(large(1), KEY.public, NOW), large(2, without=7)
    change = make_change(base, open_list(encoded, KEY.public, NOW), encoded)
    assert len(encoded) > 600_000
    assert 0 < len(change) < 300
    assert apply_change(base, change) == encoded


def test_change_of_another_list_or_one_that_was_altered_makes_no_list() -> None:
    base, other = (open_list(large(n), KEY.public, NOW) for n in (1, 9))
    encoded = large(2, without=7)
    change = make_change(base, open_list(encoded, KEY.public, NOW), encoded)
    with pytest.raises(DocumentError, match="does not start from"):
        apply_change(other, change)
    with pytest.raises(DocumentError, match="longer than"):
        apply_change(base, bytes(MAX_LIST_BYTES + 1))
    added = pb.ListedMember(invitation_digest=b"i" * 32, facility_id=b"f" * 32)
    for altered in (
        pb.ListChange(added_revocations=[b"v" * 32]),
        pb.ListChange(added_members=[added]),
        pb.ListChange(removed_invitations=[min(base.members).digest]),
        pb.ListChange(number=3),
        pb.ListChange(expires_seconds=int(NOW) + LIST_SECONDS - 1),
        pb.ListChange(signature=bytes(64)),
        pb.ListChange(removed_invitations=[b"short"]),
    ):
        wire = pb.ListChange.FromString(change)
        wire.MergeFrom(altered)
        with pytest.raises(DocumentError):
            open_list(apply_change(base, wire.SerializeToString()), KEY.public, math.inf)


def test_list_that_takes_a_revocation_back_or_is_written_otherwise_goes_whole() -> None:
    gone = InvitationId(b"r" * 32)
    base = open_list(sign_list(KEY, NETWORK, 1, {}, frozenset({gone}), NOW), KEY.public, NOW)
    encoded = sign_list(KEY, NETWORK, 2, {}, frozenset(), NOW)
    assert make_change(base, open_list(encoded, KEY.public, NOW), encoded) == b""
    body = pb.NetworkList(
        network_id=NETWORK.digest,
        number=2,
        epoch=1,
        issued_seconds=int(NOW),
        expires_seconds=int(NOW) + 60,
        revoked_invitations=[b"r" * 32, b"a" * 32],  # in no order
    ).SerializeToString()
    signed = documents.SignedBytes(body=body, signature=KEY.sign("network-list", body))
    encoded = pb.SignedList(list=signed).SerializeToString()
    assert make_change(base, open_list(encoded, KEY.public, NOW), encoded) == b""


@given(st.binary(max_size=200))
def test_noise_is_no_change(noise: bytes) -> None:
    base = open_list(sign_list(KEY, NETWORK, 1, {}, frozenset(), NOW), KEY.public, NOW)
    with pytest.raises(DocumentError):
        open_list(apply_change(base, noise), KEY.public, NOW)


def test_list_on_which_something_rides_is_refused() -> None:
    data = sign_list(KEY, NETWORK, 1, {}, frozenset(), NOW)
    assert open_list(data, KEY.public, NOW).number == 1
    for more in (b"\x7a\x04ride", b"\x9a\x06\x01x"):  # fields that nobody knows
        with pytest.raises(DocumentError, match=r"unknown fields|upgrade"):
            open_list(data + more, KEY.public, NOW)


@pytest.mark.parametrize("field", [5, 6, 7])
def test_change_that_would_swell_is_not_parsed(field: int) -> None:
    """Nothing of a change is signed: a directory sends what it likes."""
    swollen = bytes([field << 3 | 2, 0]) * (MAX_LIST_BYTES // 2)
    limit = 32 * 2**20
    before = _resident()
    for read in (base_of, lambda data: leads_to(data, b"")):
        with pytest.raises(DocumentError, match="fields"):
            read(swollen)
    assert _resident() - before < limit


def _resident() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
