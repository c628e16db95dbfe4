"""The parser process's answers to requests; `node.dicom.worker` describes their form."""

import codecs
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydicom.charset import python_encoding

from node.dicom.examine import examine, examine_bytes, verdict_on
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.verdicts import Examined

TURN_SECONDS = 0.2
"""After so much CPU time the remaining files wait for another turn."""

BASE_SECONDS, SECONDS_A_MIB = 5.0, 5.0
"""What one file, or one window of it, may take: many times what the walk's own bounds leave
possible (*measured*: 1.5 s a MiB), since machines differ. It ends a parser that has gone astray,
also when the node has gone."""


def load_codecs() -> None:
    """Load every text codec that a file can ask for, before files can no longer be opened."""
    for name in set(python_encoding.values()):
        with suppress(LookupError):
            codecs.lookup(name)


def limit_time(size: int) -> None:
    """Let the kernel end this process if what comes next takes too much computing."""
    signal.setitimer(signal.ITIMER_PROF, BASE_SECONDS + SECONDS_A_MIB * size / 2**20)


class Server:
    """Answers requests about what lies in the arena."""

    def __init__(self, arena: memoryview) -> None:
        self._arena = arena
        self._walkers: dict[int, Walker | Examined] = {}  # a verdict once refused

    def answer(self, request: dict[str, Any]) -> Any:
        """Return what is to be sent back."""
        for session in request.get("drop", ()):
            self._walkers.pop(session, None)
        if "files" in request:
            return self._files(request["files"])
        return self._window(request)

    def _files(self, extents: list[list[int]]) -> list[dict[str, Any]]:
        """Examine files for one turn, one at least."""
        found, begun = [], time.process_time()
        for offset, length in extents:
            limit_time(length)
            found.append(asdict(examine_bytes(self._arena[offset : offset + length])))
            if time.process_time() - begun > TURN_SECONDS:
                break
        return found

    def _window(self, request: dict[str, Any]) -> Any:
        session = request["session"]
        if request["is_first"]:
            self._walkers[session] = Walker(request["size"] or None)
        walker = self._walkers[session]
        if isinstance(walker, Examined):
            return asdict(walker)
        offset, length = request["window"]
        limit_time(length)
        try:
            # A copy: the slab is used again before the walk has left this window.
            window = bytes(self._arena[offset : offset + length])
            walker.pass_over(request["passed"])
            walker.feed(window, is_last=request["is_last"])
        except Refused as exc:
            refused = self._walkers[session] = verdict_on(exc, walker)
            return asdict(refused)
        found = examine(walker, is_whole=request["is_last"])
        return {**asdict(found), "skippable": walker.skippable_bytes}
