"""A certificate made where the recovery kit is, for a node key that is elsewhere.

The node writes a request, somebody carries it to the kit, and carries the answer back. Neither
holds a secret.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Self

from node.crypto.signing import SigningKey
from node.documents.signed import DocumentSigner, Signer, certify_claim, claim_node
from node.errors import DocumentError

REQUEST_FORMAT = "emix-node-request/1"
ANSWER_FORMAT = "emix-node-certificate/1"


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """A node asks its facility to certify its key anew."""

    facility_key: bytes
    node_key: bytes
    claim: bytes
    generation: int

    @classmethod
    def of(cls, signer: DocumentSigner) -> Self:
        """Return the request of a node that has a certificate."""
        facility_key = signer.signer.facility_key
        return cls(
            facility_key,
            signer.node_key.public,
            claim_node(signer.node_key, facility_key),
            signer.signer.verified().generation,
        )

    def certify(self, facility_key: SigningKey, now: float) -> Signer:
        """Return the certificate that is asked for.

        Raises:
            DocumentError: it is another facility's request, or was altered.
        """
        if self.facility_key != facility_key.public:
            raise DocumentError("the request is of another facility than the recovery kit")
        return certify_claim(
            facility_key, self.node_key, self.claim, now, generation=self.generation
        )

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return _encode(
            REQUEST_FORMAT,
            facility_key=self.facility_key,
            node_key=self.node_key,
            claim=self.claim,
            generation=self.generation,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the request in a file's bytes; `DocumentError` if it is none."""
        try:
            value = json.loads(data)
            if value["format"] != REQUEST_FORMAT:
                raise DocumentError(f"not a request of format {REQUEST_FORMAT}")
            return cls(
                facility_key=_bytes(value["facility_key"]),
                node_key=_bytes(value["node_key"]),
                claim=_bytes(value["claim"]),
                generation=int(value["generation"]),
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise DocumentError("not a node's request for a certificate, or a damaged one") from exc


def encode_certificate(signer: Signer) -> bytes:
    """Return the answer to a request, as a file's bytes."""
    return _encode(
        ANSWER_FORMAT,
        facility_key=signer.facility_key,
        node_cert=signer.node_cert,
        node_cert_signature=signer.node_cert_signature,
    )


def decode_certificate(data: bytes) -> Signer:
    """Return the certificate in an answer, verified; `DocumentError` if it is none."""
    try:
        value = json.loads(data)
        if value["format"] != ANSWER_FORMAT:
            raise DocumentError(f"not a certificate of format {ANSWER_FORMAT}")
        names = ("facility_key", "node_cert", "node_cert_signature")
        signer = Signer(*(_bytes(value[name]) for name in names))
    except (ValueError, KeyError, TypeError) as exc:
        raise DocumentError("not a node's certificate, or a damaged one") from exc
    signer.verified()
    return signer


def _encode(kind: str, **parts: bytes | int) -> bytes:
    texts = {
        name: b64encode(part).decode("ascii") if isinstance(part, bytes) else part
        for name, part in parts.items()
    }
    return json.dumps({"format": kind, **texts}, indent=1).encode() + b"\n"


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)
