"""Opening a chunk: whatever the parsers say, what is handed out is what the manifest says."""

from collections.abc import Callable, Sequence

import pytest

from node.chunks.format import Piece, seal_chunk
from node.crypto.digests import digest
from node.crypto.keys import DataKey
from node.domain.encoded import EncodedChunk
from node.domain.pixels import Pixels
from node.errors import ChunkDamaged, StoreError
from node.store.opening import Expander, NoExpander, check_chunk, open_chunk
from tests.support.examining import LocalExpander

KEY = DataKey(b"\6" * 32)
PARTS = [b"one" * 200, b"two" * 300]
LENGTHS = [len(part) for part in PARTS]
ENTRY, SEALED = seal_chunk(
    KEY.sealing_keys(), KEY.package_id, 3, [Piece(part, digest(part)) for part in PARTS]
)


def opened(
    expander: Expander, how: Callable[..., bytes | None] = open_chunk, sealed: bytes = SEALED
) -> bytes | None:
    return how(expander, KEY.sealing_keys(), KEY.package_id, ENTRY, LENGTHS, sealed)


class LyingExpander(LocalExpander):
    """A parser that was taken over."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def expand(self, chunk: EncodedChunk) -> bytes:
        return self._said

    def digest_pieces(self, chunk: EncodedChunk, pieces: Sequence[int]) -> Sequence[bytes]:
        return [digest(self._said)] * len(pieces)

    def find_pixels(self, beginning: bytes, size_bytes: int) -> Pixels | None:
        return Pixels(7, 2**40)


def test_chunk_is_opened_and_checked() -> None:
    assert opened(LocalExpander()) == b"".join(PARTS)
    opened(LocalExpander(), check_chunk)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"two" * 300 + b"one" * 200,
        b"one" * 200 + b"two" * 299 + b"owt",
        b"one" * 200 + b"two" * 300 + b"more",
        b"one" * 200 + b"two" * 299,
    ],
)
def test_other_plaintext_is_never_handed_out(said: bytes) -> None:
    for how in (open_chunk, check_chunk):
        with pytest.raises(ChunkDamaged):
            opened(LyingExpander(said), how)


def test_what_is_no_such_chunk_does_not_reach_the_parsers() -> None:
    for how in (open_chunk, check_chunk):
        with pytest.raises(ChunkDamaged):
            opened(NoExpander(), how, SEALED[:-1])


def test_store_without_parsers_says_so() -> None:
    for how in (open_chunk, check_chunk):
        with pytest.raises(StoreError, match="no parsers run"):
            opened(NoExpander(), how)
    with pytest.raises(StoreError, match="no parsers run"):
        NoExpander().find_pixels(b"", 1)
