r"""The keyring: one file that holds a node's keys, and the slots that unlock it.

```
passphrase slot: Argon2id -> KEK    host slot: a key file    recovery slot: sealed box
        \_______________ each wraps the root key, 32 random bytes _______________/
root key -> database key | keyring key (seals the rest of this file)
```

The file is JSON: slots in the clear, everything secret sealed. It is written by atomic
replacement (the caller does the I/O). Facility identity keys are not in it: they live in
the recovery kit, outside the home, and are needed only to certify a node.
"""

import base64
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from node.crypto import argon2
from node.crypto.certificates import TlsIdentity
from node.crypto.digests import derive_key
from node.crypto.keys import SealKey
from node.crypto.sealing import OpenFailed, SealingKeys, open_small, seal_small
from node.crypto.signing import SigningKey
from node.domain.files import wrong_file
from node.errors import KeysError

FORMAT = "emix-keyring/1"
KIT_FORMAT = "emix-recovery-kit/1"
_SLOT_KIND = "emix/slot/v1"
_BODY_KIND = "emix/keyring/v1"


class RootKey:
    """The key that every slot wraps; only keys derived from it are used."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """Return a fresh random key."""
        return cls(secrets.token_bytes(32))

    def __repr__(self) -> str:
        return "<RootKey>"

    def database_key(self) -> bytes:
        """Return the raw key of the metadata database."""
        return derive_key("emix 2026-11 database key v1", self._key)

    def storage_owner(self) -> bytes:
        """Return what this node's place in an object store is told by; it opens nothing."""
        return derive_key("emix 2026-11 chunk storage owner v1", self._key)

    def keyring_keys(self) -> SealingKeys:
        """Return the keys that seal the keyring's body."""
        return SealingKeys(self._key, "keyring")

    def wrapped_by(self, kek: bytes) -> bytes:
        """Return this key sealed under a slot's key."""
        return seal_small(SealingKeys(kek, "slot"), _SLOT_KIND, b"", self._key)

    @classmethod
    def unwrapped_by(cls, kek: bytes, wrapped: bytes) -> Self:
        """Return the key that `wrapped_by` sealed; `OpenFailed` under any other `kek`."""
        return cls(open_small(SealingKeys(kek, "slot"), _SLOT_KIND, b"", wrapped))

    def boxed_to(self, recovery_public: bytes) -> bytes:
        """Return this key sealed to the recovery kit's public key."""
        return SealedBox(PublicKey(recovery_public)).encrypt(self._key)


@dataclass(frozen=True)
class Secrets:
    """A node's keys, once unlocked.

    Attributes:
        node_key: Signs everything that this node says.
        seal_keys: Newest first; older ones still open what was sealed to them.
        tls: Newest first; during a rotation both last and next are valid.
        epochs: Keys that wrap data keys, by number; the highest is current.
    """

    node_key: SigningKey
    seal_keys: tuple[SealKey, ...]
    tls: tuple[TlsIdentity, ...]
    epochs: dict[int, bytes] = field(repr=False)

    @property
    def epoch(self) -> int:
        """The number of the current epoch."""
        return max(self.epochs)

    def epoch_keys(self, epoch: int) -> SealingKeys:
        """Return the keys of one epoch; `KeysError` if it has been destroyed."""
        if epoch not in self.epochs:
            raise KeysError(f"the key of epoch {epoch} has been destroyed")
        return SealingKeys(self.epochs[epoch], "epoch")


