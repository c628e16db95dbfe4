"""The last value that is taken and the first that is not, of each bound in a document."""

import base64
import dataclasses
from typing import Any

import pytest
from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb

from node.crypto.certificates import make_directory_root
from node.crypto.signing import SigningKey
from node.documents import network
from node.documents.delivery import MAX_LIFE_SECONDS, MAX_TEXT, open_delivery, sign_delivery
from node.documents.network import JoinLetter, invite
from node.documents.node_requests import NodeRequest, decode_certificate, encode_certificate
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS, NodeCert
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
from node.domain.ids import FacilityId, NodeId
from node.errors import BadDelivery, BadSignature, DocumentError
from tests.node.documents.test_documents import A, B, make_proof

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
    with pytest.raises(BadSignature, match="to come"):
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
