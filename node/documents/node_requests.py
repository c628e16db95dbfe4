"""Renewing a node's certificate at the place of the recovery kit, which is kept elsewhere.

The node writes a request, a person carries it to the kit and carries the answer back. Neither file
is secret. A request can only renew a certificate that the kit issued before, because the request
could be exchanged in transit, or by a node that no longer belongs to the facility.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Self

from node.crypto.signing import SigningKey, verify
from node.documents.signed import DocumentSigner, NodeCert, Signer, certify_claim
from node.errors import DocumentError

REQUEST_FORMAT = "emix-node-request/1"
ANSWER_FORMAT = "emix-node-certificate/1"
_KIND = "node-request"
_NAMES = ("facility_key", "node_cert", "node_cert_signature")


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """A node asks its facility to certify its key anew.

    Attributes:
        signer: What the facility certified before.
        signature: By that node key, over that certificate.
    """

    signer: Signer
    signature: bytes

    @classmethod
    def of(cls, signer: DocumentSigner) -> Self:
        """Return the request of a node that has a certificate."""
        return cls(signer.signer, signer.node_key.sign(_KIND, signer.signer.node_cert))

    def verified(self) -> NodeCert:
        """Return the certificate that is to be renewed.

        Raises:
            BadSignature: a facility did not certify the node key that asks.
        """
        cert = self.signer.verified()
        verify(cert.node_key, _KIND, self.signer.node_cert, self.signature)
        return cert

    def certify(self, facility_key: SigningKey, now: float) -> Signer:
        """Return the same certificate, for another while: neither key nor generation changes.

        Raises:
            DocumentError: it is another facility's request, was altered, or a clock is wrong.
        """
        if self.signer.facility_key != facility_key.public:
            raise DocumentError("the request is of another facility than the recovery kit")
        cert = self.verified()
        return certify_claim(
            facility_key, cert.node_key, cert.claim, now, generation=cert.generation
        )

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return _encode(REQUEST_FORMAT, **_parts(self.signer), signature=self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the request in a file's bytes, not verified; `DocumentError` if it is none."""
        try:
            value = json.loads(data)
            if value["format"] != REQUEST_FORMAT:
                raise DocumentError(f"not a request of format {REQUEST_FORMAT}")
            return cls(_signer(value), _bytes(value["signature"]))
        except (ValueError, KeyError, TypeError) as exc:
            raise DocumentError("not a node's request for a certificate, or a damaged one") from exc


def encode_certificate(signer: Signer) -> bytes:
    """Return the answer to a request, as a file's bytes."""
    return _encode(ANSWER_FORMAT, **_parts(signer))


def decode_certificate(data: bytes) -> Signer:
    """Return the certificate in an answer, verified; `DocumentError` if it is none."""
    try:
        value = json.loads(data)
        if value["format"] != ANSWER_FORMAT:
            raise DocumentError(f"not a certificate of format {ANSWER_FORMAT}")
        signer = _signer(value)
    except (ValueError, KeyError, TypeError) as exc:
        raise DocumentError("not a node's certificate, or a damaged one") from exc
    signer.verified()
    return signer


def _parts(signer: Signer) -> dict[str, bytes]:
    return {name: getattr(signer, name) for name in _NAMES}


def _signer(value: dict[str, str]) -> Signer:
    return Signer(*(_bytes(value[name]) for name in _NAMES))


def _encode(kind: str, **parts: bytes) -> bytes:
    texts = {name: b64encode(part).decode("ascii") for name, part in parts.items()}
    return json.dumps({"format": kind, **texts}, indent=1).encode() + b"\n"


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)
