"""The process that reads a DICOMDIR that a person named: confined, like all parsers.

`python -m node.dicom.directory_worker BYTES` reads the file from standard input, which is already
open, and writes one JSON value: `{"is_directory": b, "names": [s, ...], "problem": s}`. `problem`
says why it cannot be read to its end; it is empty if it can.
"""

import json
import sys

from node.sandbox.confine import confine_to_computing

MEMORY_LIMIT_BYTES = 1 << 30


def main() -> None:
    """Say what the DICOMDIR on standard input names."""
    # pydicom would load it; a walk needs none of its code, memory and threads.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    from node.dicom.directory_walk import read_names
    from node.dicom.limits import limit_time, load_codecs

    load_codecs()
    size = int(sys.argv[1])
    confine_to_computing(MEMORY_LIMIT_BYTES)
    limit_time(size)
    found = read_names(sys.stdin.buffer, size)
    sys.stdout.buffer.write(json.dumps(found, ensure_ascii=False).encode())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
