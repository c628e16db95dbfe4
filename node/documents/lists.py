"""The signed list of a network's members and revocations, and how one differs from an earlier one.

A list is signed whole. A change holds what is needed to make the whole of it from an earlier one;
the signature then proves that it came out right.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb

from node.crypto.digests import sha256
from node.crypto.signing import SigningKey, network_id, verify
from node.documents.bodies import parse_body
from node.documents.network import SKEW_SECONDS
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.network import ListPlace, NetworkList
from node.domain.wire_form import has_at_most
from node.errors import BadSignature, DocumentError

LIST_SECONDS = 7 * 86400
MAX_MEMBERS = 50_000
MAX_EPOCH = 2**31
FIRST_EPOCH = 1
MAX_LIST_BYTES = 4 * 2**20 - 65536
_MOST_CHANGE_FIELDS = 5 * MAX_MEMBERS  # a member has three, and what is removed one


def delegate_lists(
    network_key: SigningKey, list_key: bytes, expires: float, *, epoch: int = FIRST_EPOCH
) -> bytes:
    """Return the network's encoded certificate that a key may sign its lists, in one epoch."""
    body = pb.ListKeyCert(
        network_id=network_id(network_key.public).digest,
        list_key=list_key,
        expires_seconds=int(expires),
        epoch=epoch,
    ).SerializeToString()
    signature = network_key.sign("list-key", body)
    return documents.SignedBytes(body=body, signature=signature).SerializeToString()


def sign_list(
    key: SigningKey,
    network: NetworkId,
    number: int,
    members: Mapping[InvitationId, FacilityId],
    revoked: frozenset[InvitationId],
    now: float,
    *,
    certificate: bytes = b"",
    epoch: int = FIRST_EPOCH,
) -> bytes:
    """Return an encoded list, signed by the network key, or by one that `certificate` names.

    It ends with the key that signs it, if that is sooner than a list's time.
    """
    expires = int(now) + LIST_SECONDS
    if certificate:
        stated = pb.ListKeyCert.FromString(documents.SignedBytes.FromString(certificate).body)
        expires = min(expires, stated.expires_seconds)
    body = _body(network, (epoch, number), (int(now), expires), members, revoked)
    signed = documents.SignedBytes(body=body, signature=key.sign("network-list", body))
    wire = pb.SignedList(list=signed)
    if certificate:
        wire.list_key_cert.CopyFrom(documents.SignedBytes.FromString(certificate))
    return wire.SerializeToString()


def _body(
    network: NetworkId,
    place: ListPlace,
    span: tuple[int, int],
    members: Mapping[InvitationId, FacilityId],
    revoked: frozenset[InvitationId],
) -> bytes:
    """Return what is signed: in ascending order, so that there is one way to write it."""
    return pb.NetworkList(
        network_id=network.digest,
        epoch=place[0],
        number=place[1],
        issued_seconds=span[0],
        expires_seconds=span[1],
        members=[_member(i, f) for i, f in sorted(members.items())],
        revoked_invitations=[i.digest for i in sorted(revoked)],
    ).SerializeToString()


def _member(invitation: InvitationId, facility: FacilityId) -> pb.ListedMember:
    return pb.ListedMember(invitation_digest=invitation.digest, facility_id=facility.digest)


def open_list(data: bytes, network_key: bytes, now: float) -> NetworkList:
    """Return the list in `data`, held against a network's key. It may have expired.

    Whether it may be taken over is for `NetworkView.after` to say.

    Raises:
        BadSignature: neither the network nor a key that it certified for that epoch signed it.
        DocumentError: it makes no sense, or is from the future.
    """
    if len(data) > MAX_LIST_BYTES:
        raise DocumentError("the network's list is too long")
    wire = parse_body(pb.SignedList, data, "network list")
    if wire.SerializeToString() != data:  # it is passed on as it came: no extra bytes are allowed
        raise DocumentError("the network list has unknown fields")
    network = network_id(network_key)
    key, list_key = network_key, None
    if wire.HasField("list_key_cert"):
        list_key = _list_key(wire.list_key_cert, network_key)
        key = list_key.list_key
    verify(key, "network-list", wire.list.body, wire.list.signature)  # before much is read
    stated = parse_body(pb.NetworkList, wire.list.body, "network list")
    if stated.network_id != network.digest:
        raise BadSignature("the list is of another network")
    if list_key is not None and stated.epoch != list_key.epoch:
        raise BadSignature("the list's epoch is not the one of the key that signed it")
    if list_key is not None and stated.expires_seconds > list_key.expires_seconds:
        raise BadSignature("the list expires after the key that signed it")
    lifetime = stated.expires_seconds - stated.issued_seconds
    if not 0 < lifetime <= LIST_SECONDS or not 0 <= stated.issued_seconds <= now + SKEW_SECONDS:
        raise DocumentError("the list's times are invalid")
    # A number is at most the issue time in seconds. So the thief of a list key cannot use up the
    # numbers: a later list can always have a higher one.
    if not 1 <= stated.number <= stated.issued_seconds or not 1 <= stated.epoch <= MAX_EPOCH:
        raise DocumentError("the list's number or epoch is out of bounds")
    if len(stated.members) > MAX_MEMBERS:
        raise DocumentError(f"the list has more than {MAX_MEMBERS} members")
    with _ids():
        members = {
            InvitationId(m.invitation_digest): FacilityId(m.facility_id) for m in stated.members
        }
        revoked = frozenset(map(InvitationId, stated.revoked_invitations))
    if len(members) != len(stated.members):
        raise DocumentError("the list names an invitation twice")
    return NetworkList(
        network=network,
        number=stated.number,
        issued_time=stated.issued_seconds,
        expires_time=stated.expires_seconds,
        members=members,
        revoked=revoked,
        digest=sha256(b"emix/network-list-id/v1\0", wire.list.body),
        epoch=stated.epoch,
        list_key_expires=list_key.expires_seconds if list_key else None,
    )


