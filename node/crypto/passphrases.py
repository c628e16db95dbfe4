"""A secret sealed under a passphrase, as JSON values: for key files that people carry.

Beside the sealed secret are the salt, the cost and a commitment to the derived key. The commitment
distinguishes a wrong passphrase from a damaged file.
"""

import base64
import binascii
import secrets
from typing import Any

from node.crypto import argon2
from node.crypto.digests import derive_key
from node.crypto.sealing import OpenFailed, SealingKeys, open_small, seal_small
from node.errors import KeysError

MIN_PASSPHRASE_BYTES = 12
_SALT_BYTES = 16


def check_passphrase(passphrase: bytes) -> None:
    """Check that a passphrase is long enough to be one; `KeysError` says what to do."""
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise KeysError(
            f"the passphrase is shorter than {MIN_PASSPHRASE_BYTES} characters;"
            " five or six random words make a good one"
        )


def lock(
    secret: bytes, kind: str, passphrase: bytes, cost: argon2.Cost = argon2.MODERATE
) -> dict[str, Any]:
    """Return a secret sealed under a passphrase. Blocks while it stretches.

    Args:
        secret: What is sealed.
        kind: What it is: sealed as one kind, it does not open as another.
        passphrase: Opens it.
        cost: How much work a guess takes.

    Raises:
        KeysError: the passphrase is too short.
    """
    check_passphrase(passphrase)
    salt = secrets.token_bytes(_SALT_BYTES)
    key = argon2.stretch(passphrase, salt, cost)
    return {
        "salt": _b64(salt),
        "ops": cost.ops,
        "memory_bytes": cost.memory_bytes,
        "commitment": _b64(_commitment(key)),
        "sealed": _b64(seal_small(SealingKeys(key, "slot"), kind, b"", secret)),
    }


def unlock(locked: Any, kind: str, passphrase: bytes) -> bytes:
    """Return the secret that `lock` sealed. Blocks while it stretches.

    Raises:
        KeysError: another passphrase, or a changed file.
    """
    try:
        cost = argon2.Cost(int(locked["ops"]), int(locked["memory_bytes"]))
        salt, commitment, sealed = (_unb64(locked[n]) for n in ("salt", "commitment", "sealed"))
    except (KeyError, TypeError, ValueError, binascii.Error) as exc:
        raise KeysError("the data protected by the passphrase is damaged") from exc
    key = argon2.stretch(passphrase, salt, cost)
    if commitment != _commitment(key):
        raise KeysError("the passphrase is wrong")
    try:
        return open_small(SealingKeys(key, "slot"), kind, b"", sealed)
    except OpenFailed as exc:
        raise KeysError("the data protected by the passphrase was altered") from exc


def _commitment(key: bytes) -> bytes:
    return derive_key("emix 2026-11 passphrase commitment v1", key)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
