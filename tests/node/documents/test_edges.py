"""The last value that is taken and the first that is not, of each bound in a document."""

import base64
import dataclasses
import importlib
import pkgutil
from typing import Any

import pytest
from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb

import node.documents
from node.crypto.certificates import make_directory_root, make_tls_identity
from node.crypto.signing import SigningKey, network_id
from node.documents import lists, network
from node.documents.audit_head import open_head
from node.documents.delivery import KIND as DELIVERY_KIND
from node.documents.delivery import (
    MAX_BODY_BYTES,
    MAX_LIFE_SECONDS,
    MAX_TEXT,
    open_delivery,
    sign_delivery,
)
from node.documents.identity import MAX_STATEMENTS_BYTES, Identity
from node.documents.manifest import _check_counts, sign_manifest
from node.documents.network import JoinLetter, invite
from node.documents.node_requests import NodeRequest, decode_certificate, encode_certificate
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS, NodeCert, Signer
from node.documents.summary import MAX_SEALED_BYTES
from node.documents.tickets import (
    SKEW_SECONDS,
    TICKET_SECONDS,
    Ticket,
    TicketSigner,
    certify_tickets,
    open_ticket,
    read_ticket_signer,
    ticket_relays,
)
from node.domain.heads import MAX_SEQUENCE, Head
from node.domain.ids import FacilityId, InvitationId, NetworkId, NodeId
from node.errors import BadDelivery, BadSignature, DocumentError
from tests.node.documents.test_documents import A, B, make_identity, make_manifest, make_proof

NOW = 1_800_000_000.0
KEY, TICKET_KEY = SigningKey.new(), SigningKey.new()
RELAY = "relay.example.org:7430"


# -- deliveries -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        ({"recipient": "x" * MAX_TEXT}, True),
        ({"recipient": "x" * (MAX_TEXT + 1)}, False),
        ({"note": "x" * MAX_TEXT}, True),
        ({"note": "x" * (MAX_TEXT + 1)}, False),
        ({"sealed_summary": b"x" * MAX_SEALED_BYTES}, True),
        ({"sealed_summary": b"x" * (MAX_SEALED_BYTES + 1)}, False),
        ({"sealed_bytes": 2**50 - 1}, True),
        ({"sealed_bytes": 2**50}, False),
        ({"instances": 2**50}, False),
        ({"manifest_bytes": 2**50}, False),
        ({"expires_time": NOW}, True),
        ({"expires_time": NOW - 1}, False),
        ({"expires_time": NOW + MAX_LIFE_SECONDS - 1}, True),
        ({"expires_time": NOW + MAX_LIFE_SECONDS}, False),
        ({"note": "x" * 20_000, "recipient": "x" * 20_000}, False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_delivery_is_taken_up_to_each_bound(change: dict[str, Any], *, is_taken: bool) -> None:
    _, delivery, _ = make_proof()
    signed = sign_delivery(dataclasses.replace(delivery, **change), A)
    if is_taken:
        assert open_delivery(signed) == dataclasses.replace(delivery, **change)
    else:
        with pytest.raises(BadDelivery):
            open_delivery(signed)


# -- node certificates ----------------------------------------------------------------------------


def test_node_key_speaks_until_its_last_second_and_not_from_the_future() -> None:
    cert = NodeCert(b"k" * 32, int(NOW), int(NOW) + 100, int(NOW), b"")
    assert cert.is_valid(NOW)
    assert cert.is_valid(NOW + 99)
    assert not cert.is_valid(NOW + 100)
    assert not cert.is_valid(NOW + 101)
    cert.check_taken(NOW)
    cert.check_taken(NOW - MAX_CLOCK_SKEW_SECONDS)
    with pytest.raises(BadSignature, match="ahead of this"):
        cert.check_taken(NOW - MAX_CLOCK_SKEW_SECONDS - 1)


def test_request_and_its_certificate_come_back_as_written() -> None:
    request = NodeRequest.of(A)
    assert NodeRequest.decode(request.encode()) == request
    assert request.verified() == A.signer.verified()
    assert decode_certificate(encode_certificate(A.signer)) == A.signer
    for junk in (b"", b"{}", b"\xff", encode_certificate(A.signer)):
        with pytest.raises(DocumentError):
            NodeRequest.decode(junk)
    with pytest.raises(DocumentError):
        decode_certificate(request.encode())
    with pytest.raises(BadSignature):
        NodeRequest(B.signer, request.signature).verified()
    with pytest.raises(DocumentError, match="another facility"):
        request.certify(SigningKey.new(), NOW)


# -- join letters ---------------------------------------------------------------------------------


def letter(**changes: Any) -> bytes:
    """Return a letter's bytes, with fields of it changed after it was made."""
    invitation, token = invite(KEY, "Great Falls Clinic", NOW)
    root = make_directory_root(NOW).certificate_der
    made = JoinLetter(invitation, token, KEY.public, "Montana", (RELAY,), root).encode()
    coded = made.removeprefix("emix-join-")
    data = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))[: -network._CHECK_BYTES]
    wire = pb.JoinLetter.FromString(data)
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(wire, name)[:]
            getattr(wire, name).extend(value)
        else:
            setattr(wire, name, value)
    return wire.SerializeToString()


