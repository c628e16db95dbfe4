"""The receiver's state machine, without I/O: frames go in, whole chunks and wants come out.

It wants chunks in the manifest's order, at most a window at once. It accepts frames only of wanted
chunks, in that order, and not a byte more than the manifest says.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from node.documents.messages import ChunkFrame, Want
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry, Manifest
from node.errors import ChunkDamaged, RemoteProtocolError
from node.exchange.transfer.sender_machine import WINDOW_BYTES

MOST_WANTED = 1000
"""How many chunks one message wants at most; the next message wants more."""


@dataclass(frozen=True, slots=True)
class WholeChunk:
    """A chunk whose bytes are all here; nothing about them is checked yet."""

    position: int
    entry: ChunkEntry
    sealed: bytes


class ReceiverMachine:
    """Receives missing chunks. Call `next_want` and `got_frame` until `is_complete`."""

    def __init__(
        self,
        manifest: Manifest,
        present: Collection[int],
        *,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        missing = (p for p in range(len(manifest.chunks)) if p not in present)
        self._chunks = manifest.chunks
        self._missing = deque(missing)
        self._wanted: deque[int] = deque()
        self._parts: list[bytes | memoryview] = []
        self._received_bytes = 0
        self._window_bytes = window_bytes
        self._open_bytes = 0  # wanted and not yet stored
        self._unstored: set[int] = set(self._missing)
        self.carried_bytes = 0

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has been stored."""
        return not self._unstored

    @property
    def is_receiving(self) -> bool:
        """Whether frames are still to come."""
        return bool(self._missing or self._wanted)

    @property
    def is_due(self) -> bool:
        """Whether something is wanted that has not come."""
        return bool(self._wanted)

    def next_want(self) -> Want | None:
        """Return what to want next; None while the window is full or nothing is missing."""
        ids: list[ChunkId] = []
        while self._missing and len(ids) < MOST_WANTED:
            entry = self._chunks[self._missing[0]]
            if self._open_bytes + entry.sealed_bytes > self._window_bytes:
                break
            position = self._missing.popleft()
            self._wanted.append(position)
            self._open_bytes += entry.sealed_bytes
            ids.append(entry.chunk_id)
        return Want(tuple(ids)) if ids else None

    def got_frame(self, frame: ChunkFrame) -> WholeChunk | None:
        """Take a frame; return the chunk that it completes, if it does.

        Raises:
            RemoteProtocolError: it is not of the chunk that must come now.
            ChunkDamaged: the chunk is longer than the manifest says.
        """
        if not self._wanted:
            raise RemoteProtocolError("the sender sent a chunk that was not wanted")
        position = self._wanted[0]
        entry = self._chunks[position]
        if (frame.chunk_id is None) != bool(self._parts) or not frame.data:
            raise RemoteProtocolError("a chunk's frames are out of order")
        if frame.chunk_id is not None and frame.chunk_id != entry.chunk_id:
            raise RemoteProtocolError("the sender sent another chunk than the wanted one")
        self._parts.append(frame.data)
        self._received_bytes += len(frame.data)
        self.carried_bytes += len(frame.data)
        if self._received_bytes > entry.sealed_bytes:
            raise ChunkDamaged(f"chunk {entry.chunk_id.short()} is longer than its manifest says")
        if self._received_bytes < entry.sealed_bytes:
            return None
        sealed = b"".join(self._parts)
        self._parts, self._received_bytes = [], 0
        self._wanted.popleft()
        return WholeChunk(position, entry, sealed)

    def lost(self, position: int) -> None:
        """Note that a stored chunk is lost or damaged: it is wanted again."""
        self._missing.append(position)
        self._unstored.add(position)

    def stored(self, position: int) -> None:
        """Note that a chunk was checked and stored: the window opens by its size."""
        self._unstored.discard(position)
        self._open_bytes -= self._chunks[position].sealed_bytes
