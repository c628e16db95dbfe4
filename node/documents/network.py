"""Documents of a network: invitations, memberships, listings, and the join letter.

Opening a document verifies it as a whole: every signature in what these functions return is valid.
`node.domain.network` then decides the standing of a member.
"""

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Self, TypeVar

from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb
from google.protobuf.message import Message

from node.crypto.certificates import check_directory_root
from node.crypto.digests import sha256
from node.crypto.signing import SigningKey, facility_id, network_id, verify
from node.documents.bodies import parse_body
from node.documents.identity import Identity, check_name, clean_name, is_endpoint
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.names import MAX_NAME_CHARACTERS
from node.domain.network import MAX_LISTED, NetworkView, Standing
from node.domain.relays import ANY_RELAY, RelayPolicy
from node.errors import BadSignature, DocumentError

INVITATION_SECONDS = 72 * 3600
SKEW_SECONDS = 600
MAX_MEMBERSHIP_BYTES = 2048
MAX_LISTING_BYTES = 8 * 1024
_MAX_LETTER_BYTES = 8 * 1024
_LATEST_SECONDS = 2**40
_LETTER_PREFIX = "emix-join-"
_CHECK_BYTES = 6

_Message = TypeVar("_Message", bound=Message)


@dataclass(frozen=True, slots=True)
class Invitation:
    """The permission for one facility to join a network.

    Attributes:
        token_key: Public half of the key that signs the claim.
        display_name: What the network's operator calls the facility.
        list_epoch: The epoch of the network's lists when it was signed.
        signed: Its signed bytes.
    """

    id: InvitationId
    network: NetworkId
    token_key: bytes
    display_name: str
    issued_seconds: int
    expires_seconds: int
    list_epoch: int
    signed: documents.SignedBytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Membership:
    """A facility that came in with an invitation, both verified. Whether it is listed is open."""

    invitation: Invitation
    facility_key: bytes
    joined_seconds: int
    encoded: bytes = field(repr=False)

    @property
    def facility_id(self) -> FacilityId:
        """The facility."""
        return facility_id(self.facility_key)


