"""A package's data key: its commitment, its sealing keys, and how it is wrapped and sent.

The package id *is* the commitment to the data key, so a package can never have a second key: every
opening first compares the two.
"""

import secrets
import struct
from typing import Self

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from node.crypto.digests import derive_key, sha256
from node.crypto.sealing import OpenFailed, SealingKeys, open_small, seal_small
from node.domain.ids import FacilityId, PackageId, TransferId
from node.errors import BadDataKey

_BOX_KIND = b"emix/sealed-key/v1\0"
_WRAP_KIND = "emix/wrap/v1"


class DataKey:
    """The random key of one package: the unit that is shared, wrapped and shredded."""

    __slots__ = ("_key", "package_id")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise BadDataKey("a data key has 32 bytes")
        self._key = key
        self.package_id = PackageId(derive_key("emix 2026-11 package key commitment v1", key))

    @classmethod
    def new(cls) -> Self:
        """Return a fresh random key."""
        return cls(secrets.token_bytes(32))

    def __repr__(self) -> str:
        return f"<DataKey of package {self.package_id.short()}>"

    def sealing_keys(self) -> SealingKeys:
        """Return the keys that seal this package's chunks."""
        return SealingKeys(self._key, "chunk")

    def summary_keys(self) -> SealingKeys:
        """Return the keys that seal what a delivery says of this package."""
        return SealingKeys(self._key, "summary")

    def wrap(self, epoch_keys: SealingKeys, epoch: int, origin: FacilityId) -> bytes:
        """Return this key sealed under an epoch key of this node, for the database."""
        context = _wrap_context(epoch, origin, self.package_id)
        return seal_small(epoch_keys, _WRAP_KIND, context, self._key)

    def seal_to(self, receiver: bytes, transfer_id: TransferId) -> bytes:
        """Return this key sealed to a node's X25519 key, for one transfer only."""
        message = _BOX_KIND + transfer_id.value + self.package_id.digest + self._key
        return SealedBox(PublicKey(receiver)).encrypt(message)


def unwrap(
    epoch_keys: SealingKeys, epoch: int, origin: FacilityId, package_id: PackageId, wrapped: bytes
) -> DataKey:
    """Return the data key that `DataKey.wrap` wrapped.

    Raises:
        BadDataKey: it does not open, or is not the key that `package_id` commits to.
    """
    try:
        key = open_small(epoch_keys, _WRAP_KIND, _wrap_context(epoch, origin, package_id), wrapped)
    except OpenFailed as exc:
        raise BadDataKey(f"the key of package {package_id.short()} cannot be unwrapped") from exc
    return _committed(key, package_id)


def open_sealed_key(
    private: bytes, transfer_id: TransferId, package_id: PackageId, sealed: bytes
) -> DataKey:
    """Return the data key that a sender sealed to us with `DataKey.seal_to`.

    Raises:
        BadDataKey: it does not open, is for another transfer, or is not the key that
            `package_id` commits to.
    """
    try:
        message = SealedBox(PrivateKey(private)).decrypt(sealed)
    except (CryptoError, ValueError) as exc:
        raise BadDataKey("the sealed data key cannot be opened with this node's seal key") from exc
    head = _BOX_KIND + transfer_id.value + package_id.digest
    if len(message) != len(head) + 32 or not message.startswith(head):
        raise BadDataKey("the sealed data key is for another transfer or package")
    return _committed(message[len(head) :], package_id)


def _committed(key: bytes, package_id: PackageId) -> DataKey:
    data_key = DataKey(key)
    if data_key.package_id != package_id:
        raise BadDataKey("the data key is not the one that the package id commits to")
    return data_key


def _wrap_context(epoch: int, origin: FacilityId, package_id: PackageId) -> bytes:
    return struct.pack("<Q", epoch) + origin.digest + package_id.digest


class SealKey:
    """A node's X25519 key: others seal data keys to it."""

    def __init__(self, private: bytes, retired_seconds: int = 0) -> None:
        """Take a private key; `retired_seconds` says since when another is used, 0 for not yet."""
        self.private = private
        self.retired_seconds = retired_seconds
        self.public = bytes(PrivateKey(private).public_key)
        self.key_id = sha256(b"emix/seal-key-id/v1\0", self.public)[:8]

    @classmethod
    def new(cls) -> Self:
        """Return a fresh random key."""
        return cls(bytes(PrivateKey.generate()))

    def __repr__(self) -> str:
        return f"<SealKey {self.key_id.hex()}>"
