from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.chunks.format import Piece, check_pieces, seal_chunk, unseal_chunk
from node.crypto.digests import digest
from node.crypto.keys import DataKey
from node.crypto.sealing import Suite
from node.domain.ids import ChunkId
from node.domain.manifest import MAX_CHUNK_BYTES
from node.domain.pixels import Pixels
from node.errors import ChunkDamaged, ChunkTooLarge
from tests.support.examining import LocalExpander

KEY = DataKey(b"\5" * 32)
KEYS = KEY.sealing_keys()
contents = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=8), st.integers(1, 3000)),
)


def piece(content: bytes) -> Piece:
    return Piece(content, digest(content), Pixels(9, 10**6, 2, 1, 64))


@given(st.lists(contents, min_size=1, max_size=5), st.sampled_from(Suite), st.integers(0, 2**31))
def test_open_returns_what_was_sealed(parts: list[bytes], suite: Suite, number: int) -> None:
    pieces = [piece(part) for part in parts]
    entry, sealed = seal_chunk(KEYS, KEY.package_id, number, pieces, suite)
    chunk = unseal_chunk(KEYS, KEY.package_id, entry, sealed)
    assert LocalExpander().expand(chunk) == b"".join(parts)
    check_pieces(entry, LocalExpander().digest_pieces(chunk, [len(part) for part in parts]))
    assert seal_chunk(KEYS, KEY.package_id, number, pieces, suite) == (entry, sealed)


@given(contents, st.data())
def test_one_flipped_bit_never_opens(content: bytes, data: st.DataObject) -> None:
    """Even when the attacker names the chunk anew, as whoever holds a manifest's key cannot."""
    entry, sealed = seal_chunk(KEYS, KEY.package_id, 0, [piece(content)])
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    changed = bytearray(sealed)
    changed[place // 8] ^= 1 << place % 8
    with pytest.raises(ChunkDamaged, match="does not match its digest"):
        unseal_chunk(KEYS, KEY.package_id, entry, bytes(changed))
    renamed = replace(entry, chunk_id=ChunkId(digest(bytes(changed))))
    if place // 8 != 7:  # the header's spare byte is authenticated too, but reads as zero
        with pytest.raises(ChunkDamaged):
            unseal_chunk(KEYS, KEY.package_id, renamed, bytes(changed))


def test_chunk_in_another_place_or_package_never_opens() -> None:
    entry, sealed = seal_chunk(KEYS, KEY.package_id, 3, [piece(b"content" * 100)])
    for package, wrong in (
        (DataKey.new().package_id, entry),
        (KEY.package_id, replace(entry, number=4)),
        (KEY.package_id, replace(entry, plaintext_bytes=699)),
    ):
        with pytest.raises(ChunkDamaged):
            unseal_chunk(KEYS, package, wrong, sealed)


def test_pieces_must_be_those_of_the_manifest_in_their_order() -> None:
    one, two = piece(b"one" * 100), piece(b"two" * 100)
    entry, _ = seal_chunk(KEYS, KEY.package_id, 3, [one, two])
    check_pieces(entry, [one.digest, two.digest])
    for wrong in (
        [two.digest, one.digest],
        [one.digest],
        [],
        [digest(b"one" * 100 + b"two" * 100)],
    ):
        with pytest.raises(ChunkDamaged, match="does not match its manifest"):
            check_pieces(entry, wrong)


def test_too_much_plaintext_is_refused() -> None:
    with pytest.raises(ChunkTooLarge):
        seal_chunk(KEYS, KEY.package_id, 0, [piece(bytes(MAX_CHUNK_BYTES)), piece(b"1")])
