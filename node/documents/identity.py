"""What a node states about itself, and how a peer checks it.

`Statements` travel as bytes: in a file, from the introduction service, in a pin. They are
verified as a whole every time they are read.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from emix.documents.v1 import documents_pb2 as pb

from node.crypto.certificates import check_own, validity
from node.crypto.signing import SigningKey, node_id, verify
from node.documents.bodies import parse_body
from node.documents.signed import NodeCert, Signer
from node.domain.display_text import printable
from node.domain.ids import FacilityId, NodeId
from node.domain.names import MAX_NAME_CHARACTERS, looks_like_id
from node.errors import BadSignature, DocumentError

MAX_STATEMENTS_BYTES = 16 * 1024
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class Profile:
    """How a facility wishes to be shown and reached."""

    display_name: str
    endpoints: tuple[str, ...] = ()
    introduction_endpoints: tuple[str, ...] = ()
    issued_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's statements after every signature in them was verified.

    Attributes:
        signer: Facility key and node certificate; `cert` is what the latter says.
        node_id: The node.
        certificates: TLS certificates that the node calls its own, DER, newest first.
        seal_key: The X25519 key to seal data keys to.
        profile: Name and endpoints.
        encoded: The bytes that all this was read from.
    """

    signer: Signer
    cert: NodeCert
    node_id: NodeId
    certificates: tuple[bytes, ...] = field(repr=False)
    seal_key: bytes = field(repr=False)
    profile: Profile
    encoded: bytes = field(repr=False)

    @property
    def facility_id(self) -> FacilityId:
        """The facility that the node speaks for."""
        return self.signer.facility_id

    def valid_certificates(self, now: float) -> tuple[bytes, ...]:
        """Return those certificates that are valid at `now`; none of an expired node key."""
        if not self.cert.is_valid(now):
            return ()
        spans = ((der, validity(der)) for der in self.certificates)
        return tuple(der for der, (start, end) in spans if start <= now < end)

    @property
    def order(self) -> tuple[int, int, int]:
        """Sort key that grows with later statements of a facility: a peer accepts no older ones."""
        return self.cert.generation, self.profile.issued_seconds, self.cert.issued_seconds

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the verified identity in encoded statements.

        Raises:
            BadSignature: a statement that its key did not sign.
            DocumentError: anything else that is wrong with the bytes.
        """
        if len(data) > MAX_STATEMENTS_BYTES:
            raise DocumentError("the statements are too long")
        wire = parse_body(pb.Statements, data, "node's statements")
        signer = Signer(wire.facility_key, wire.node_cert.body, wire.node_cert.signature)
        cert = signer.verified()
        whose = _Whose(cert.node_key, node_id(cert.node_key), signer.facility_id)
        return cls(
            signer=signer,
            cert=cert,
            node_id=whose.node,
            certificates=_certificates(wire.tls_bindings, whose),
            seal_key=_seal_key(wire.seal_key, whose),
            profile=_profile(wire.profile, whose),
            encoded=data,
        )


def make_statements(
    node_key: SigningKey,
    signer: Signer,
    certificates: Sequence[bytes],
    seal_key: bytes,
    profile: Profile,
) -> bytes:
    """Return the encoded statements of this node, signed with its key."""
    node, facility = node_id(node_key.public).digest, signer.facility_id.digest
    bindings = [
        pb.TlsBinding(node_id=node, facility_id=facility, certificate=der) for der in certificates
    ]
    stated = pb.Profile(
        node_id=node,
        facility_id=facility,
        display_name=profile.display_name,
        endpoints=profile.endpoints,
        introduction_endpoints=profile.introduction_endpoints,
        issued_seconds=profile.issued_seconds,
    )
    sealing = pb.SealKey(node_id=node, facility_id=facility, public_key=seal_key)

    def signed(kind: str, body: bytes) -> pb.SignedBytes:
        return pb.SignedBytes(body=body, signature=node_key.sign(kind, body))

    return pb.Statements(
        facility_key=signer.facility_key,
        node_cert=pb.SignedBytes(body=signer.node_cert, signature=signer.node_cert_signature),
        tls_bindings=[signed("tls-binding", b.SerializeToString()) for b in bindings],
        seal_key=signed("seal-key", sealing.SerializeToString()),
        profile=signed("profile", stated.SerializeToString()),
    ).SerializeToString()


class _Statement(Protocol):
    node_id: bytes
    facility_id: bytes


@dataclass(frozen=True, slots=True)
class _Whose:
    """The node and facility of the statements: each statement must name both of them."""

    node_key: bytes
    node: NodeId
    facility: FacilityId

    def check(self, kind: str, wire: pb.SignedBytes) -> bytes:
        """Return the body that the node key signed as a `kind`."""
        verify(self.node_key, kind, wire.body, wire.signature)
        return wire.body

    def check_names(self, stated: _Statement) -> None:
        """Check that a statement is about this node, and made for this facility."""
        if stated.node_id != self.node.digest:
            raise BadSignature("a statement is about another node")
        if stated.facility_id != self.facility.digest:
            raise BadSignature("the node made a statement for another facility")


def _certificates(wires: Sequence[pb.SignedBytes], whose: _Whose) -> tuple[bytes, ...]:
    if not 1 <= len(wires) <= 4:
        raise DocumentError("the statements do not have one to four TLS bindings")
    certificates = []
    for wire in wires:
        binding = parse_body(pb.TlsBinding, whose.check("tls-binding", wire), "TLS binding")
        whose.check_names(binding)
        try:
            check_own(binding.certificate, whose.node)
        except ValueError as exc:
            raise DocumentError("a TLS binding has no usable certificate") from exc
        certificates.append(binding.certificate)
    return tuple(certificates)


def _seal_key(wire: pb.SignedBytes, whose: _Whose) -> bytes:
    value = parse_body(pb.SealKey, whose.check("seal-key", wire), "seal key")
    whose.check_names(value)
    if len(value.public_key) != 32:
        raise DocumentError("the seal key does not have 32 bytes")
    return value.public_key


def _profile(wire: pb.SignedBytes, whose: _Whose) -> Profile:
    value = parse_body(pb.Profile, whose.check("profile", wire), "profile")
    whose.check_names(value)
    if not all(map(is_endpoint, (*value.endpoints, *value.introduction_endpoints))):
        raise DocumentError("the profile has an invalid endpoint")
    if not 0 <= value.issued_seconds < 2**40:
        raise DocumentError("the profile's time is invalid")
    check_name(value.display_name)
    return Profile(
        display_name=clean_name(value.display_name),
        endpoints=tuple(value.endpoints)[:8],
        introduction_endpoints=tuple(value.introduction_endpoints)[:8],
        issued_seconds=value.issued_seconds,
    )


def is_endpoint(text: str) -> bool:
    """Return whether `text` is `host:port`: a DNS name, an IPv4 address, or an IPv6 one in []."""
    host, _, port = text.rpartition(":")
    if not (1 <= len(port) <= 5 and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return False
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return "%" not in host
    return len(host) <= 253 and _HOST.fullmatch(host) is not None


def check_name(name: str) -> None:
    """Check that a name can be a facility's; `DocumentError` if it looks like a Facility ID."""
    if looks_like_id(name):
        raise DocumentError(
            "the facility calls itself by a name that looks like a Facility ID; it must take"
            " another name"
        )


def clean_name(name: str) -> str:
    """Return a name that is safe to print: no control or direction characters, bounded."""
    return printable(name)[:MAX_NAME_CHARACTERS].strip()
