"""The node's side of writing a DICOMDIR: it starts the process that runs pydicom, and waits."""

from pathlib import Path

from node.errors import StoreError
from node.sandbox import children

_SECONDS = 3600


def write_dicomdir(folder: Path) -> None:
    """Give a folder of exported files a DICOMDIR. Blocks.

    Raises:
        StoreError: it could not be written; the files are as they were.
    """
    done = children.run("node.dicom.file_set", str(folder.absolute()), seconds=_SECONDS)
    if done.status != 0:
        raise StoreError("the files are exported, but a DICOMDIR could not be written for them")
