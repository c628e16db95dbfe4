"""The sealed chunk: header, nonce, ciphertext.

```
4  magic "emxc"
1  version 1
1  suite      how it is sealed (node.crypto.sealing.Suite)
1  codec      how the plaintext was encoded (node.codec.kinds.Codec)
1  zero
n  nonce, ciphertext and tag of the suite
```

Associated data are the header, the package id, the chunk's number and the plaintext length.
The chunk id is the BLAKE3 digest of all of it, so it is not in there.

Nothing here decodes: what is unsealed is expanded by the confined workers.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from node.codec.encoding import encode
from node.codec.kinds import Codec
from node.crypto.digests import digest
from node.crypto.sealing import OpenFailed, SealingKeys, Suite, preferred_suite
from node.domain.encoded import EncodedChunk
from node.domain.ids import ChunkId, PackageId
from node.domain.manifest import MAX_CHUNK_BYTES, ChunkEntry
from node.domain.pixels import Pixels
from node.errors import ChunkDamaged, ChunkTooLarge

_HEADER = struct.Struct("<4sBBBx")
_MAGIC = b"emxc"
_VERSION = 1
_CONTEXT = struct.Struct("<QQ")
_KIND = b"emix/chunk/v1\0"


@dataclass(frozen=True, slots=True)
class Piece:
    """What a chunk holds of one instance or attachment.

    Attributes:
        content: Its bytes.
        digest: Their digest: that of the instance, if it is whole.
        pixels: Where pixels lie in them.
    """

    content: bytes | memoryview
    digest: bytes
    pixels: Pixels | None = None


def seal_chunk(
    keys: SealingKeys,
    package_id: PackageId,
    number: int,
    pieces: Sequence[Piece],
    suite: Suite | None = None,
    *,
    is_small: bool = False,
) -> tuple[ChunkEntry, bytes]:
    """Return a chunk's entry and its sealed bytes. Deterministic for equal input.

    Sealed with the suite that is fastest here, unless one is named; `is_small` has JPEG-LS used
    where it is smaller.

    Raises:
        ChunkTooLarge: more plaintext than `MAX_CHUNK_BYTES`.
    """
    size = sum(len(piece.content) for piece in pieces)
    if size > MAX_CHUNK_BYTES:
        raise ChunkTooLarge(f"a chunk holds at most {MAX_CHUNK_BYTES} bytes")
    codec, encoded = encode([(piece.content, piece.pixels) for piece in pieces], is_small=is_small)
    suite = suite or preferred_suite()
    header = _HEADER.pack(_MAGIC, _VERSION, suite, codec)
    ad = _associated_data(header, package_id, number, size)
    sealed = header + keys.seal(suite, ad, encoded)
    entry = ChunkEntry(
        number=number,
        chunk_id=ChunkId(digest(sealed)),
        plaintext_bytes=size,
        sealed_bytes=len(sealed),
        pieces_digest=digest_of_pieces([piece.digest for piece in pieces]),
    )
    return entry, sealed


def codec_of(sealed: bytes) -> Codec:
    """Return how a chunk that this node has sealed was encoded."""
    return Codec(_HEADER.unpack_from(sealed)[3])


def digest_of_pieces(digests: Sequence[bytes]) -> bytes:
    """Return the digest that stands for a chunk's plaintext: that of its pieces' digests."""
    return digest(b"".join(digests))


def unseal_chunk(
    keys: SealingKeys, package_id: PackageId, entry: ChunkEntry, sealed: bytes
) -> EncodedChunk:
    """Decrypt a chunk; what it expands to is not looked at.

    Raises:
        ChunkDamaged: these are not the bytes that were sealed, or not for this place.
    """
    check_sealed(entry, sealed)
    try:
        magic, version, suite_number, codec_number = _HEADER.unpack_from(sealed)
        suite, codec = Suite(suite_number), Codec(codec_number)
    except (struct.error, ValueError) as exc:
        raise ChunkDamaged("not a chunk") from exc
    if magic != _MAGIC or version != _VERSION:
        raise ChunkDamaged("the chunk has an unknown format")
    header = sealed[: _HEADER.size]
    ad = _associated_data(header, package_id, entry.number, entry.plaintext_bytes)
    try:
        encoded = keys.open(suite, ad, sealed[_HEADER.size :])
    except OpenFailed as exc:
        raise ChunkDamaged(f"chunk {entry.chunk_id.short()} cannot be decrypted") from exc
    return EncodedChunk(codec, encoded, entry.plaintext_bytes)


def check_pieces(entry: ChunkEntry, digests: Sequence[bytes]) -> None:
    """Check that a chunk's pieces have the digests that its manifest says.

    Raises:
        ChunkDamaged: they have not.
    """
    if digest_of_pieces(digests) != entry.pieces_digest:
        raise ChunkDamaged(f"chunk {entry.chunk_id.short()} does not match its manifest")


def check_sealed(entry: ChunkEntry, sealed: bytes) -> None:
    """Check that sealed bytes are the chunk that they are named as; needs no key.

    Raises:
        ChunkDamaged: another length, or another digest.
    """
    if len(sealed) != entry.sealed_bytes or digest(sealed) != entry.chunk_id.digest:
        raise ChunkDamaged(f"chunk {entry.chunk_id.short()} does not match its digest")


def _associated_data(
    header: bytes, package_id: PackageId, number: int, plaintext_bytes: int
) -> bytes:
    return _KIND + header + package_id.digest + _CONTEXT.pack(number, plaintext_bytes)
