"""A document signed by a node, with the chain that lets anyone verify it offline.

The body is kept as the exact bytes that were signed. A document is named by its digest,
which covers body, signature and signer through length-prefixed parts, so that it does not
depend on how protobuf would encode the wrapper.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from emix.documents.v1 import documents_pb2 as pb

from node.crypto.digests import sha256
from node.crypto.signing import SigningKey, facility_id, node_id, verify
from node.documents.bodies import parse_body
from node.domain.ids import FacilityId, NodeId
from node.errors import BadSignature, DocumentError, ForeignNode
from node.system.clock import shown_seconds

_MAX_PART_BYTES = 1024
MAX_CLOCK_SKEW_SECONDS = 600.0
"""For so much the clocks of two nodes may differ."""

NODE_CERT_DAYS = 400
"""For so long a node key speaks for its facility; then the recovery kit has to renew it."""

_LATEST_SECONDS = 2**40
_CLAIM = "node-claim"


@dataclass(frozen=True, slots=True)
class NodeCert:
    """What a facility says about a node key, verified.

    Attributes:
        generation: When the facility first certified this node key; earlier keys are replaced.
        claim: The node key's signature over the facility key: it agrees to speak for the facility.
    """

    node_key: bytes
    issued_seconds: int
    expires_seconds: int
    generation: int
    claim: bytes

    def is_valid(self, now: float) -> bool:
        """Whether the node key still speaks for its facility, if it was not replaced."""
        return now < self.expires_seconds

    def check_taken(self, now: float) -> None:
        """Check that the generation is not in the future.

        A node that accepted a future generation would refuse all node keys that the facility
        certifies until then.

        Raises:
            BadSignature: the generation is in the future, or a clock is wrong.
        """
        if self.generation > now + MAX_CLOCK_SKEW_SECONDS:
            ahead = shown_seconds(self.generation - now)
            raise BadSignature(
                f"the node key was made {ahead} ahead of this node's clock: one of the two clocks"
                " is wrong; correct it (NTP)"
            )


@dataclass(frozen=True, slots=True)
class Signer:
    """A node key certified by a facility key.

    Attributes:
        facility_key: The facility's public identity key.
        node_cert: Body of the NodeCert.
        node_cert_signature: By the facility key, over that body.
    """

    facility_key: bytes
    node_cert: bytes
    node_cert_signature: bytes

    @property
    def facility_id(self) -> FacilityId:
        """The facility that the key belongs to."""
        return facility_id(self.facility_key)

    def verified(self) -> NodeCert:
        """Return what the facility certified, and what the node key agreed to.

        Raises:
            BadSignature: the facility did not sign the certificate.
            ForeignNode: it did, but the node key does not speak for that facility.
        """
        verify(self.facility_key, "node-cert", self.node_cert, self.node_cert_signature)
        cert = parse_body(pb.NodeCert, self.node_cert, "node certificate", BadSignature)
        if cert.facility_key != self.facility_key or len(cert.node_key) != 32:
            raise BadSignature("the node certificate is of another facility")
        try:
            verify(cert.node_key, _CLAIM, self.facility_key, cert.node_signature)
        except BadSignature as exc:
            raise ForeignNode(
                f"facility {self.facility_id.short()} certified a node key that is not its own",
                self.facility_key,
            ) from exc
        if not 0 <= cert.issued_seconds < cert.expires_seconds < _LATEST_SECONDS:
            raise BadSignature("the node certificate has an invalid time")
        if not 1 <= cert.generation <= cert.issued_seconds + MAX_CLOCK_SKEW_SECONDS:
            raise BadSignature("the node certificate has an invalid node key")
        return NodeCert(
            cert.node_key,
            cert.issued_seconds,
            cert.expires_seconds,
            cert.generation,
            cert.node_signature,
        )

    def verified_node_key(self) -> bytes:
        """Return the node key that speaks for the facility; `BadSignature` as `verified`."""
        return self.verified().node_key

    def to_wire(self) -> pb.Signer:
        """Return the protobuf form."""
        cert = pb.SignedBytes(body=self.node_cert, signature=self.node_cert_signature)
        return pb.Signer(facility_key=self.facility_key, node_cert=cert)

    @classmethod
    def from_wire(cls, wire: pb.Signer) -> Self:
        """Return the value of a protobuf form; nothing is verified yet."""
        return cls(wire.facility_key, wire.node_cert.body, wire.node_cert.signature)


@dataclass(frozen=True, slots=True)
class Document:
    """A signed document, as kept and as passed on."""

    kind: str
    body: bytes
    signature: bytes
    signer: Signer

    def verify(self, kind: str) -> tuple[FacilityId, NodeId]:
        """Check that this is a `kind` and that its signer's chain verifies.

        Returns:
            Who signed. Whether that facility may say such a thing is for the caller.

        Raises:
            BadSignature: it is of another kind, or some signature does not verify.
        """
        if self.kind != kind:
            raise BadSignature(f"expected a {kind}, got another document")
        node_key = self.signer.verified_node_key()
        verify(node_key, kind, self.body, self.signature)
        return self.signer.facility_id, node_id(node_key)

    def digest(self) -> bytes:
        """Return the digest that names this document, signature and signer included."""
        parts = (
            self.kind.encode(),
            self.body,
            self.signature,
            self.signer.facility_key,
            self.signer.node_cert,
            self.signer.node_cert_signature,
        )
        lengths = struct.pack(f"<{len(parts)}Q", *map(len, parts))
        return sha256(b"emix/document/v1\0", lengths, *parts)

    def to_wire(self) -> pb.Document:
        """Return the protobuf form."""
        return pb.Document(
            kind=self.kind,
            body=self.body,
            signature=self.signature,
            signer=self.signer.to_wire(),
        )

    @classmethod
    def from_wire(cls, wire: pb.Document) -> Self:
        """Return the value of a protobuf form; nothing is verified yet.

        Raises:
            DocumentError: its wrapper is longer than any of ours.
        """
        signer = wire.signer
        parts = (wire.kind, wire.signature, signer.facility_key, signer.node_cert.body)
        if any(len(part) > _MAX_PART_BYTES for part in (*parts, signer.node_cert.signature)):
            raise DocumentError("the document's wrapper is malformed")
        return cls(wire.kind, wire.body, wire.signature, Signer.from_wire(wire.signer))

    def encode(self) -> bytes:
        """Return the bytes to keep or to send."""
        return self.to_wire().SerializeToString()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the document in `data`; nothing is verified yet.

        Raises:
            DocumentError: `data` is no document.
        """
        return cls.from_wire(parse_body(pb.Document, data, "signed document"))


