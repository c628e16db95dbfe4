"""The process that reads a DICOMDIR that a person named: confined, like all parsers.

`python -m node.dicom.directory_worker BYTES` reads the file from standard input, which is already
open, and writes one JSON value: `{"is_directory": b, "names": [s, ...], "problem": s}`. `problem`
says why it cannot be read to its end; it is empty if it can.
"""

import json
import sys
from typing import BinaryIO

from node.sandbox.confine import confine_to_computing

MEMORY_LIMIT_BYTES = 1 << 30
_WINDOW_BYTES = 1 << 20


def main() -> None:
    """Say what the DICOMDIR on standard input names."""
    # pydicom would load it; a walk needs none of its code, memory and threads.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    from node.dicom.answering import limit_time, load_codecs

    load_codecs()
    size = int(sys.argv[1])
    confine_to_computing(MEMORY_LIMIT_BYTES)
    limit_time(size)
    sys.stdout.buffer.write(json.dumps(_read(sys.stdin.buffer, size), ensure_ascii=False).encode())
    sys.stdout.buffer.flush()


def _read(stream: BinaryIO, size: int) -> dict[str, object]:
    from node.dicom.examine import examine, verdict_on
    from node.dicom.stream import Refused
    from node.dicom.walker import Walker

    walker = Walker(size)
    window = stream.read(_WINDOW_BYTES)
    try:
        while True:
            following = stream.read(_WINDOW_BYTES)
            walker.feed(window, is_last=not following)
            if not following or not walker.is_directory:
                break
            window = following
        found = examine(walker)
    except Refused as exc:
        found = verdict_on(exc, walker)
    return {
        "is_directory": walker.is_directory,
        "names": list(found.references),
        "problem": found.reasons[0] if found.is_partial else "",
    }


if __name__ == "__main__":
    main()