def as_text(data: bytes) -> str:
    coded = base64.urlsafe_b64encode(data + network._letter_check(data)).decode()
    return "emix-join-" + coded.rstrip("=")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_letter_whose_token_has_another_size_is_incomplete(size: int) -> None:
    with pytest.raises(DocumentError, match="incomplete"):
        JoinLetter.decode(as_text(letter(token_secret=bytes(size))))


def test_letter_without_an_address_is_incomplete_and_eight_of_many_are_kept() -> None:
    with pytest.raises(DocumentError, match="incomplete"):
        JoinLetter.decode(as_text(letter(endpoints=[])))
    many = [f"d{n}.example.org:443" for n in range(12)]
    assert JoinLetter.decode(as_text(letter(endpoints=many))).endpoints == tuple(many[:8])


def test_letter_is_read_up_to_a_length_and_no_further() -> None:
    room = 2 * network._MAX_LETTER_BYTES
    long = [f"{'d' * 60}{n}.example.org:443" for n in range(90)]
    text = as_text(letter(endpoints=long))
    assert network._MAX_LETTER_BYTES + 2 < len(text) < room
    assert len(JoinLetter.decode(text).endpoints) == 8
    with pytest.raises(DocumentError, match="not a join letter"):
        JoinLetter.decode(as_text(letter(endpoints=long * 3)))


def test_invitation_stands_for_three_days() -> None:
    invitation, _ = invite(KEY, "Clinic", NOW)
    assert invitation.expires_seconds - invitation.issued_seconds == 72 * 3600
    assert network.MAX_MEMBERSHIP_BYTES == 2048
    assert network.MAX_LISTING_BYTES == 8192


# -- relay tickets --------------------------------------------------------------------------------


def signer(expires: float = NOW + 1000) -> TicketSigner:
    return read_ticket_signer(TICKET_KEY, certify_tickets(KEY, TICKET_KEY.public, [RELAY], expires))


def ticket(**changes: Any) -> Ticket:
    made = Ticket(
        bytes(16),
        RELAY,
        True,
        FacilityId(b"f" * 32),
        NodeId(b"n" * 32),
        FacilityId(b"g" * 32),
        NodeId(b"o" * 32),
        int(NOW) + TICKET_SECONDS,
    )
    return dataclasses.replace(made, **changes)


def test_ticket_comes_back_as_signed() -> None:
    assert open_ticket(signer().sign(ticket()), KEY.public, NOW) == ticket()
    assert ticket_relays(certify_tickets(KEY, TICKET_KEY.public, [RELAY], NOW)) == (RELAY,)


@pytest.mark.parametrize(
    ("expires", "skew", "is_taken"),
    [
        (NOW + 1, 0.0, True),
        (NOW, 0.0, False),
        (NOW - 1, 0.0, False),
        (NOW, 1.0, True),
        (NOW - 9, 10.0, True),
        (NOW - 10, 10.0, False),
        (NOW + TICKET_SECONDS + SKEW_SECONDS, 0.0, True),
        (NOW + TICKET_SECONDS + SKEW_SECONDS + 1, 0.0, False),
    ],
)
def test_ticket_is_taken_in_its_time(expires: float, skew: float, *, is_taken: bool) -> None:
    data = signer().sign(ticket(expires_seconds=int(expires)))
    if is_taken:
        assert open_ticket(data, KEY.public, NOW, skew_seconds=skew).expires_seconds == expires
    else:
        with pytest.raises(DocumentError, match="expired, or the clocks"):
            open_ticket(data, KEY.public, NOW, skew_seconds=skew)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_ticket_of_another_size_of_id_is_malformed(size: int) -> None:
    with pytest.raises(DocumentError, match="malformed"):
        open_ticket(signer().sign(ticket(id=bytes(size))), KEY.public, NOW)


