"""The node's side of writing a DICOMDIR: it starts the process that runs pydicom, and waits."""

import subprocess
import sys
from pathlib import Path

from node.errors import StoreError

_SECONDS = 3600


def write_dicomdir(folder: Path) -> None:
    """Give a folder of exported files a DICOMDIR. Blocks.

    Raises:
        StoreError: it could not be written; the files are as they were.
    """
    done = subprocess.run(
        [sys.executable, "-m", "node.dicom.file_set", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        raise StoreError("the files are exported, but a DICOMDIR could not be written for them")
