"""A file that is known by its heads is judged as a walk over it would judge it."""

import random
import struct
from pathlib import Path

import pytest

from node.dicom import skeletons as module
from node.dicom.examine import examine_bytes
from node.dicom.skeletons import Skeletons
from tests.cases.files import CASES
from tests.node.dicom.test_walker import IDENTITY, element, part10, uid
from tests.support.dicom_files import corpus_roots, make_instance

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SMALL = 200_000


def files() -> list[bytes]:
    return [
        path.read_bytes()
        for root in corpus_roots()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.stat().st_size < SMALL
    ]


def changed(chance: random.Random, data: bytes) -> bytes:
    """Return a file with a few other bytes, mostly in its head, and mostly of the same size."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        if not found:
            break
        at = chance.randrange(min(len(found), chance.choice((200, 1000, 4000, 10**6))))
        match chance.randrange(6):
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at] = chance.randrange(256)
            case 2:
                found[at : at + 2] = found[at + 1 : at + 2] + found[at : at + 1]
            case 3:
                found[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 8, 2**32 - 1)))
            case 4:
                found[at : at + 2] = chance.choice((b"SQ", b"UN", b"OW", b"UI", b"PN"))
            case _:
                other = chance.randrange(len(found))
                found[at : at + 8] = found[other : other + 8]
    return bytes(found[: len(data)])


def test_verdicts_are_those_of_a_walk_over_files_and_their_mutants() -> None:
    chance, kept = random.Random(1), Skeletons()
    originals = files()
    for data in originals:
        assert examine_bytes(data, kept) == examine_bytes(data)
    for _ in range(12_000):
        data = changed(chance, chance.choice(originals))
        assert examine_bytes(data, kept) == examine_bytes(data)
    assert kept.found > 3_000


@pytest.mark.slow
def test_verdicts_are_those_of_a_walk_over_very_many_mutants() -> None:
    chance, kept = random.Random(2), Skeletons()
    originals = [data for data in files() if len(data) < 20_000]
    for _ in range(150_000):
        data = changed(chance, chance.choice(originals))
        assert examine_bytes(data, kept) == examine_bytes(data)
    assert kept.found > 30_000


@pytest.mark.parametrize("case", [c for c in CASES if not c.is_large], ids=lambda case: case.name)
def test_odd_files_are_judged_alike_after_one_of_their_kind(case: object, tmp_path: Path) -> None:
    case.make(tmp_path)  # type: ignore[attr-defined]
    kept = Skeletons()
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        for _ in range(2):
            assert examine_bytes(data, kept) == examine_bytes(data)


def test_instances_of_a_series_are_walked_over_once() -> None:
    kept = Skeletons()
    for n in range(1, 9):
        data = make_instance(1, n)
        assert examine_bytes(data, kept) == examine_bytes(data)
    assert kept.found == 7


def test_values_that_decide_are_compared() -> None:
    """As long as each other, and of another meaning."""
    kept = Skeletons()
    sound = part10(IDENTITY, syntax="1.2.840.10008.1.2.1")
    assert examine_bytes(sound, kept) == examine_bytes(sound)
    for other in (
        sound.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
        part10(IDENTITY, syntax="1.2.840.10008.1.2.2"),
        sound[:140] + b"\xff\0\0\0" + sound[144:],  # the length of the file meta
        b"MZ" + sound[2:],  # what a file begins with is no part of the walk
        sound[:128] + b"dicm" + sound[132:],
    ):
        assert len(other) == len(sound)
        assert examine_bytes(other, kept) == examine_bytes(other) != examine_bytes(sound)


def test_directory_is_never_known_by_its_heads() -> None:
    kept = Skeletons()
    meta = element(2, 2, b"UI", uid("1.2.840.10008.1.3.10"))
    meta += element(2, 0x10, b"UI", uid("1.2.840.10008.1.2.1"))
    data = bytes(128) + b"DICM" + meta + IDENTITY
    for _ in range(3):
        assert examine_bytes(data, kept) == examine_bytes(data)
    assert kept.found == 0


def test_what_follows_the_pixels_is_compared_too() -> None:
    kept = Skeletons()
    pixels = element(0x7FE0, 0x10, b"OW", bytes(100_000))
    padding = element(0xFFFC, 0xFFFC, b"OB", bytes(20))
    sound = part10(IDENTITY + pixels + padding)
    assert examine_bytes(sound, kept) == examine_bytes(sound)
    assert examine_bytes(sound[:-1] + b"x", kept) == examine_bytes(sound)
    assert kept.found == 1
    for other in (sound[:-32] + b"\0\0" + sound[-30:], sound[:-24] + b"\x80\0" + sound[-22:]):
        assert examine_bytes(other, kept) == examine_bytes(other) != examine_bytes(sound)
    assert kept.found == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SIZES", 3)
    monkeypatch.setattr(module, "_MOST_OF_SIZE", 2)
    monkeypatch.setattr(module, "_FIRST_BYTES", 500)
    monkeypatch.setattr(module, "_MOST_BEHIND", 5)
    kept = Skeletons()
    for n in range(8):
        examine_bytes(part10(IDENTITY + element(0x30, 0x4000, b"LT", b"x" * (2 * n))), kept)
        examine_bytes(part10(IDENTITY + element(0x30, 0x1000 + 2 * n, b"LT", b"x" * 20)), kept)
        far = [element(0x30, 2 * i + 2, b"LT", b"x" * (400 + n)) for i in range(7)]
        examine_bytes(part10(IDENTITY + b"".join(far)), kept)
    assert len(kept._by_size) == 3
    assert sum(map(len, kept._by_size.values())) <= 6
