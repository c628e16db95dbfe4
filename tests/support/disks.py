"""Small disks, and full ones."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system")


@contextmanager
def mounted(folder: Path, size: str = "200m") -> Iterator[Path]:
    """Mount a small file system for the time of the block."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> None:
    """Take every block that is left."""
    with (disk / "others").open("ab", buffering=0) as handle:
        for size in (1 << 20, 4096, 1):
            try:
                while handle.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