def make_change(base: NetworkList, shown: NetworkList, encoded: bytes) -> bytes:
    """Return the encoded change from an earlier list; empty if it would not be shorter or not work.

    Args:
        base: The earlier list.
        shown: The later one.
        encoded: The later one, as it was signed.
    """
    wire = parse_body(pb.SignedList, encoded, "network list")
    change = pb.ListChange(
        base_digest=base.digest,
        epoch=shown.epoch,
        number=shown.number,
        issued_seconds=int(shown.issued_time),
        expires_seconds=int(shown.expires_time),
        added_members=[
            _member(i, f) for i, f in sorted(shown.members.items()) if base.members.get(i) != f
        ],
        removed_invitations=[i.digest for i in sorted(base.members.keys() - shown.members.keys())],
        added_revocations=[i.digest for i in sorted(shown.revoked - base.revoked)],
        signature=wire.list.signature,
    )
    if wire.HasField("list_key_cert"):
        change.list_key_cert.CopyFrom(wire.list_key_cert)
    data = change.SerializeToString()
    # Who takes a revocation back, or writes lists in another order, is sent whole.
    if len(data) >= len(encoded) or apply_change(base, data) != encoded:
        return b""
    return data


def apply_change(base: NetworkList, data: bytes) -> bytes:
    """Return the whole list that a change makes of an earlier one; nothing is verified yet.

    Raises:
        DocumentError: it is a change of another list, or makes no sense.
    """
    change = _open_change(data)
    if change.base_digest != base.digest:
        raise DocumentError("the change does not start from the newest list known here")
    with _ids():
        removed = frozenset(map(InvitationId, change.removed_invitations))
        members = {i: f for i, f in base.members.items() if i not in removed}
        for added in change.added_members:
            members[InvitationId(added.invitation_digest)] = FacilityId(added.facility_id)
        revoked = base.revoked | frozenset(map(InvitationId, change.added_revocations))
    span = (change.issued_seconds, change.expires_seconds)
    body = _body(base.network, (change.epoch, change.number), span, members, revoked)
    wire = pb.SignedList(list=documents.SignedBytes(body=body, signature=change.signature))
    if change.HasField("list_key_cert"):
        wire.list_key_cert.CopyFrom(change.list_key_cert)
    return wire.SerializeToString()


def leads_to(change: bytes, encoded: bytes) -> bool:
    """Return whether a change makes the list in `encoded`, of whichever earlier one.

    Raises:
        DocumentError: one of them makes no sense.
    """
    signature = _open_change(change).signature
    return signature == parse_body(pb.SignedList, encoded, "network list").list.signature


def base_of(change: bytes) -> bytes:
    """Return the digest that names the list that a change begins with; raises as `leads_to`."""
    return _open_change(change).base_digest


def _open_change(data: bytes) -> pb.ListChange:
    """Return a change, of which nothing is signed: its length and its fields are bounded first."""
    if len(data) > MAX_LIST_BYTES:
        raise DocumentError(f"a change of a list is longer than {MAX_LIST_BYTES} bytes")
    if not has_at_most(data, _MOST_CHANGE_FIELDS, {5: {}, 9: {}}):
        raise DocumentError(f"a change of a list has more than {_MOST_CHANGE_FIELDS} fields")
    return parse_body(pb.ListChange, data, "change of a list")


def open_list_key(
    certificate: bytes, network_key: bytes, now: float, *, latest: NetworkList | None
) -> tuple[bytes, int]:
    """Return the key that may sign a network's lists now, and the epoch that it is for.

    Raises:
        BadSignature: the network has not certified it, or not for so long, or has begun a later
            epoch with the `latest` list that is known.
        DocumentError: these bytes are no such certificate.
    """
    signed = parse_body(documents.SignedBytes, certificate, "list key")
    stated = _list_key(signed, network_key)
    if now >= stated.expires_seconds:
        raise BadSignature("the list key has expired")
    if latest is not None and latest.epoch > stated.epoch:
        raise BadSignature("the network has ended this list key by a new epoch")
    return stated.list_key, stated.epoch


def _list_key(signed: documents.SignedBytes, network_key: bytes) -> pb.ListKeyCert:
    """Return what the network says of a key that may sign its lists."""
    verify(network_key, "list-key", signed.body, signed.signature)
    stated = parse_body(pb.ListKeyCert, signed.body, "list key")
    if stated.network_id != network_id(network_key).digest or len(stated.list_key) != 32:
        raise BadSignature("the list key is of another network")
    return stated


@contextmanager
def _ids() -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise DocumentError("an ID in the list does not have 32 bytes") from exc
