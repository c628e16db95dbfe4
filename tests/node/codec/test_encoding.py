import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.codec.decoding import decode
from node.codec.encoding import encode
from node.codec.kinds import Codec
from node.domain.pixels import Pixels
from tests.node.codec.material import LAYOUTS, Piece, content, pieces, pixels_of, sizes


def check(given: list[Piece]) -> list[tuple[Codec, bytes]]:
    """Check that pieces come back byte for byte, and are never longer than they were."""
    plaintext = b"".join(content for content, _ in given)
    found = [encode(given, is_small=is_small) for is_small in (False, True)]
    for codec, encoded in found:
        assert bytes(decode(codec, encoded, len(plaintext))) == plaintext
        assert len(encoded) <= len(plaintext)
    return found


@given(st.lists(st.tuples(st.binary(max_size=900), st.sampled_from(LAYOUTS), st.integers(0, 900))))
def test_any_bytes_come_back(given: list[tuple[bytes, tuple[int, int, int], int]]) -> None:
    check([(data, pixels_of(layout, start, 2**30)) for data, layout, start in given if data])


@given(st.randoms(use_true_random=False), st.integers(0, 70_000))
def test_bytes_of_every_kind_and_length_come_back(chance: random.Random, size: int) -> None:
    given = pieces(chance, size)
    assert check(given) == check(given)  # and always in the same form


@pytest.mark.slow
def test_every_length_to_70_000_comes_back() -> None:
    chance = random.Random(3)
    data = content(chance, 70_000)
    for size in range(70_001):
        layout = LAYOUTS[size % len(LAYOUTS)]
        check([(data[:size], pixels_of(layout, size // 7, size))])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lengths_around_every_bound_come_back(layout: tuple[int, int, int]) -> None:
    chance = random.Random(repr(layout))
    for size in sizes():
        check([(content(chance, size), pixels_of(layout, chance.choice((0, 1, 300)), size))])


def ct(rows: int = 512, columns: int = 512) -> bytes:
    """Return a slice with structure and noise, of 12 significant bits."""
    noise = np.random.default_rng(1).normal(0, 10, (rows, columns))
    y, x = np.mgrid[0:rows, 0:columns]
    plane = 1000 * np.hypot(y - rows / 2, x - columns / 2) / rows + noise
    image: bytes = np.rint(plane).astype("<i2").tobytes()
    return image


def test_rows_make_an_image_smaller() -> None:
    image = ct()
    known = encode([(image, Pixels(0, len(image), 2, 1, 1024))])[1]
    unknown_rows = encode([(image, Pixels(0, len(image), 2, 1, 0))])[1]
    unknown = encode([(image, None)])[1]
    assert len(known) < 0.93 * len(unknown_rows) < 0.93 * 0.93 * len(unknown)


def test_wrong_row_costs_nothing_but_size() -> None:
    image = ct()
    wrong = encode([(image, Pixels(0, len(image), 2, 1, 1000))])[1]
    unknown_rows = encode([(image, Pixels(0, len(image), 2, 1, 0))])[1]
    assert len(wrong) < 1.01 * len(unknown_rows)


def test_colours_apart_make_an_image_smaller() -> None:
    grey = np.frombuffer(ct(256, 256), "<i2") // 2
    noise = np.random.default_rng(2).integers(0, 2, (len(grey), 3))
    image = (grey[:, None] + noise).astype(np.uint8).tobytes()
    apart = encode([(image, Pixels(0, len(image), 1, 3, 768))])[1]
    beside = encode([(image, Pixels(0, len(image), 1, 1, 768))])[1]
    assert len(apart) < 0.8 * len(beside)


def test_jpeg_ls_makes_images_smaller_still() -> None:
    grey = np.frombuffer(ct(256, 256), "<i2") // 2
    noise = np.random.default_rng(2).integers(0, 2, (len(grey), 3))
    colour = (grey[:, None] + noise).astype(np.uint8).tobytes()
    for image, pixels in (
        (ct(), Pixels(0, 2**19, 2, 1, 1024)),
        (ct()[:-700], Pixels(0, 2**19, 2, 1, 1024)),  # the last row is cut short
        (colour, Pixels(0, len(colour), 1, 3, 768)),
    ):
        (_, normal), (codec, small) = check([(image, pixels)])
        assert codec is Codec.SMALL
        assert len(small) < 0.97 * len(normal)


def test_jpeg_ls_is_used_only_where_it_is_smaller() -> None:
    image = np.arange(512, dtype="<u2").repeat(512).tobytes()  # rows all alike
    normal, small = check([(image * 2, Pixels(0, 2**20, 2, 1, 1024))])
    assert small == normal


def test_headers_of_many_instances_are_compressed_together() -> None:
    chance = random.Random(5)
    headers = [b"%04d" % n + content(random.Random(7), 3000) for n in range(40)]
    given = [(h + chance.randbytes(2000), Pixels(3004, 2000, 2, 1, 100)) for h in headers]
    _, encoded = check([*given])[0]
    assert len(encoded) < 40 * 2000 + 3 * 3004


def test_compressed_pixels_are_kept_and_their_headers_compressed() -> None:
    given = [(b"header " * 500 + random.Random(1).randbytes(9000), Pixels(3500, 2**40))]
    codec, encoded = check([*given])[0]
    assert codec is Codec.REGIONS
    assert 9000 < len(encoded) < 9300


def test_noise_is_stored_as_it_is() -> None:
    data = random.Random(1).randbytes(10_000)
    assert encode([(data, Pixels(0, 10_000, 2, 1, 100))]) == (Codec.STORED, data)
    assert encode([(data[:100], None)]) == (Codec.STORED, data[:100])
    assert encode([]) == (Codec.STORED, b"")


def test_more_kinds_of_pixels_than_groups_share_one() -> None:
    data = content(random.Random(9), 600)
    (codec, _), _ = check([(data, Pixels(100, 400, 1, 1, 16 + n)) for n in range(300)])
    assert codec is Codec.REGIONS


def test_more_regions_than_a_chunk_may_name_become_one() -> None:
    (codec, _), _ = check([(b"a" * 40, Pixels(10, 20, 2, 1, 4))] * 40_000)
    assert codec is Codec.REGIONS