@dataclass(frozen=True)
class Keyring:
    """A keyring file in memory: slots as they stand, secrets still sealed.

    Attributes:
        slots: One dict a slot; `type` is passphrase, host or recovery.
        public: Facts that need no secrecy: the node's signed statements, base64 by name.
        sealed: The secrets under the root key.
    """

    slots: tuple[dict[str, Any], ...]
    public: dict[str, bytes]
    sealed: bytes

    def has_slot(self, kind: str) -> bool:
        """Return whether there is a slot of that type."""
        return any(slot.get("type") == kind for slot in self.slots)

    def encode(self) -> bytes:
        """Return the file's bytes."""
        value = {
            "format": FORMAT,
            "slots": list(self.slots),
            "public": {name: _b64(data) for name, data in self.public.items()},
            "sealed": _b64(self.sealed),
        }
        return json.dumps(value, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the keyring in a file's bytes; `KeysError` if it is none."""
        try:
            value = json.loads(data)
            if value["format"] != FORMAT:
                raise KeysError(
                    f"the keyring has format {value['format']!r}, not {FORMAT}: another version of"
                    " emix made it, perhaps a newer one; install that version"
                )
            public = {name: _unb64(text) for name, text in value["public"].items()}
            return cls(tuple(value["slots"]), public, _unb64(value["sealed"]))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise KeysError("the keyring file is damaged; restore it from a backup") from exc

    def open(self, root: RootKey) -> Secrets:
        """Return the secrets.

        Raises:
            KeysError: another root key, or a changed file.
        """
        try:
            value = json.loads(open_small(root.keyring_keys(), _BODY_KIND, b"", self.sealed))
        except OpenFailed as exc:
            raise KeysError("the keyring does not open: it is another node's, or altered") from exc
        return Secrets(
            node_key=SigningKey(_unb64(value["node_key"])),
            seal_keys=tuple(
                SealKey(_unb64(text), int(retired)) for text, retired in value["seal_keys"]
            ),
            tls=tuple(TlsIdentity(_unb64(key), _unb64(cert)) for key, cert in value["tls"]),
            epochs={int(n): _unb64(text) for n, text in value["epochs"].items()},
        )


def seal_secrets(root: RootKey, content: Secrets) -> bytes:
    """Return the secrets sealed under the root key, for `Keyring.sealed`."""
    value = {
        "node_key": _b64(content.node_key.seed),
        "seal_keys": [[_b64(key.private), key.retired_seconds] for key in content.seal_keys],
        "tls": [[_b64(tls.private_pem), _b64(tls.certificate_pem)] for tls in content.tls],
        "epochs": {str(n): _b64(key) for n, key in content.epochs.items()},
    }
    return seal_small(root.keyring_keys(), _BODY_KIND, b"", json.dumps(value).encode())


def passphrase_slot(root: RootKey, passphrase: bytes, cost: argon2.Cost) -> dict[str, Any]:
    """Return a slot that a passphrase opens. Blocks while it stretches."""
    salt = secrets.token_bytes(16)
    kek = argon2.stretch(passphrase, salt, cost)
    return {
        "type": "passphrase",
        "salt": _b64(salt),
        "ops": cost.ops,
        "memory_bytes": cost.memory_bytes,
        "commitment": _b64(_commitment(kek)),
        "wrapped": _b64(root.wrapped_by(kek)),
    }


def host_slot(root: RootKey, kek: bytes) -> dict[str, Any]:
    """Return a slot that a key file on this host opens."""
    return {
        "type": "host",
        "commitment": _b64(_commitment(kek)),
        "wrapped": _b64(root.wrapped_by(kek)),
    }


def recovery_slot(root: RootKey, recovery_public: bytes) -> dict[str, Any]:
    """Return a slot that the recovery kit opens."""
    return {
        "type": "recovery",
        "public": _b64(recovery_public),
        "box": _b64(root.boxed_to(recovery_public)),
    }


def unlock_with_passphrase(keyring: Keyring, passphrase: bytes) -> RootKey:
    """Return the root key that a passphrase slot gives; blocks while it stretches.

    Raises:
        KeysError: no such slot, a slot with absurd parameters, or a wrong passphrase.
    """
    for slot in _slots(keyring, "passphrase"):
        kek = argon2.stretch(
            passphrase,
            _unb64(slot["salt"]),
            argon2.Cost(int(slot["ops"]), int(slot["memory_bytes"])),
        )
        if _unb64(slot["commitment"]) == _commitment(kek):
            return RootKey.unwrapped_by(kek, _unb64(slot["wrapped"]))
    if not _slots(keyring, "passphrase"):
        raise KeysError("this home has no passphrase; use its host key or the recovery kit")
    raise KeysError(
        "the passphrase is wrong. If it is lost, set a new one with"
        " the recovery kit: emix passphrase --recovery-kit FILE"
    )


def unlock_with_host_key(keyring: Keyring, kek: bytes) -> RootKey:
    """Return the root key that a host slot gives; `KeysError` if none opens."""
    for slot in _slots(keyring, "host"):
        if _unb64(slot["commitment"]) == _commitment(kek):
            return RootKey.unwrapped_by(kek, _unb64(slot["wrapped"]))
    raise KeysError(
        "the host key is not this home's; set a passphrase with the recovery kit:"
        " emix passphrase --recovery-kit FILE"
    )


def unlock_with_kit(keyring: Keyring, kit: "RecoveryKit") -> RootKey:
    """Return the root key that the recovery kit gives; `KeysError` if none opens."""
    for slot in _slots(keyring, "recovery"):
        try:
            return RootKey(SealedBox(PrivateKey(kit.recovery_private)).decrypt(_unb64(slot["box"])))
        except CryptoError:
            continue
    raise KeysError(
        "this recovery kit does not open this home: it is another facility's, or of another home"
    )


def _slots(keyring: Keyring, kind: str) -> list[dict[str, Any]]:
    return [slot for slot in keyring.slots if slot.get("type") == kind]


def _commitment(kek: bytes) -> bytes:
    return derive_key("emix 2026-11 slot key commitment v1", kek)


@dataclass(frozen=True)
class RecoveryKit:
    """What must be kept offline: the facility's identity key and the recovery key."""

    facility_key: SigningKey
    recovery_private: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a kit with fresh keys."""
        return cls(SigningKey.new(), bytes(PrivateKey.generate()))

    @property
    def recovery_public(self) -> bytes:
        """What recovery slots are sealed to."""
        return bytes(PrivateKey(self.recovery_private).public_key)

    def encode(self, facility: str) -> bytes:
        """Return the kit's file: JSON with a word of advice."""
        value = {
            "format": KIT_FORMAT,
            "keep": "Offline, apart from the node. Whoever has this file can act as the facility.",
            "facility": facility,
            "facility_key": _b64(self.facility_key.seed),
            "recovery_key": _b64(self.recovery_private),
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the kit in a file's bytes; `KeysError` if it is none."""
        kit: Self | None = None
        with suppress(ValueError, KeyError, TypeError):
            value = json.loads(data)
            if value["format"] == KIT_FORMAT:
                keys = _unb64(value["facility_key"]), _unb64(value["recovery_key"])
                kit = cls(SigningKey(keys[0]), keys[1])
        if kit is None:
            wanted = "a recovery kit, which `emix init --recovery-kit` wrote"
            raise KeysError(wrong_file("it", data, wanted))
        return kit


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
