"""The node's side of writing a DICOMDIR: it starts the process that runs pydicom, and waits."""

import re
import shutil
from pathlib import Path

import structlog

from node.errors import StoreError
from node.sandbox import children

log = structlog.get_logger()
_SECONDS = 3600
_EXPORTED = re.compile(r"SE\d{6}/IM\d{6}")
_SCRATCH = "FILESET"  # see `node.dicom.file_set`, whose pydicom is not for this process


def write_dicomdir(folder: Path) -> list[str]:
    """Give a folder of exported files a DICOMDIR. Blocks.

    Returns:
        The files that it does not list, which stay where they were: those that pydicom can make
        no record of, and all versions of an instance but the latest.

    Raises:
        StoreError: it could not be written; all files are in the folder.
    """
    try:
        done = children.run("node.dicom.file_set", str(folder.absolute()), seconds=_SECONDS)
        status = done.status
    except (OSError, children.TookTooLong):
        status = None
    finally:
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    if status != 0:
        log.warning("no DICOMDIR could be written", status=status)
        raise StoreError("a DICOMDIR could not be written for the exported files")
    names = (str(path.relative_to(folder)) for path in folder.glob("SE*/IM*"))
    return sorted(name for name in names if _EXPORTED.fullmatch(name))
