"""Our own ids: 32-byte digests as frozen values, each with one text form.

A `FacilityId` is what people compare by telephone, so it carries check characters; all
others are lower-case base32 without padding. Text forms are parsed strictly: a wrong length
or character is refused with `ValueError`, never guessed at.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

DIGEST_BYTES = 32
_CHECK_BYTES = 3
_GROUP = 7
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DIGITS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
# What people type for a character that the alphabet lacks.
_TYPED = str.maketrans({"0": "O", "1": "I", "8": "B", "-": None, " ": None, "\n": None})


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=")


def _unbase32(text: str) -> bytes:
    """Return the bytes that a text spells, in capitals and without padding.

    A store is listed by such names, and Python's own decoder takes several times as long.
    """
    if not text or text.strip(_ALPHABET):
        raise ValueError("not base32")
    size, stray = divmod(5 * len(text), 8)
    number = int(text.translate(_DIGITS), 32)
    if stray > 4 or number & ((1 << stray) - 1):  # they would give one id two spellings
        raise ValueError("not canonical base32")
    return (number >> stray).to_bytes(size)


@dataclass(frozen=True, slots=True, order=True)
class _Id:
    """32 bytes that name one thing."""

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != DIGEST_BYTES:
            raise ValueError(f"{type(self).__name__} needs {DIGEST_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that `text` spells.

        Raises:
            ValueError: `text` is not a whole id of this kind.
        """
        try:
            return cls(_unbase32(text.upper()))
        except ValueError:
            raise ValueError(f"not a {cls.__name__}: {text[:80]!r}") from None

    def __str__(self) -> str:
        return _base32(self.digest).lower()

    def short(self) -> str:
        """Return the first eight characters, for logs and tables."""
        return str(self)[:8]


LEAST_CHARACTERS = 16
"""The shortest beginning that names a Facility ID: 80 bits, too many to find a matching key. With
four characters, a million tries give a key whose ID begins with a name that a person types."""


class NodeId(_Id):
    """One running node: the digest of its node key."""


class NetworkId(_Id):
    """A regional network: the digest of its key."""


class InvitationId(_Id):
    """An invitation into a network: the digest of what was signed."""


class PackageId(_Id):
    """A package: the commitment to its data key."""


class ChunkId(_Id):
    """A chunk: the BLAKE3 digest of its sealed bytes."""


class FacilityId(_Id):
    """An organisation: the digest of its identity key, with check characters in its text."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that a person typed: case, hyphens and spaces do not matter.

        Raises:
            ValueError: wrong length, or the check characters show a typing error.
        """
        try:
            data = _unbase32(text.strip().upper().translate(_TYPED))
        except ValueError:
            raise ValueError(
                "not a whole Facility ID: that has 56 characters, A-Z and 2-7, in 8 groups"
            ) from None
        if len(data) != DIGEST_BYTES + _CHECK_BYTES:
            raise ValueError("not a whole Facility ID: that has 56 characters in 8 groups of 7")
        if data[DIGEST_BYTES:] != _check(data[:DIGEST_BYTES]):
            raise ValueError("the Facility ID has a typing error; check it")
        return cls(data[:DIGEST_BYTES])

    def __str__(self) -> str:
        return _written(self.digest)

    def short(self) -> str:
        """Return the first group, for logs and tables."""
        return str(self)[:_GROUP]


@dataclass(frozen=True, slots=True, order=True)
class TransferId:
    """One delivery's carrying: 16 random bytes, made by the sender."""

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != 16:
            raise ValueError("TransferId needs 16 bytes")

    @classmethod
    def new(cls) -> Self:
        """Return an id that nobody has used."""
        return cls(secrets.token_bytes(16))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that `text` spells; `ValueError` if it is not a whole one."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError(f"not a transfer id: {text[:80]!r}") from None

    def __str__(self) -> str:
        return self.value.hex()

    def short(self) -> str:
        """Return the first eight characters, for logs and tables."""
        return self.value.hex()[:8]


@lru_cache(4096)  # each call of a peer asks
def _written(digest: bytes) -> str:
    text = _base32(digest + _check(digest))
    return "-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))


def _check(digest: bytes) -> bytes:
    return hashlib.sha256(b"emix/facility-id-check/v1\0" + digest).digest()[:_CHECK_BYTES]
