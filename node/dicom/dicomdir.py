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
from typing import BinaryIO

from node.errors import StoreError
from node.sandbox import children

_SECONDS = 3600
_EXPORTED = re.compile(r"SE\d{6}/(IM|OV)\d{6}")
_SCRATCH, _UNLISTED = "FILESET", "unlisted"  # see `node.dicom.file_set`
_MAX_UNLISTED_BYTES = 16 * 2**20
_MOST_BYTES = 1 << 30
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
        why = f"the process that writes it ended with status {done.status}"
    except (OSError, ValueError, RecursionError, children.TookTooLong) as exc:
        why = f"{type(exc).__name__} in the process that writes it"
    finally:
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    with suppress(OSError):
        (folder / "DICOMDIR").unlink()
    raise NoDicomdir(f"a DICOMDIR could not be written for the exported files: {why}")


def dicomdir_of_zip(archive: BinaryIO) -> tuple[bytes, list[Unlisted]]:
    """Return the DICOMDIR of a ZIP file of exported files. Blocks.

    Args:
        archive: The file, open for reading alone: a process has it that reads foreign headers.

    Returns:
        The DICOMDIR, and the files that it does not list, as of `write_dicomdir`.

    Raises:
        NoDicomdir: it could not be made.
    """
    try:
        with children.reading("node.dicom.file_set", given=archive) as output:
            said = children.all_of(output, most_bytes=_MOST_BYTES, seconds=_SECONDS)
        made, unlisted = _made(said)
    except (OSError, ValueError, RecursionError) as exc:
        why = f"{type(exc).__name__} in what makes it"
        raise NoDicomdir(f"a DICOMDIR could not be made for the exported files: {why}") from exc
    if not made:
        raise NoDicomdir("none of the exported files can be listed in a DICOMDIR", unlisted)
    return made, unlisted


def _made(said: bytes) -> tuple[bytes, list[Unlisted]]:
    """Take apart what the builder of a ZIP file's DICOMDIR writes.

    Raises:
        ValueError: that is not what it should be, or not all of it.
    """
    first, made = said.split(b"\n", 1)
    found = json.loads(first)
    if not isinstance(found, dict) or found.get("bytes") != len(made):
        raise ValueError("not all of it")
    return made, _believed(found.get("unlisted"))


def _unlisted(path: Path) -> list[Unlisted]:
    """Read what the builder says.

    Raises:
        OSError, ValueError: that is not what it should be.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as handle:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a file")
        return _believed(json.loads(handle.read(_MAX_UNLISTED_BYTES)))


def _believed(found: object) -> list[Unlisted]:
    """Return what the builder says; it has read foreign files, so it is not believed much.

    Raises:
        ValueError: that is not what it should be.
    """
    if not isinstance(found, dict):
        raise ValueError("not a table")
    return [
        Unlisted(name, reason[:_MAX_REASON])
        for name, reason in sorted(found.items())
        if _EXPORTED.fullmatch(name) and isinstance(reason, str) and reason.isprintable()
    ]
