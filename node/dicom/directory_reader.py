"""Reading a DICOMDIR through a confined process; see `node.dicom.directory_worker`.

What the process says is bounded here once more: whoever takes it over may write anything.
"""

import json
from typing import Any, BinaryIO

from node.dicom.archive_reader import Unreadable
from node.sandbox import children

_SECONDS = 60.0  # a scratched disc may be long in reading
_MOST_BYTES = 8 * 2**20
_MOST_NAMES, _LONGEST_NAME = 200_000, 256
_MAX_PROBLEM = 120


def names_in(handle: BinaryIO, size: int) -> list[str] | None:
    """Return the files that a DICOMDIR names, components joined by `/`; None if it is none. Blocks.

    Args:
        handle: The file; read from its beginning.
        size: Its bytes.

    Raises:
        Unreadable: it cannot be followed to its end.
    """
    handle.seek(0)
    try:
        with children.reading("node.dicom.directory_worker", str(size), given=handle) as output:
            found = children.all_of(output, most_bytes=_MOST_BYTES, seconds=_SECONDS)
        said = _said(found)
    except (OSError, ValueError) as exc:
        raise _failed() from exc
    if said.get("problem"):
        raise Unreadable(str(said["problem"])[:_MAX_PROBLEM])
    names = said.get("names")
    if not isinstance(names, list):
        raise _failed()
    if said.get("is_directory") is not True:
        return None
    return [str(name)[:_LONGEST_NAME] for name in names[:_MOST_NAMES]]


def _said(output: bytes) -> dict[str, Any]:
    try:
        said = json.loads(output)
    except (ValueError, RecursionError) as exc:
        raise _failed() from exc
    if not isinstance(said, dict):
        raise _failed()
    return said


def _failed() -> Unreadable:
    return Unreadable("the DICOMDIR cannot be read completely")