@contextmanager
def signed_as(error: type[DocumentError]) -> Iterator[None]:
    """Raise a bad signature as the error of the document that it is on."""
    try:
        yield
    except BadSignature as exc:
        raise error(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class DocumentSigner:
    """Signs documents for this node."""

    node_key: SigningKey
    signer: Signer

    @property
    def facility_id(self) -> FacilityId:
        """The facility that this node speaks for."""
        return self.signer.facility_id

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return node_id(self.node_key.public)

    def sign(self, kind: str, body: bytes) -> Document:
        """Return `body` as a signed document of type `kind`."""
        return Document(kind, body, self.node_key.sign(kind, body), self.signer)


def certify_node(
    facility_key: SigningKey, node_key: SigningKey, now: float, *, generation: int = 1
) -> Signer:
    """Return the facility's certificate for a node key: needs the key from the recovery kit."""
    claim = claim_node(node_key, facility_key.public)
    return certify_claim(facility_key, node_key.public, claim, now, generation=generation)


def claim_node(node_key: SigningKey, facility_key: bytes) -> bytes:
    """Return a node key's signed claim that it speaks for a facility."""
    return node_key.sign(_CLAIM, facility_key)


def certify_claim(
    facility_key: SigningKey, node_key: bytes, claim: bytes, now: float, *, generation: int
) -> Signer:
    """Return the facility's certificate for a node key that is elsewhere, by its claim.

    Raises:
        BadSignature: the claim is not the node key's, or for another facility.
        DocumentError: the generation is to come.
    """
    verify(node_key, _CLAIM, facility_key.public, claim)
    if generation > now + MAX_CLOCK_SKEW_SECONDS:
        raise DocumentError("the node key was made in the future; set this machine's clock")
    body = pb.NodeCert(
        facility_key=facility_key.public,
        node_key=node_key,
        issued_seconds=int(now),
        expires_seconds=int(now) + NODE_CERT_DAYS * 86400,
        generation=generation,
        node_signature=claim,
    ).SerializeToString()
    return Signer(facility_key.public, body, facility_key.sign("node-cert", body))
