"""The process that parses: fresh, confined, and worth nothing to whoever takes it over.

`python -m node.dicom.worker ARENA_FD ARENA_BYTES` maps the arena that the node shares with it
and answers one JSON line for each JSON line it reads:

- `{"files": [[offset, length], ...]}`: whole files lying in the arena.
- `{"window": [offset, length], "passed": m, "session": s, "is_first": b, "is_last": b, "size":
  n}`: the next bytes of one file that is larger than a slab, after `m` bytes that were left out;
  the answer is what is known so far and how many bytes may be left out now, a refusal is final.
  Walks of several files go on side by side; `"drop": [s, ...]` in any request ends some.

It reads nothing else and writes nothing else. If it dies or hangs, the node holds the files
that it was given and starts another.
"""

import codecs
import ctypes
import json
import mmap
import os
import resource
import sys
import warnings
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydicom.charset import python_encoding

from node.dicom.examine import examine, examine_bytes, refusal
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.verdicts import Examined

MEMORY_LIMIT_BYTES = 1 << 30
_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_NOBODY = 65534


def load_codecs() -> None:
    """Load every text codec that a file can ask for, before files can no longer be opened."""
    for name in set(python_encoding.values()):
        with suppress(LookupError):
            codecs.lookup(name)


def confine() -> list[str]:
    """Give up what parsing does not need; return what could not be given up here."""
    missing = []
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    if libc.unshare(_CLONE_NEWNET) != 0:
        missing.append("network")
    try:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    except PermissionError:
        missing.append("uid")
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return missing


class _Server:
    def __init__(self, arena: memoryview) -> None:
        self._arena = arena
        self._walkers: dict[int, Walker | Examined] = {}  # a verdict once refused

    def answer(self, request: dict[str, Any]) -> Any:
        for session in request.get("drop", ()):
            self._walkers.pop(session, None)
        if "files" in request:
            return [
                asdict(examine_bytes(self._arena[offset : offset + length]))
                for offset, length in request["files"]
            ]
        return self._window(request)

    def _window(self, request: dict[str, Any]) -> Any:
        session = request["session"]
        if request["is_first"]:
            self._walkers[session] = Walker(request["size"] or None)
        walker = self._walkers[session]
        if isinstance(walker, Examined):
            return asdict(walker)
        offset, length = request["window"]
        try:
            # A copy: the slab is used again before the walk has left this window.
            window = bytes(self._arena[offset : offset + length])
            walker.pass_over(request["passed"])
            walker.feed(window, is_last=request["is_last"])
        except Refused as exc:
            refused = self._walkers[session] = refusal(str(exc))
            return asdict(refused)
        found = examine(walker, is_whole=request["is_last"])
        return {**asdict(found), "skippable": walker.skippable_bytes}


def main() -> None:
    """Serve until standard input closes."""
    warnings.simplefilter("ignore")
    fd, size = int(sys.argv[1]), int(sys.argv[2])
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as arena:
        os.close(fd)
        load_codecs()
        missing = confine()
        server = _Server(memoryview(arena))
        out = sys.stdout.buffer
        out.write(json.dumps({"unconfined": missing}).encode() + b"\n")
        out.flush()
        for line in sys.stdin.buffer:
            out.write(json.dumps(server.answer(json.loads(line))).encode() + b"\n")
            out.flush()


if __name__ == "__main__":
    main()
