"""Damage on a node's disk, and studies of several chunks to do it to."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.support.dicom_files import encode, make_dataset
from tests.support.nodes import Node


def chunks_of(node: Node) -> set[Path]:
    """Return the files of all chunks that are there."""
    return set((node.home / "chunks").glob("??/*"))


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file; its size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def contents(folder: Path) -> Iterator[bytes]:
    """Yield what the files below a folder hold."""
    return (p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR")


def write_noise(folder: Path, study: int, megabytes: int) -> Path:
    """Write a study of files of a megabyte each that do not compress."""
    return _write(folder, study, megabytes, 724)


def write_large(folder: Path, study: int, megabytes: int) -> Path:
    """Write a study of one instance that spans chunks."""
    return _write(folder, study, 1, 724 * 2 * (megabytes // 8))


def _write(folder: Path, study: int, files: int, size: int) -> Path:
    folder.mkdir(parents=True)
    for n in range(files):
        ds = make_dataset(study, n + 1, size=size)
        ds.PixelData = random.Random(study * 1000 + n).randbytes(size * size * 2)
        (folder / f"{n:04d}.dcm").write_bytes(encode(ds))
    return folder
