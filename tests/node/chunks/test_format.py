from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.chunks.codec import Codec, decode, encode
from node.chunks.format import open_chunk, seal_chunk
from node.crypto.digests import digest
from node.crypto.keys import DataKey
from node.domain.ids import ChunkId
from node.domain.manifest import MAX_CHUNK_BYTES
from node.domain.verdicts import PixelLayout
from node.errors import ChunkDamaged, ChunkTooLarge

KEY = DataKey(b"\5" * 32)
KEYS = KEY.sealing_keys()
contents = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=8), st.integers(1, 3000)),
)


@given(contents, st.sampled_from(PixelLayout), st.integers(0, 2**31))
def test_open_returns_what_was_sealed(content: bytes, layout: PixelLayout, number: int) -> None:
    entry, sealed = seal_chunk(KEYS, KEY.package_id, number, content, layout)
    assert open_chunk(KEYS, KEY.package_id, entry, sealed) == content
    assert seal_chunk(KEYS, KEY.package_id, number, content, layout) == (entry, sealed)


@given(contents, st.data())
def test_one_flipped_bit_never_opens(content: bytes, data: st.DataObject) -> None:
    """Even when the attacker names the chunk anew, as whoever holds a manifest's key cannot."""
    entry, sealed = seal_chunk(KEYS, KEY.package_id, 0, content, PixelLayout.WORDS)
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    changed = bytearray(sealed)
    changed[place // 8] ^= 1 << place % 8
    with pytest.raises(ChunkDamaged, match="does not match its digest"):
        open_chunk(KEYS, KEY.package_id, entry, bytes(changed))
    renamed = replace(entry, chunk_id=ChunkId(digest(bytes(changed))))
    if place // 8 != 7:  # the header's spare byte is authenticated too, but reads as zero
        with pytest.raises(ChunkDamaged):
            open_chunk(KEYS, KEY.package_id, renamed, bytes(changed))


def test_chunk_in_another_place_or_package_never_opens() -> None:
    entry, sealed = seal_chunk(KEYS, KEY.package_id, 3, b"content" * 100, PixelLayout.PLAIN)
    for package, wrong in (
        (DataKey.new().package_id, entry),
        (KEY.package_id, replace(entry, number=4)),
        (KEY.package_id, replace(entry, plaintext_bytes=699)),
        (KEY.package_id, replace(entry, plaintext_digest=bytes(32))),
    ):
        with pytest.raises(ChunkDamaged):
            open_chunk(KEYS, package, wrong, sealed)


def test_too_much_plaintext_is_refused() -> None:
    with pytest.raises(ChunkTooLarge):
        seal_chunk(KEYS, KEY.package_id, 0, bytes(MAX_CHUNK_BYTES + 1), PixelLayout.PLAIN)


def test_random_bytes_are_stored_as_they_are() -> None:
    import random

    content = random.Random(1).randbytes(10_000)
    assert encode(content, PixelLayout.WORDS) == (Codec.STORED, content)


@given(st.binary(max_size=200), st.integers(1, 1000))
def test_junk_never_expands(junk: bytes, size: int) -> None:
    with pytest.raises(ChunkDamaged):
        decode(Codec.BLOSC2, junk, size)


def test_header_that_claims_a_gigabyte_is_refused_before_it_expands() -> None:
    codec, encoded = encode(bytes(100_000), PixelLayout.PLAIN)
    assert codec is Codec.BLOSC2
    bomb = bytearray(encoded)
    bomb[4:8] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(ChunkDamaged, match="invalid header"):
        decode(Codec.BLOSC2, bytes(bomb), 100_000)
    with pytest.raises(ChunkDamaged, match="invalid header"):
        decode(Codec.BLOSC2, encoded, 1 << 30)