def test_ticket_key_ends_and_is_of_its_network_and_its_relays() -> None:
    data = signer(NOW + 5).sign(ticket())
    assert open_ticket(data, KEY.public, NOW + 4) == ticket()
    with pytest.raises(BadSignature, match="has expired"):
        open_ticket(data, KEY.public, NOW + 5)
    with pytest.raises(BadSignature, match="has not named this relay"):
        open_ticket(signer().sign(ticket(relay="other.example.org:1")), KEY.public, NOW)
    with pytest.raises(BadSignature):
        open_ticket(data, SigningKey.new().public, NOW)


def test_ticket_signer_is_of_the_key_that_was_certified() -> None:
    certificate = certify_tickets(KEY, TICKET_KEY.public, [RELAY], NOW)
    with pytest.raises(DocumentError, match="another ticket key"):
        read_ticket_signer(SigningKey.new(), certificate)
    assert documents.SignedBytes.FromString(certificate).signature


# -- deliveries, further --------------------------------------------------------------------------


def test_delivery_stands_for_thirty_days_at_most() -> None:
    _, delivery, _ = make_proof()
    month = 30 * 24 * 3600
    for life, standing in ((month - 1, month - 1), (month, month), (month + 1, month)):
        one = dataclasses.replace(delivery, expires_time=NOW + life)
        assert one.stands_until == NOW + standing


def test_delivery_that_ends_before_it_began_or_never_is_refused() -> None:
    _, delivery, _ = make_proof()
    for ends in (NOW - 1, NOW + 400 * 86400, NOW + 401 * 86400, NOW + 10**9):
        with pytest.raises(BadDelivery, match="400 days"):
            open_delivery(sign_delivery(dataclasses.replace(delivery, expires_time=ends), A))


def test_delivery_is_bounded_before_it_is_read() -> None:
    for size in (MAX_BODY_BYTES + 1, 10 * MAX_BODY_BYTES):
        with pytest.raises(BadDelivery, match="too long"):
            open_delivery(A.sign(DELIVERY_KIND, bytes(size)))


# -- heads of audit logs --------------------------------------------------------------------------

SOUND_HEAD: dict[str, Any] = {
    "facility": A.facility_id.digest,
    "node_id": A.node_id.digest,
    "sequence": 7,
    "digest": bytes(32),
    "time_milliseconds": 5,
}


def signed_head(**changes: Any) -> bytes:
    body = documents.AuditHead(**{**SOUND_HEAD, **changes}).SerializeToString()
    return A.sign("audit-head", body).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 1},
        {"sequence": MAX_SEQUENCE},
        {"time_milliseconds": 0},
        {"time_milliseconds": 2**48 - 1},
    ],
    ids=str,
)
def test_head_is_taken_up_to_each_bound(change: dict[str, Any]) -> None:
    found = open_head(signed_head(**change))
    assert found == Head(
        A.facility_id,
        A.node_id,
        change.get("sequence", 7),
        bytes(32),
        change.get("time_milliseconds", 5),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 0},
        {"sequence": MAX_SEQUENCE + 1},
        {"time_milliseconds": -1},
        {"time_milliseconds": 2**48},
        {"digest": bytes(31)},
        {"digest": bytes(33)},
        {"digest": b""},
        {"facility": bytes(31)},
        {"node_id": b""},
    ],
    ids=str,
)
def test_head_beyond_a_bound_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match=r"invalid numbers|malformed"):
        open_head(signed_head(**change))


# -- statements -----------------------------------------------------------------------------------


def test_statements_are_taken_up_to_sixteen_kibibytes() -> None:
    """Their bytes are bounded before anything of them is read."""
    assert MAX_STATEMENTS_BYTES == 16 * 1024
    with pytest.raises(DocumentError, match="too long"):
        Identity.decode(bytes(16 * 1024 + 1))
    with pytest.raises(DocumentError) as caught:
        Identity.decode(bytes(16 * 1024))
    assert "too long" not in str(caught.value)


@pytest.mark.parametrize(("count", "is_taken"), [(0, False), (1, True), (4, True), (5, False)])
def test_statements_name_one_to_four_certificates(count: int, *, is_taken: bool) -> None:
    certificate = make_tls_identity(A.node_id, NOW).certificate_der
    data = make_identity(certificates=[certificate] * count)
    if is_taken:
        assert len(Identity.decode(data).certificates) == count
    else:
        with pytest.raises(DocumentError, match="one to four"):
            Identity.decode(data)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_node_key_of_another_size_speaks_for_nobody(size: int) -> None:
    key = SigningKey.new()
    body = documents.NodeCert(
        facility_key=key.public,
        node_key=bytes(size),
        issued_seconds=int(NOW),
        expires_seconds=int(NOW) + 10,
        generation=int(NOW),
    ).SerializeToString()
    with pytest.raises(BadSignature, match="of another facility"):
        Signer(key.public, body, key.sign("node-cert", body)).verified()


