"""The node's side of writing a DICOMDIR: it starts the process that runs pydicom, and waits."""

import json
import os
import re
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.errors import StoreError
from node.sandbox import children

_SECONDS = 3600
_EXPORTED = re.compile(r"SE\d{6}/(IM|OV)\d{6}")
_SCRATCH, _UNLISTED = "FILESET", "unlisted"  # see `node.dicom.file_set`
_MAX_UNLISTED_BYTES = 16 * 2**20
_MAX_REASON = 100


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An exported file that the DICOMDIR does not list: its name, and why."""

    name: str
    reason: str


class NoDicomdir(StoreError):
    """No DICOMDIR was written; the files are as they were.

    Attributes:
        unlisted: All files, where that is because none can be listed; else nothing.
    """

    def __init__(self, why: str, unlisted: Sequence[Unlisted] = ()) -> None:
        super().__init__(why)
        self.unlisted = unlisted


def write_dicomdir(folder: Path) -> list[Unlisted]:
    """Give a folder of exported files a DICOMDIR. No file is moved or changed. Blocks.

    Returns:
        The files that it does not list: those of which no record can be made, and all versions of
        an instance but the latest.

    Raises:
        NoDicomdir: it could not be written.
    """
    try:
        done = children.run("node.dicom.file_set", str(folder.absolute()), seconds=_SECONDS)
        if done.status == 0:
            unlisted = _unlisted(folder / _SCRATCH / _UNLISTED)
            if os.path.lexists(folder / "DICOMDIR"):
                return unlisted
            raise NoDicomdir("none of the exported files can be listed in a DICOMDIR", unlisted)
        why = f"what writes it ended with status {done.status}"
    except (OSError, ValueError, RecursionError, children.TookTooLong) as exc:
        why = f"{type(exc).__name__} in what writes it"
    finally:
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    with suppress(OSError):
        (folder / "DICOMDIR").unlink()
    raise NoDicomdir(f"a DICOMDIR could not be written for the exported files: {why}")


def _unlisted(path: Path) -> list[Unlisted]:
    """Read what the builder says; it has read foreign files, so it is not believed much.

    Raises:
        OSError, ValueError: that is not what it should be.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as handle:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a file")
        found = json.loads(handle.read(_MAX_UNLISTED_BYTES))
    if not isinstance(found, dict):
        raise ValueError("not a table")
    return [
        Unlisted(name, reason[:_MAX_REASON])
        for name, reason in sorted(found.items())
        if _EXPORTED.fullmatch(name) and isinstance(reason, str) and reason.isprintable()
    ]
