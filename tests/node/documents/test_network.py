"""Documents of a network: each is taken only from whom it should be."""

import dataclasses
from dataclasses import replace

import pytest
from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.certificates import make_directory_root, make_tls_identity
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, network_id, node_id
from node.documents import network
from node.documents.identity import Identity, Profile, make_statements
from node.documents.lists import open_list
from node.documents.network import (
    JoinLetter,
    Listing,
    claim,
    invite,
    open_invitation,
    open_listing,
    open_membership,
    sign_listing,
)
from node.documents.signed import certify_node
from node.domain.network import MAX_LISTED
from node.domain.relays import RelayPolicy
from node.errors import BadSignature, DocumentError

NOW = 1_800_000_000.0
KEY, OTHER_KEY, LIST_KEY = SigningKey.new(), SigningKey.new(), SigningKey.new()
NETWORK = network_id(KEY.public)
FACILITY_KEY = SigningKey.new().public
NODE_KEY = SigningKey.new()


ROOT = make_directory_root(NOW).certificate_der


def make_letter(key: SigningKey = KEY, now: float = NOW) -> JoinLetter:
    invitation, token = invite(key, "Great Falls Clinic", now)
    return JoinLetter(invitation, token, key.public, "Montana", ("dir.example.org:443",), ROOT)


def make_identity(node_key: SigningKey = NODE_KEY) -> Identity:
    signer = certify_node(SigningKey.new(), node_key, NOW)
    tls = make_tls_identity(node_id(node_key.public), NOW)
    profile = Profile("Great Falls Clinic", ("h:1",), (), int(NOW))
    return Identity.decode(
        make_statements(node_key, signer, [tls.certificate_der], SealKey.new().public, profile)
    )


def test_letter_comes_out_as_it_went_in_whatever_a_mail_program_did_to_its_lines() -> None:
    letter = make_letter()
    text = letter.encode()
    broken = "\r\n> ".join(text[i : i + 70] for i in range(0, len(text), 70)).replace(">", "")
    found = JoinLetter.decode(f"  {broken}\n")
    assert found.token.seed == letter.token.seed
    assert dataclasses.replace(found, token=letter.token) == letter


@pytest.mark.parametrize("mark", ["> ", ">> ", "  | ", ">"])
@pytest.mark.parametrize("gap", ["\n", "\r\n", "\n\n"])
def test_letter_is_found_in_a_mail_that_quotes_it(mark: str, gap: str) -> None:
    text = make_letter().encode()
    lines = [text[i : i + 70] for i in range(0, len(text), 70)]
    quoted = gap.join(mark + line for line in lines)
    mails: tuple[str, ...] = (quoted, f"Dear Kim,\n\n{quoted}\n")
    if gap != "\n\n":
        mails = (*mails, f"{mark}here it is:\n{quoted}\n{mark}\n{mark}Regards\n-- \nthe operator\n")
    for mail in mails:
        assert JoinLetter.decode(mail).encode() == text


@given(st.data())
def test_damaged_letter_is_refused(data: st.DataObject) -> None:
    letter = make_letter()
    text = letter.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    other = text[:at] + data.draw(st.characters(max_codepoint=127)) + text[at + 1 :]
    try:
        found = JoinLetter.decode(other)
    except DocumentError:
        return
    assert found.encode() == text  # nothing was changed, or only blanks


def test_invitation_is_taken_from_the_network_alone() -> None:
    invitation, _ = invite(KEY, "Great Falls Clinic", NOW)
    assert open_invitation(invitation.signed, KEY.public) == invitation
    with pytest.raises(BadSignature):
        open_invitation(invitation.signed, OTHER_KEY.public)
    moved = documents.SignedBytes(
        body=invitation.signed.body, signature=OTHER_KEY.sign("invitation", invitation.signed.body)
    )
    with pytest.raises(BadSignature, match="another network"):
        open_invitation(moved, OTHER_KEY.public)
    other_kind = documents.SignedBytes(
        body=invitation.signed.body, signature=KEY.sign("list-key", invitation.signed.body)
    )
    with pytest.raises(BadSignature):
        open_invitation(other_kind, KEY.public)


