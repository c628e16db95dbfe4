"""The parser process's answers to requests; `node.dicom.worker` describes their form."""

import time
from dataclasses import fields
from typing import Any

from node.codec.decoding import decode
from node.codec.kinds import Codec
from node.crypto.digests import Hasher, digest
from node.dicom.examine import examine, examine_bytes, verdict_on
from node.dicom.limits import limit_time
from node.dicom.skeletons import Skeletons
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.pixels import Pixels
from node.domain.verdicts import Examined, Verdict
from node.errors import ChunkDamaged

TURN_SECONDS = 0.2
"""After so much CPU time the remaining files wait for another turn."""

_FIELDS = tuple(field.name for field in fields(Examined))
_PIXEL_FIELDS = tuple(field.name for field in fields(Pixels))
_NOT_LOOKED_AT = Examined(Verdict.NOT_DICOM)


class _Session:
    """The walk over one file that comes in windows, and its digest where that is wanted."""

    def __init__(self, size: int | None) -> None:
        self.walker = Walker(size)
        self.hasher = Hasher()
        self.refused: Examined | None = None

    def feed(self, window: memoryview | bytes, passed: int, *, is_last: bool) -> dict[str, Any]:
        """Walk over the next bytes; return the verdict so far, as the answer has it."""
        if self.refused is not None:
            return _plain(self.refused)
        try:
            self.walker.pass_over(passed)
            self.walker.feed(window, is_last=is_last)
        except Refused as exc:
            self.refused = verdict_on(exc, self.walker)
            return _plain(self.refused)
        found = _plain(examine(self.walker, is_whole=is_last))
        return {**found, "skippable": self.walker.skippable_bytes}


class Server:
    """Answers requests about what lies in the arena."""

    def __init__(self, arena: memoryview, output: memoryview) -> None:
        self._arena = arena
        self._output = output
        self._sessions: dict[int, _Session] = {}
        self._skeletons = Skeletons()

    def answer(self, request: dict[str, Any]) -> Any:
        """Return what is to be sent back."""
        for session in request.get("drop", ()):
            self._sessions.pop(session, None)
        if "chunk" in request:
            return self._chunk(request)
        if "files" in request:
            return self._files([self._arena[at : at + length] for at, length in request["files"]])
        offset, length = request["window"]
        limit_time(length)
        # A copy: the slab is used again before the walk has left this window.
        window = bytes(self._arena[offset : offset + length])
        return self._session(request).feed(window, request["passed"], is_last=request["is_last"])

    def _session(self, request: dict[str, Any]) -> _Session:
        number = request["session"]
        if request["is_first"]:
            self._sessions[number] = _Session(request["size"] or None)
        return self._sessions[number]

    def _chunk(self, request: dict[str, Any]) -> dict[str, Any]:
        offset, length, codec, size = request["chunk"]
        limit_time(size)
        try:
            plaintext = decode(Codec(codec), self._arena[offset : offset + length], size)
        except ChunkDamaged:
            return {"is_damaged": True}
        if "output" in request:
            self._output[:size] = plaintext
            return {}
        pieces = _cut(plaintext, request["pieces"])
        answer: dict[str, Any] = {"digests": [digest(piece).hex() for piece in pieces]}
        if "piece" in request:
            answer |= self._piece(request, pieces[request["piece"]])
        if "files" in request:
            answer["found"] = self._files([pieces[i] for i in request["files"]])
        return answer

    def _files(self, files: list[memoryview]) -> list[dict[str, Any]]:
        """Examine files for one turn, one at least."""
        found, begun = [], time.process_time()
        for file in files:
            limit_time(len(file))
            found.append(_plain(examine_bytes(file, self._skeletons)))
            if time.process_time() - begun > TURN_SECONDS:
                break
        return found

    def _piece(self, request: dict[str, Any], piece: memoryview) -> dict[str, Any]:
        """Take a piece of a chunk as the next window of a file."""
        session = self._session(request)
        session.hasher.update(piece)
        if request["chunk"][2] == Codec.STORED:
            piece = memoryview(bytes(piece))  # the slab is used again before the walk leaves it
        if not request["is_dicom"]:
            return {"examined": _plain(_NOT_LOOKED_AT), "digest": session.hasher.digest().hex()}
        found = session.feed(piece, 0, is_last=request["is_last"])
        return {"examined": found, "digest": session.hasher.digest().hex()}


def _plain(found: Examined) -> dict[str, Any]:
    """Return what was found as JSON has it; `asdict` would copy each part."""
    answer = {name: getattr(found, name) for name in _FIELDS}
    pixels = found.pixels
    if pixels is not None:
        answer["pixels"] = {name: getattr(pixels, name) for name in _PIXEL_FIELDS}
    return answer


def _cut(plaintext: memoryview, lengths: list[int]) -> list[memoryview]:
    pieces, start = [], 0
    for length in lengths:
        pieces.append(plaintext[start : start + length])
        start += length
    return pieces