@dataclass(frozen=True, slots=True)
class JoinLetter:
    """What an operator gives to a facility. Secret until it is used.

    Attributes:
        endpoints: Where the directory is reached.
        root_certificate: Signs the directory's TLS certificates, DER.
    """

    invitation: Invitation
    token: SigningKey = field(repr=False)
    network_key: bytes
    network_name: str
    endpoints: tuple[str, ...]
    root_certificate: bytes = field(repr=False)

    def encode(self) -> str:
        """Return the letter as one line of text."""
        wire = pb.JoinLetter(
            invitation=self.invitation.signed,
            token_secret=self.token.seed,
            network_key=self.network_key,
            network_name=self.network_name,
            endpoints=self.endpoints,
            root_certificate=self.root_certificate,
        )
        data = wire.SerializeToString()
        text = base64.urlsafe_b64encode(data + _letter_check(data)).decode("ascii")
        return _LETTER_PREFIX + text.rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the verified letter that `text` spells.

        It may be wrapped, quoted as mail programs do, and stand among other paragraphs.

        Raises:
            DocumentError: it is none, or a part of it is missing.
        """
        data = _letter_data(text)
        wire = parse_body(pb.JoinLetter, data, "join letter")
        if len(wire.token_secret) != 32 or not wire.endpoints:
            raise DocumentError("the join letter is incomplete; copy it again")
        if not all(map(is_endpoint, wire.endpoints)):
            raise DocumentError("the join letter has an invalid address; ask for a new one")
        letter = cls(
            invitation=open_invitation(wire.invitation, wire.network_key),
            token=SigningKey(wire.token_secret),
            network_key=wire.network_key,
            network_name=clean_name(wire.network_name),
            endpoints=tuple(wire.endpoints)[:8],
            root_certificate=wire.root_certificate,
        )
        try:
            check_directory_root(letter.root_certificate)
        except ValueError as exc:
            raise DocumentError("the join letter has an invalid root certificate") from exc
        if letter.token.public != letter.invitation.token_key:
            raise DocumentError("the join letter holds another invitation's key")
        return letter


@dataclass(frozen=True, slots=True)
class Listing:
    """How a facility wishes to be found, beside its name and endpoints."""

    city: str = ""
    departments: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    software: str = ""
    protocol_version: int = 1
    issued_seconds: int = 0
    relays: RelayPolicy = ANY_RELAY


@dataclass(frozen=True, slots=True)
class Record:
    """A node of a member, as a directory showed it, everything in it verified.

    Attributes:
        is_online: The directory's own word.
        signed_listing: The listing as the node signed it.
        seen_time: When a directory showed it, for one that was remembered; 0 for just now.
    """

    identity: Identity
    listing: Listing
    membership: Membership
    is_online: bool
    signed_listing: bytes
    seen_time: float = 0.0


@dataclass(frozen=True, slots=True)
class Network:
    """A network that this facility has joined.

    Attributes:
        endpoints: Where its directory is reached.
        root_certificate: Signs the directory's TLS certificates, DER.
        membership: This facility's.
        view: Its lists, as far as they were seen here.
        signed_list: The newest of them as it was signed; empty before the first.
    """

    name: str
    network_key: bytes
    endpoints: tuple[str, ...]
    root_certificate: bytes = field(repr=False)
    membership: Membership
    view: NetworkView
    joined_time: float
    signed_list: bytes = field(default=b"", repr=False)

    @property
    def id(self) -> NetworkId:
        """The network."""
        return network_id(self.network_key)

    def standing(self, now: float) -> Standing:
        """Return how this facility itself stands."""
        return self.view.standing(self.membership.invitation.id, self.membership.facility_id, now)


def _letter_data(text: str) -> bytes:
    """Return what a letter holds: in a mail it is quoted, wrapped, and other text follows."""
    lines = [line.lstrip("> \t|").rstrip() for line in text.splitlines()]
    starts = (i for i, line in enumerate(lines) if line.startswith(_LETTER_PREFIX))
    lines = lines[next(starts, 0) :]
    whole, paragraph = ("".join("".join(some).split()) for some in (lines, takewhile(bool, lines)))
    with suppress(DocumentError):
        return _decode_letter(paragraph)
    return _decode_letter(whole)


def _decode_letter(plain: str) -> bytes:
    if not plain.startswith(_LETTER_PREFIX) or len(plain) > 2 * _MAX_LETTER_BYTES:
        raise DocumentError(f"not a join letter: one begins with {_LETTER_PREFIX}")
    coded = plain.removeprefix(_LETTER_PREFIX)
    try:
        data = base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DocumentError("the join letter is damaged; copy the whole letter again") from exc
    data, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if check != _letter_check(data):  # not every part of it is signed
        raise DocumentError("the join letter is damaged or truncated; copy the whole letter again")
    return data


def _letter_check(data: bytes) -> bytes:
    return sha256(b"emix/join-letter/v1\0", data)[:_CHECK_BYTES]


def invite(
    network_key: SigningKey, display_name: str, now: float, *, list_epoch: int = 1
) -> tuple[Invitation, SigningKey]:
    """Return a new invitation and the key that uses it."""
    token = SigningKey.new()
    body = pb.Invitation(
        network_id=network_id(network_key.public).digest,
        token_key=token.public,
        display_name=display_name,
        issued_seconds=int(now),
        expires_seconds=int(now) + INVITATION_SECONDS,
        list_epoch=list_epoch,
    ).SerializeToString()
    signed = documents.SignedBytes(body=body, signature=network_key.sign("invitation", body))
    return open_invitation(signed, network_key.public), token


def open_invitation(signed: documents.SignedBytes, network_key: bytes) -> Invitation:
    """Return the invitation that a network's key signed.

    Raises:
        BadSignature: it is not that network's.
        DocumentError: it makes no sense.
    """
    verify(network_key, "invitation", signed.body, signed.signature)
    wire = parse_body(pb.Invitation, signed.body, "invitation")
    network = network_id(network_key)
    if wire.network_id != network.digest:
        raise BadSignature("the invitation is of another network")
    name = clean_name(wire.display_name)
    if len(wire.token_key) != 32 or not name or len(wire.display_name) > MAX_NAME_CHARACTERS:
        raise DocumentError("the invitation is malformed")
    check_name(name)
    if not 0 <= wire.issued_seconds < wire.expires_seconds < _LATEST_SECONDS:
        raise DocumentError("the invitation's times are invalid")
    return Invitation(
        id=InvitationId(sha256(b"emix/invitation-id/v1\0", signed.body)),
        network=network,
        token_key=wire.token_key,
        display_name=name,
        issued_seconds=wire.issued_seconds,
        expires_seconds=wire.expires_seconds,
        list_epoch=wire.list_epoch,
        signed=signed,
    )


def claim(letter: JoinLetter, facility_key: bytes, now: float) -> Membership:
    """Return a facility's membership: what uses an invitation."""
    body = pb.MembershipClaim(
        invitation_digest=letter.invitation.id.digest,
        facility_key=facility_key,
        joined_seconds=int(now),
    ).SerializeToString()
    wire = pb.Membership(
        invitation=letter.invitation.signed,
        claim=documents.SignedBytes(
            body=body, signature=letter.token.sign("membership-claim", body)
        ),
    )
    return open_membership(wire.SerializeToString(), letter.network_key)


