"""Authenticated encryption of content: two suites, nonces derived from what they seal.

The nonce of every sealing is a keyed digest of the associated data and of the exact bytes
given to the cipher. There is no nonce state, so a crash, a rolled-back disk or a cloned
machine cannot reuse a nonce for other content. Sealing the same bytes twice gives the same
result, which makes resuming simple. The price is that equal inputs under one key are
recognisable as equal; for chunks that concerns only one package.

AEGIS-256 needs a CPU with AES instructions to be fast; XChaCha20-Poly1305 serves the others.
Every sealed thing names its suite, so both open everywhere.
"""

import enum
import struct
from functools import cache
from pathlib import Path

import nacl.bindings as sodium
from nacl.exceptions import CryptoError

from node.crypto.digests import derive_key, keyed_digest
from node.errors import KeysError


class Suite(enum.IntEnum):
    """Which AEAD seals; the number is in every sealed header."""

    XCHACHA20_POLY1305 = 1
    AEGIS_256 = 2


class OpenFailed(KeysError):
    """The bytes were not sealed under this key with this associated data, or were changed."""


_NONCE_BYTES = {
    Suite.XCHACHA20_POLY1305: sodium.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    Suite.AEGIS_256: sodium.crypto_aead_aegis256_NPUBBYTES,
}
_TAG_BYTES = {
    Suite.XCHACHA20_POLY1305: sodium.crypto_aead_xchacha20poly1305_ietf_ABYTES,
    Suite.AEGIS_256: sodium.crypto_aead_aegis256_ABYTES,
}
_ENCRYPT = {
    Suite.XCHACHA20_POLY1305: sodium.crypto_aead_xchacha20poly1305_ietf_encrypt,
    Suite.AEGIS_256: sodium.crypto_aead_aegis256_encrypt,
}
_DECRYPT = {
    Suite.XCHACHA20_POLY1305: sodium.crypto_aead_xchacha20poly1305_ietf_decrypt,
    Suite.AEGIS_256: sodium.crypto_aead_aegis256_decrypt,
}


@cache
def preferred_suite() -> Suite:
    """Return the suite that this machine seals fastest with."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return Suite.XCHACHA20_POLY1305
    return Suite.AEGIS_256 if "aes" in words else Suite.XCHACHA20_POLY1305


def overhead(suite: Suite) -> int:
    """Return by how many bytes sealing makes its input longer."""
    return _NONCE_BYTES[suite] + _TAG_BYTES[suite]


class SealingKeys:
    """The keys that one secret gives for one purpose, per suite.

    Safe to use from several threads; the ciphers release the GIL.
    """

    def __init__(self, secret: bytes, purpose: str) -> None:
        if len(secret) != 32:
            raise ValueError("a sealing secret has 32 bytes")
        self._keys = {
            suite: (
                derive_key(f"emix 2026-11 {purpose} {suite.name} sealing key v1", secret),
                derive_key(f"emix 2026-11 {purpose} {suite.name} nonce key v1", secret),
            )
            for suite in Suite
        }

    def __repr__(self) -> str:
        return "<SealingKeys>"  # never the keys

    def seal(self, suite: Suite, associated_data: bytes, plaintext: bytes) -> bytes:
        """Return nonce and ciphertext with its tag. Deterministic for equal input."""
        sealing_key, nonce_key = self._keys[suite]
        length = struct.pack("<Q", len(associated_data))
        nonce = keyed_digest(nonce_key, length, associated_data, plaintext)[: _NONCE_BYTES[suite]]
        return nonce + _ENCRYPT[suite](plaintext, associated_data, nonce, sealing_key)

    def open(self, suite: Suite, associated_data: bytes, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            OpenFailed: the key or the associated data is wrong, or the bytes were changed; these
                cases cannot be distinguished.
        """
        if len(sealed) < overhead(suite):
            raise OpenFailed("sealed bytes are shorter than their tag")
        sealing_key, _ = self._keys[suite]
        size = _NONCE_BYTES[suite]
        try:
            return _DECRYPT[suite](sealed[size:], associated_data, sealed[:size], sealing_key)
        except (CryptoError, ValueError) as exc:
            raise OpenFailed("sealed bytes do not open") from exc


_HEADER = struct.Struct("<4sBB2x")
_MAGIC = b"emxs"
_VERSION = 1


def seal_small(keys: SealingKeys, kind: str, context: bytes, plaintext: bytes) -> bytes:
    """Seal a small thing (a wrapped key, an envelope, a keyring) with a header of its own.

    Args:
        keys: What seals it.
        kind: A constant that names the type and version, such as `emix/wrap/v1`.
        context: What else must match at opening: ids, numbers; of fixed length per kind.
        plaintext: The content.
    """
    suite = preferred_suite()
    header = _HEADER.pack(_MAGIC, _VERSION, suite)
    return header + keys.seal(suite, _small_ad(kind, header, context), plaintext)


def open_small(keys: SealingKeys, kind: str, context: bytes, sealed: bytes) -> bytes:
    """Open what `seal_small` sealed with the same kind and context.

    Raises:
        OpenFailed: see `SealingKeys.open`; also for another format or version.
    """
    try:
        magic, version, suite_number = _HEADER.unpack_from(sealed)
        suite = Suite(suite_number)
    except (struct.error, ValueError) as exc:
        raise OpenFailed("not a sealed object") from exc
    if magic != _MAGIC or version != _VERSION:
        raise OpenFailed("the sealed object has an unknown format")
    header = sealed[: _HEADER.size]
    return keys.open(suite, _small_ad(kind, header, context), sealed[_HEADER.size :])


def _small_ad(kind: str, header: bytes, context: bytes) -> bytes:
    return kind.encode("ascii") + b"\0" + header + context