# -- lists of networks ----------------------------------------------------------------------------


def test_list_is_of_one_week_and_one_network() -> None:
    assert lists.LIST_SECONDS == 7 * 24 * 3600
    network = network_id(KEY.public)
    data = lists.sign_list(KEY, network, 1, {}, frozenset(), NOW)
    assert lists.open_list(data, KEY.public, NOW).expires_time == NOW + 7 * 86400
    for other in (bytes(32), b"\xff" * 32):  # before it and behind it
        foreign = lists.sign_list(KEY, NetworkId(other), 1, {}, frozenset(), NOW)
        with pytest.raises(BadSignature, match="of another network"):
            lists.open_list(foreign, KEY.public, NOW)


@pytest.mark.parametrize(
    ("epoch", "is_taken"),
    [(0, False), (1, True), (lists.MAX_EPOCH, True), (lists.MAX_EPOCH + 1, False)],
)
def test_list_is_of_an_epoch_that_can_be(epoch: int, *, is_taken: bool) -> None:
    network = network_id(KEY.public)
    data = lists.sign_list(KEY, network, 1, {}, frozenset(), NOW, epoch=epoch)
    if is_taken:
        assert lists.open_list(data, KEY.public, NOW).epoch == epoch
    else:
        with pytest.raises(DocumentError, match="epoch is out of bounds"):
            lists.open_list(data, KEY.public, NOW)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_list_key_of_another_size_signs_nothing(size: int) -> None:
    certificate = lists.delegate_lists(KEY, bytes(size), NOW + 100)
    with pytest.raises(BadSignature, match="list key is of another network"):
        lists.open_list_key(certificate, KEY.public, NOW, latest=None)


def test_change_has_what_is_new_and_leads_to_one_list_alone() -> None:
    network = network_id(KEY.public)
    members = {InvitationId(bytes([n]) * 32): FacilityId(bytes([n]) * 32) for n in range(40)}
    old, new = InvitationId(b"o" * 32), InvitationId(b"n" * 32)
    first = lists.sign_list(KEY, network, 1, members, frozenset({old}), NOW)
    second = lists.sign_list(KEY, network, 2, members, frozenset({old, new}), NOW)
    base, shown = (lists.open_list(one, KEY.public, NOW) for one in (first, second))
    change = lists.make_change(base, shown, second)
    assert list(pb.ListChange.FromString(change).added_revocations) == [new.digest]
    assert lists.leads_to(change, second)
    others = [lists.sign_list(KEY, network, n, {}, frozenset(), NOW) for n in range(3, 23)]
    assert not any(lists.leads_to(change, other) for other in others)


# -- memberships ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after_issue", "is_taken"),
    [
        (-network.SKEW_SECONDS - 1, False),
        (-network.SKEW_SECONDS, True),
        (72 * 3600, True),
        (72 * 3600 + network.SKEW_SECONDS, True),
        (72 * 3600 + network.SKEW_SECONDS + 1, False),
    ],
)
def test_invitation_is_used_in_its_time(after_issue: int, *, is_taken: bool) -> None:
    invitation, token = invite(KEY, "Great Falls Clinic", NOW)
    root = make_directory_root(NOW).certificate_der
    letter = JoinLetter(invitation, token, KEY.public, "Montana", (RELAY,), root)
    facility = SigningKey.new().public
    if is_taken:
        found = network.claim(letter, facility, NOW + after_issue)
        assert found.joined_seconds == NOW + after_issue
    else:
        with pytest.raises(DocumentError, match="outside the invitation's time"):
            network.claim(letter, facility, NOW + after_issue)


# -- manifests ------------------------------------------------------------------------------------


def test_manifest_may_have_as_many_extents_as_instances_and_chunks() -> None:
    manifest = make_manifest()
    wire = documents.Manifest.FromString(sign_manifest(manifest, A).body)
    wire.instances[1].extents.add(chunk_index=1, offset=0, length=0)
    _check_counts(wire)
    wire.instances[1].extents.add(chunk_index=1, offset=0, length=0)
    with pytest.raises(ValueError, match="extents"):
        _check_counts(wire)


# -- values ---------------------------------------------------------------------------------------


def test_documents_are_values_that_nobody_changes() -> None:
    """A field that could be set, or added, would change what was verified."""
    found = 0
    for module in pkgutil.iter_modules(node.documents.__path__, "node.documents."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                if value.__module__ != module.name:
                    continue
                found += 1
                assert value.__dataclass_params__.frozen, value  # type: ignore[attr-defined]
                assert "__slots__" in vars(value), value
    assert found > 30
