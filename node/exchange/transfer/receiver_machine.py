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


class Missing:
    """What is missing of a package, of which each link wants a part.

    Attributes:
        carried_bytes: Bytes of chunks that have come, over whichever link.
    """

    def __init__(
        self,
        manifest: Manifest,
        present: Collection[int],
        *,
        window_bytes: int = WINDOW_BYTES,
        links: int = 1,
    ) -> None:
        """Prepare; so many `links` are expected."""
        self._expected_links = links
        self.chunks = manifest.chunks
        self.unwanted = deque(p for p in range(len(manifest.chunks)) if p not in present)
        self.unstored: set[int] = set(self.unwanted)
        self.open_bytes = 0  # wanted and not yet stored
        self.window_bytes = window_bytes
        self.links = 0
        self.carried_bytes = 0

    @property
    def share_bytes(self) -> int:
        """What one link wants at once at most, or one chunk."""
        return self.window_bytes // max(self.links, self._expected_links)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has been stored."""
        return not self.unstored

    def lost(self, position: int) -> None:
        """Note that a stored chunk is lost or damaged: it is wanted again."""
        self.unwanted.append(position)
        self.unstored.add(position)

    def give_back(self, position: int) -> None:
        """Note that a chunk that came is given up before it is stored: it is wanted again."""
        self.unwanted.appendleft(position)
        self.open_bytes -= self.chunks[position].sealed_bytes

    def stored(self, position: int) -> None:
        """Note that a chunk was checked and stored: the window opens by its size."""
        self.unstored.discard(position)
        self.open_bytes -= self.chunks[position].sealed_bytes


class ReceiverMachine:
    """Receives missing chunks over one link.

    Call `next_want` and `got_frame` until `missing.is_complete`, and `leave` at the end.

    Attributes:
        missing: What is missing, which the links of one transfer share.
    """

    def __init__(self, missing: Missing) -> None:
        self.missing = missing
        self._wanted: deque[int] = deque()
        self._parts: list[bytes | memoryview] = []
        self._received_bytes = 0
        self._wanted_bytes = 0
        missing.links += 1

    @property
    def is_due(self) -> bool:
        """Whether something is wanted that has not come."""
        return bool(self._wanted)

    def leave(self) -> None:
        """Leave what has not come to the other links."""
        missing = self.missing
        missing.links -= 1
        missing.open_bytes -= self._wanted_bytes
        missing.unwanted.extendleft(reversed(self._wanted))
        self._wanted.clear()
        self._wanted_bytes = 0

    def next_want(self) -> Want | None:
        """Return what to want next; None while the window is full or nothing is missing.

        Several links share the window: none wants so much that nothing is left for the others.
        """
        ids: list[ChunkId] = []
        missing = self.missing
        while missing.unwanted and len(ids) < MOST_WANTED:
            size = missing.chunks[missing.unwanted[0]].sealed_bytes
            if missing.open_bytes + size > missing.window_bytes:
                break
            if self._wanted and self._wanted_bytes + size > missing.share_bytes:
                break
            position = missing.unwanted.popleft()
            self._wanted.append(position)
            self._wanted_bytes += size
            missing.open_bytes += size
            ids.append(missing.chunks[position].chunk_id)
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
        entry = self.missing.chunks[position]
        if (frame.chunk_id is None) != bool(self._parts) or not frame.data:
            raise RemoteProtocolError("a chunk's frames are out of order")
        if frame.chunk_id is not None and frame.chunk_id != entry.chunk_id:
            raise RemoteProtocolError("the sender sent another chunk than the wanted one")
        self._parts.append(frame.data)
        self._received_bytes += len(frame.data)
        self.missing.carried_bytes += len(frame.data)
        if self._received_bytes > entry.sealed_bytes:
            raise ChunkDamaged(f"chunk {entry.chunk_id.short()} is longer than its manifest says")
        if self._received_bytes < entry.sealed_bytes:
            return None
        sealed = b"".join(self._parts)
        self._parts, self._received_bytes = [], 0
        self._wanted.popleft()
        self._wanted_bytes -= entry.sealed_bytes
        return WholeChunk(position, entry, sealed)
