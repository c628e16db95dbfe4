"""The process that reads archives: confined, so that an attacker gains nothing by taking it over.

`python -m node.dicom.archive_worker KIND BYTES` reads the archive from standard input, which
is the open file, and writes, for each file in it, a JSON line `{"name": s, "size": n,
"problem": s}` (an absurd size is 0) and, if there is no problem, its bytes: pieces, each behind
its length in four bytes, big endian; a length of zero; and a line `{"broken": s}` with what went
wrong, if anything did. The last line is `{"end": s}`: what is wrong with all of it, or nothing.
"""

import contextlib
import json
import signal
import sys
import time
from typing import BinaryIO

from node.dicom.archive_kinds import MOST_SIZE, Kind
from node.dicom.archives import MAX_NAME, PIECE_BYTES, Budget, Member, Unreadable, find_members
from node.sandbox.confine import confine_to_computing

MEMORY_LIMIT_BYTES = 1 << 30
_BASE_SECONDS, _SECONDS_A_MIB, _MOST_SECONDS = 20.0, 1.0, 3600.0


def main() -> None:
    """Write what is in the archive on standard input."""
    kind, size = Kind(sys.argv[1]), int(sys.argv[2])
    out = sys.stdout.buffer
    # What the libraries load when they need it, before files can no longer be opened: the codecs
    # of names, the dates of disc images.
    for codec in ("cp437", "latin-1", "utf-8", "utf-16-be", "utf-16-le", "utf-16"):
        "".encode(codec)
    time.strptime("2026", "%Y")
    confine_to_computing(MEMORY_LIMIT_BYTES)
    signal.setitimer(signal.ITIMER_PROF, seconds_for(size))
    problem = ""
    budget = Budget(size)
    try:
        for member in find_members(sys.stdin.buffer, kind, budget):
            _write(out, member, budget)
            out.flush()  # the next may take long to find
    except Unreadable as exc:
        problem = str(exc)
    _say(out, {"end": problem})
    out.flush()


def seconds_for(size: int) -> float:
    """Return how long this may compute for an archive of some bytes; then the kernel ends it.

    Many times what an honest one takes (*measured*: 6 s a GiB that comes out), since machines
    differ; and an hour at most.
    """
    return min(_BASE_SECONDS + _SECONDS_A_MIB * size / 2**20, _MOST_SECONDS)


def _write(out: BinaryIO, member: Member, budget: Budget) -> None:
    said = member.size if 0 <= member.size <= MOST_SIZE else 0
    head = {"name": member.name[:MAX_NAME], "size": said, "problem": member.problem}
    _say(out, head)
    if member.problem or member.open is None:
        return
    broken, total = "", 0
    try:
        with contextlib.closing(member.open()) as stream:
            while piece := stream.read(PIECE_BYTES):
                budget.take(len(piece))
                total += len(piece)
                out.write(len(piece).to_bytes(4, "big"))
                out.write(piece)
        if member.size not in (0, total):
            broken = "damaged inside its archive: its size differs from the archive's entry"
    except Unreadable as exc:
        broken = str(exc)
    except Exception:  # of any kind: libraries that read foreign bytes
        broken = "damaged inside its archive"
    out.write(bytes(4))
    _say(out, {"broken": broken})


def _say(out: BinaryIO, value: dict[str, object]) -> None:
    out.write(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main()
