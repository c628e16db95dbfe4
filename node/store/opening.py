"""Opening chunks: decrypted here, expanded where no key is. Blocking; call it on worker threads."""

from collections.abc import Sequence
from typing import Protocol

from node.chunks.format import check_pieces, unseal_chunk
from node.crypto.digests import digest
from node.crypto.sealing import SealingKeys
from node.domain.encoded import EncodedChunk
from node.domain.ids import PackageId
from node.domain.manifest import ChunkEntry
from node.domain.pixels import Pixels
from node.errors import ChunkDamaged, StoreError

_NO_PARSERS = "chunks cannot be opened here: no parsers run"


class Expander(Protocol):
    """Expands chunks in confined workers. Blocks; safe to use from several worker threads."""

    def expand(self, chunk: EncodedChunk) -> bytes:
        """Return a chunk's plaintext, which may be anything of any length.

        Raises:
            ChunkDamaged: it does not expand.
        """

    def digest_pieces(self, chunk: EncodedChunk, pieces: Sequence[int]) -> Sequence[bytes]:
        """Return the digests of a chunk's pieces, given their lengths.

        Raises:
            ChunkDamaged: it does not expand.
        """

    def find_pixels(self, beginning: bytes, size_bytes: int) -> Pixels | None:
        """Return where the pixels of an instance lie, by its first bytes, a chunk's at most."""


class NoExpander:
    """For a store in which no chunk is opened: keys are changed there, or rows only are read."""

    def expand(self, chunk: EncodedChunk) -> bytes:
        """See `Expander.expand`."""
        raise StoreError(_NO_PARSERS)

    def digest_pieces(self, chunk: EncodedChunk, pieces: Sequence[int]) -> Sequence[bytes]:
        """See `Expander.digest_pieces`."""
        raise StoreError(_NO_PARSERS)

    def find_pixels(self, beginning: bytes, size_bytes: int) -> Pixels | None:
        """See `Expander.find_pixels`."""
        raise StoreError(_NO_PARSERS)


def open_chunk(
    expander: Expander,
    keys: SealingKeys,
    package_id: PackageId,
    entry: ChunkEntry,
    pieces: Sequence[int],
    sealed: bytes,
) -> bytes:
    """Return a chunk's plaintext, checked against its entry in every way.

    Args:
        expander: Expands it.
        keys: The package's.
        package_id: The package.
        entry: The chunk, as the manifest names it.
        pieces: The lengths of what it holds, see `node.domain.manifest.piece_lengths`.
        sealed: Its bytes as stored.

    Raises:
        ChunkDamaged: these are not the bytes that were sealed, or not for this place.
    """
    plaintext = expander.expand(unseal_chunk(keys, package_id, entry, sealed))
    if len(plaintext) != entry.plaintext_bytes:
        raise ChunkDamaged(f"chunk {entry.chunk_id.short()} expands to another length")
    view, digests, start = memoryview(plaintext), [], 0
    for length in pieces:
        digests.append(digest(view[start : start + length]))
        start += length
    check_pieces(entry, digests)
    return plaintext


def check_chunk(
    expander: Expander,
    keys: SealingKeys,
    package_id: PackageId,
    entry: ChunkEntry,
    pieces: Sequence[int],
    sealed: bytes,
) -> None:
    """Check a chunk in every way, without having its plaintext; see `open_chunk`."""
    chunk = unseal_chunk(keys, package_id, entry, sealed)
    check_pieces(entry, expander.digest_pieces(chunk, pieces))
