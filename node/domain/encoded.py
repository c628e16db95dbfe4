"""Chunks that are decrypted and not expanded, and what confined workers find in them."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.domain.verdicts import Examined


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """What was in a sealed chunk.

    Attributes:
        codec: How it is encoded; a number of `node.codec.kinds.Codec`.
        encoded: The encoded bytes; no more than they are to expand to.
        plaintext_bytes: How many that are, as its manifest says.
    """

    codec: int
    encoded: bytes
    plaintext_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkFindings:
    """What was found in a chunk.

    Attributes:
        digests: Those of all its pieces.
        examined: The verdicts on those pieces that are whole files.
    """

    digests: Sequence[bytes]
    examined: Sequence[Examined]


@dataclass(frozen=True, slots=True)
class PieceFindings:
    """What was found in a piece of a file that spans chunks.

    Attributes:
        digests: Those of all pieces of the chunk.
        examined: The verdict so far, or that the walk over this file was lost.
        digest: That of the file up to the end of this piece; empty if the walk was lost.
    """

    digests: Sequence[bytes]
    examined: Examined
    digest: bytes = b""