def test_membership_takes_the_token_key_and_names_the_facility() -> None:
    letter = make_letter()
    membership = claim(letter, FACILITY_KEY, NOW + 60)
    found = open_membership(membership.encoded, KEY.public)
    assert found == membership
    assert found.facility_key == FACILITY_KEY
    with pytest.raises(BadSignature):
        open_membership(membership.encoded, OTHER_KEY.public)


def test_claim_without_the_token_key_or_on_another_invitation_is_refused() -> None:
    letter, other = make_letter(), make_letter()
    wire = pb.Membership.FromString(claim(letter, FACILITY_KEY, NOW).encoded)
    forged = pb.Membership(invitation=wire.invitation, claim=wire.claim)
    forged.claim.signature = OTHER_KEY.sign("membership-claim", wire.claim.body)
    with pytest.raises(BadSignature, match="membership-claim"):
        open_membership(forged.SerializeToString(), KEY.public)
    forged = pb.Membership(invitation=wire.invitation, claim=wire.claim)
    body = pb.MembershipClaim.FromString(wire.claim.body)
    body.invitation_digest = other.invitation.id.digest
    forged.claim.body = body.SerializeToString()
    forged.claim.signature = letter.token.sign("membership-claim", forged.claim.body)
    with pytest.raises(BadSignature, match="another invitation"):
        open_membership(forged.SerializeToString(), KEY.public)


@pytest.mark.parametrize("when", [NOW - 3600, NOW + network.INVITATION_SECONDS + 3600])
def test_claim_outside_the_invitations_time_is_refused(when: float) -> None:
    with pytest.raises(DocumentError, match="time"):
        claim(make_letter(), FACILITY_KEY, when)


def test_listing_is_taken_from_its_node_alone() -> None:
    identity = make_identity()
    listing = Listing("Great Falls", ("CT", "MR"), ("Dr. Jones",), "emix/1", 1, int(NOW))
    data = sign_listing(NODE_KEY, identity, listing)
    assert open_listing(data, identity) == listing
    assert open_listing(data, identity).relays.allows("relay.example.org:443")
    for relays in (RelayPolicy(is_never=True), RelayPolicy(only=("relay.example.org:443",))):
        choosy = replace(listing, relays=relays)
        assert open_listing(sign_listing(NODE_KEY, identity, choosy), identity) == choosy
    with pytest.raises(BadSignature):
        open_listing(data, make_identity(SigningKey.new()))
    same_key_other_node = sign_listing(NODE_KEY, make_identity(SigningKey.new()), listing)
    with pytest.raises(BadSignature, match="another node"):
        open_listing(same_key_other_node, identity)


def test_listing_that_would_fool_a_terminal_or_fill_it_is_tamed() -> None:
    identity = make_identity()
    odd = Listing("Great\x1b[2JFalls\u202e", ("x" * 500, ""), (), "", 1, 0)
    found = open_listing(sign_listing(NODE_KEY, identity, odd), identity)
    assert found.city == "Great?[2JFalls?"
    assert found.departments == ("x" * 100,)
    many = Listing(departments=("CT",) * (MAX_LISTED + 1))
    with pytest.raises(DocumentError, match="at most"):
        open_listing(sign_listing(NODE_KEY, identity, many), identity)
    for relays in (("no address",), ("relay.example.org:443",) * (MAX_LISTED + 1)):
        listing = Listing(relays=RelayPolicy(only=relays))
        with pytest.raises(DocumentError, match="relays"):
            open_listing(sign_listing(NODE_KEY, identity, listing), identity)


@given(st.binary(max_size=300))
def test_noise_is_no_document(noise: bytes) -> None:
    identity = make_identity()
    with pytest.raises(DocumentError):
        open_membership(noise, KEY.public)
    with pytest.raises(DocumentError):
        open_list(noise, KEY.public, NOW)
    with pytest.raises(DocumentError):
        open_listing(noise, identity)
