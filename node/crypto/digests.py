"""BLAKE3 and SHA-256, with the few forms that we use."""

import hashlib

import blake3 as _blake3

Buffer = bytes | bytearray | memoryview
"""What can be digested without copying it."""


def digest(data: Buffer) -> bytes:
    """Return the BLAKE3 digest of `data`, 32 bytes. Releases the GIL for large input."""
    return _blake3.blake3(data).digest()


def keyed_digest(key: bytes, *parts: Buffer) -> bytes:
    """Return the keyed BLAKE3 digest of the concatenated parts.

    Callers make the concatenation unambiguous: fixed lengths first, or length prefixes.
    """
    hasher = _blake3.blake3(key=key)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def derive_key(context: str, secret: bytes) -> bytes:
    """Return a 32-byte key for one purpose. `context` is a constant, never input."""
    return _blake3.blake3(secret, derive_key_context=context).digest()


def sha256(*parts: bytes) -> bytes:
    """Return the SHA-256 digest of the concatenated parts."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


class Hasher:
    """An incremental BLAKE3 digest, for instances that span chunks."""

    def __init__(self) -> None:
        self._hasher = _blake3.blake3()

    def update(self, data: Buffer) -> None:
        """Add bytes to the end."""
        self._hasher.update(data)

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""
        return self._hasher.digest()