def open_membership(data: bytes, network_key: bytes) -> Membership:
    """Return the membership in `data`, verified with a network's key.

    Raises:
        BadSignature: a signature in it does not verify.
        DocumentError: it is malformed.
    """
    if len(data) > MAX_MEMBERSHIP_BYTES:
        raise DocumentError(f"the membership is longer than {MAX_MEMBERSHIP_BYTES} bytes")
    wire = parse_body(pb.Membership, data, "membership")
    invitation = open_invitation(wire.invitation, network_key)
    verify(invitation.token_key, "membership-claim", wire.claim.body, wire.claim.signature)
    stated = parse_body(pb.MembershipClaim, wire.claim.body, "membership claim")
    if stated.invitation_digest != invitation.id.digest:
        raise BadSignature("the membership claim names another invitation")
    if len(stated.facility_key) != 32:
        raise DocumentError("the membership claim names no facility")
    earliest = invitation.issued_seconds - SKEW_SECONDS
    if not earliest <= stated.joined_seconds <= invitation.expires_seconds + SKEW_SECONDS:
        raise DocumentError("the membership claim was made outside the invitation's time")
    return Membership(invitation, stated.facility_key, stated.joined_seconds, data)


def sign_listing(node_key: SigningKey, identity: Identity, listing: Listing) -> bytes:
    """Return the encoded listing of this node, signed with its key."""
    body = pb.Listing(
        node_id=identity.node_id.digest,
        facility_id=identity.facility_id.digest,
        issued_seconds=listing.issued_seconds,
        city=listing.city,
        departments=listing.departments,
        recipients=listing.recipients,
        software=listing.software,
        protocol_version=listing.protocol_version,
        never_relayed=listing.relays.is_never,
        only_relays=listing.relays.only,
    ).SerializeToString()
    signature = node_key.sign("listing", body)
    return documents.SignedBytes(body=body, signature=signature).SerializeToString()


def open_listing(data: bytes, identity: Identity) -> Listing:
    """Return the listing in `data`, verified with the key of a node.

    Raises:
        BadSignature: that node did not sign it.
        DocumentError: it is malformed.
    """
    if len(data) > MAX_LISTING_BYTES:
        raise DocumentError("the listing is too long")
    signed = parse_body(documents.SignedBytes, data, "listing")
    verify(identity.cert.node_key, "listing", signed.body, signed.signature)
    stated = parse_body(pb.Listing, signed.body, "listing")
    whose = (identity.node_id.digest, identity.facility_id.digest)
    if (stated.node_id, stated.facility_id) != whose:
        raise BadSignature("the listing is of another node")
    if max(len(stated.departments), len(stated.recipients)) > MAX_LISTED:
        raise DocumentError(f"at most {MAX_LISTED} departments and recipients can be listed")
    if len(stated.only_relays) > MAX_LISTED or not all(map(is_endpoint, stated.only_relays)):
        raise DocumentError("the listing names invalid relays")
    if not 0 <= stated.issued_seconds < _LATEST_SECONDS:
        raise DocumentError("the listing's time is invalid")
    return Listing(
        city=clean_name(stated.city),
        departments=_names(stated.departments),
        recipients=_names(stated.recipients),
        software=clean_name(stated.software),
        protocol_version=stated.protocol_version,
        issued_seconds=stated.issued_seconds,
        relays=RelayPolicy(stated.never_relayed, tuple(stated.only_relays)),
    )


def open_record(
    statements: bytes,
    listing: bytes,
    membership: bytes,
    network_key: bytes,
    *,
    is_online: bool,
    seen_time: float = 0.0,
) -> Record:
    """Return a record that a directory shows, or showed, verified with the network's key.

    Raises:
        BadSignature: a signature in it does not verify.
        DocumentError: it is malformed, or its parts belong to different facilities.
    """
    identity = Identity.decode(statements)
    found = open_membership(membership, network_key)
    if found.facility_id != identity.facility_id:
        raise BadSignature("the record has another facility's membership")
    return Record(identity, open_listing(listing, identity), found, is_online, listing, seen_time)


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in map(clean_name, texts) if name)
