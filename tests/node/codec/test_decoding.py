import base64
import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.codec import zstd
from node.codec.decoding import decode
from node.codec.encoding import encode
from node.codec.kinds import Codec
from node.domain.pixels import Pixels
from node.errors import ChunkDamaged
from tests.node.codec.material import pieces

SHUFFLED = json.loads((Path(__file__).parent / "data" / "shuffled.json").read_text())
SIZES = {2: [5000, 70_000], 4: [65_536]}


@pytest.mark.parametrize("kept", SHUFFLED, ids=[str(k["bytes"]) for k in SHUFFLED])
def test_chunks_of_earlier_versions_open(kept: dict[str, str]) -> None:
    size = int(kept["bytes"])
    plaintext = decode(Codec.SHUFFLED, base64.b64decode(kept["chunk"]), size)
    assert hashlib.sha256(plaintext).hexdigest() == kept["sha256"]


@given(st.sampled_from(Codec), st.binary(max_size=300), st.integers(0, 1000))
def test_junk_never_expands(codec: Codec, junk: bytes, size: int) -> None:
    if codec is Codec.STORED and len(junk) == size:
        return
    with pytest.raises(ChunkDamaged):
        decode(codec, junk, size)


def streams(codec: Codec, count: int) -> list[tuple[bytes, int]]:
    """Return encoded chunks of a codec, with what they expand to."""
    if codec is Codec.SHUFFLED:
        return [(base64.b64decode(k["chunk"]), int(k["bytes"])) for k in SHUFFLED]
    chance = random.Random(11)
    found: list[tuple[bytes, int]] = []
    while len(found) < count:
        given = pieces(chance, chance.choice((700, 3000, 20_000, 65_536)))
        made, encoded = encode(given, is_small=codec is Codec.SMALL)
        if made is codec:
            found.append((encoded, sum(len(content) for content, _ in given)))
    return found


@pytest.mark.parametrize("codec", [Codec.SHUFFLED, Codec.REGIONS, Codec.SMALL])
def test_changed_streams_are_errors_or_have_the_length_asked_for(codec: Codec) -> None:
    chance, originals = random.Random(5), streams(codec, 30)
    failed = 0
    for _ in range(1500):
        encoded, size = chance.choice(originals)
        changed = mutated(chance, encoded)
        try:
            assert len(decode(codec, changed, size)) == size
        except ChunkDamaged:
            failed += 1
    assert failed > 300


def mutated(chance: random.Random, encoded: bytes) -> bytes:
    """Return a stream with flipped bits, other bytes, numbers, cuts, or parts of itself."""
    changed = bytearray(encoded)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(min(len(changed), chance.choice((16, 64, 10**6)))) if changed else 0
        match chance.randrange(5):
            case 0 if changed:
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if changed:
                changed[at] = chance.choice((0, 1, 127, 128, 255))
            case 2:
                number = chance.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1, len(encoded)))
                changed[at : at + 4] = struct.pack("<I", number)
            case 3:
                del changed[at : at + chance.choice((1, 4, 1000))]
            case _:
                changed[at:at] = changed[: chance.choice((1, 4, 100))]
    return bytes(changed)


def test_frame_of_another_size_is_refused_before_it_expands() -> None:
    bomb = zstd.compress(bytes(50 * 2**20))
    with pytest.raises(ChunkDamaged, match="another length"):
        zstd.expand(bomb, 1000)
    with pytest.raises(ChunkDamaged, match="another length"):
        zstd.expand(zstd.compress(b"a" * 999), 1000)
    with pytest.raises(ChunkDamaged, match="another length"):
        zstd.expand(zstd.compress(b"a" * 1000) + b"more", 1000)
    with pytest.raises(ChunkDamaged, match="another length"):
        zstd.expand(zstd.compress(b"a" * 1000)[:-1], 1000)


def test_stated_size_must_be_that_of_the_manifest() -> None:
    codec, encoded = encode([(bytes(100_000), Pixels(0, 100_000, 2, 1, 512))])
    assert codec is Codec.REGIONS
    for size in (0, 1, 99_999, 100_001, 2**30):
        with pytest.raises(ChunkDamaged):
            decode(codec, encoded, size)
