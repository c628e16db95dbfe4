r"""Ed25519 signatures over typed bytes, and the ids that keys give.

Every signature is over `"emix/<type>/v1\0" || SHA-256(exact bytes)`: a signature over right
bytes of another type never verifies, and what is signed is the bytes that travel, never a
re-encoding of them. libsodium refuses small-order points and non-canonical signatures.
"""

import secrets
from typing import Self

import nacl.signing
from nacl.exceptions import CryptoError

from node.crypto.digests import sha256
from node.domain.ids import FacilityId, NetworkId, NodeId
from node.errors import BadSignature


class SigningKey:
    """An Ed25519 identity key: a facility's or a node's."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._key = nacl.signing.SigningKey(seed)
        self.public = bytes(self._key.verify_key)

    @classmethod
    def new(cls) -> Self:
        """Return a fresh random key."""
        return cls(secrets.token_bytes(32))

    def __repr__(self) -> str:
        return "<SigningKey>"

    def sign(self, kind: str, body: bytes) -> bytes:
        """Return the signature over `body` as a document of type `kind`."""
        return self._key.sign(_message(kind, body)).signature


def verify(public: bytes, kind: str, body: bytes, signature: bytes) -> None:
    """Check that `public`'s owner signed `body` as a document of type `kind`.

    Raises:
        BadSignature: it did not.
    """
    try:
        nacl.signing.VerifyKey(public).verify(_message(kind, body), signature)
    except (CryptoError, ValueError, TypeError) as exc:
        raise BadSignature(f"a signature does not verify ({kind})") from exc


def facility_id(facility_key: bytes) -> FacilityId:
    """Return the id of the facility whose public identity key this is."""
    return FacilityId(sha256(b"emix/facility/v1\0", facility_key))


def node_id(node_key: bytes) -> NodeId:
    """Return the id of the node whose public node key this is."""
    return NodeId(sha256(b"emix/node/v1\0", node_key))


def network_id(network_key: bytes) -> NetworkId:
    """Return the id of the network whose public key this is."""
    return NetworkId(sha256(b"emix/network/v1\0", network_key))


def _message(kind: str, body: bytes) -> bytes:
    return b"emix/" + kind.encode("ascii") + b"/v1\0" + sha256(body)
