"""Every real file that there is here goes through every codec, byte for byte."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from node.codec.decoding import decode
from node.codec.encoding import encode
from node.dicom.examine import examine_bytes
from node.domain.manifest import MAX_CHUNK_BYTES
from node.domain.pixels import Pixels
from tests.cases.files import CASES
from tests.support.dicom_files import corpus_roots

_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
Piece = tuple[bytes, Pixels | None]


def pieces_of(content: bytes) -> list[Piece]:
    """Return a file as chunks hold it: what is larger than one in pieces."""
    pixels = examine_bytes(content).pixels
    return [
        (content[at : at + MAX_CHUNK_BYTES], pixels and pixels.within(at, MAX_CHUNK_BYTES))
        for at in range(0, len(content), MAX_CHUNK_BYTES)
    ]


def check(pieces: list[Piece]) -> None:
    plaintext = b"".join(content for content, _ in pieces)
    for is_small in (False, True):
        codec, encoded = encode(pieces, is_small=is_small)
        assert bytes(decode(codec, encoded, len(plaintext))) == plaintext


def corpus() -> Iterator[Path]:
    for root in corpus_roots():
        yield from sorted(path for path in root.rglob("*") if path.is_file())


def test_every_real_file_comes_back() -> None:
    chunk: list[Piece] = []
    count = 0
    for path in corpus():
        for piece in pieces_of(path.read_bytes()):
            check([piece])
            if sum(len(content) for content, _ in chunk) + len(piece[0]) > MAX_CHUNK_BYTES:
                check(chunk)  # files of all kinds in one
                chunk = []
            chunk.append(piece)
        count += 1
    check(chunk)
    assert count > 250


@pytest.mark.parametrize("case", [c for c in CASES if not c.is_large], ids=lambda case: case.name)
def test_every_odd_file_comes_back(case: object, tmp_path: Path) -> None:
    case.make(tmp_path)  # type: ignore[attr-defined]
    for path in sorted(tmp_path.iterdir()):
        for piece in pieces_of(path.read_bytes()):
            check([piece])


def test_pixels_lie_where_pydicom_finds_them() -> None:
    native = compressed = 0
    for path in corpus():
        content = path.read_bytes()
        found = examine_bytes(content)
        if not found.is_instance:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path)
                value = dataset.get("PixelData")
            except (InvalidDicomError, ValueError, NotImplementedError):
                continue
        if not value or found.pixels is None:
            assert not value or found.pixels is not None, path
            continue
        pixels = found.pixels
        if pixels.is_compressed:
            compressed += 1
            assert dataset.file_meta.TransferSyntaxUID not in _UNCOMPRESSED, path
            continue
        native += 1
        assert content[pixels.offset : pixels.offset + pixels.length] == value, path
        if dataset.BitsAllocated >= 8 and dataset.PhotometricInterpretation != "YBR_FULL_422":
            beside = 1 if dataset.get("PlanarConfiguration") else dataset.SamplesPerPixel
            assert pixels.row_bytes == dataset.Columns * beside * dataset.BitsAllocated // 8, path
    assert native > 80
    assert compressed > 50
