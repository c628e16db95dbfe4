"""The port of chunk storage: the interface between the store and the place of its sealed chunks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.domain.ids import ChunkId
from node.errors import ChunkDamaged, ChunkNotFound, StoreAway, StoreError


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests were made of another machine, and how long they took together."""

    count: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Requests") -> "Requests":
        """Return both together."""
        return Requests(self.count + other.count, self.seconds + other.seconds)


class ChunkStorage(Protocol):
    """Keeps sealed bytes under their chunk ids.

    No implementation interprets the bytes. The caller checks them against the id.

    Threads: every method blocks and is called on worker threads, by several at once. Two puts of
    one chunk at the same time leave that chunk.

    Memory: a method holds one chunk at most, beside its arguments; `contents` and
    `ids` hold a page.

    Time: a call to another machine gives up after a bounded number of tries and seconds, and raises
    `StoreError`.

    Errors: after a `StoreError` the state is unknown: the chunk may be there or not. Only
    `ChunkNotFound` (from `get`) and None (from `size`) say that it is not there; an implementation
    that cannot tell raises `StoreError`.

    Every implementation passes `tests/node/chunks/contract.py`.
    """

    def put(self, chunk_id: ChunkId, sealed: bytes) -> None:
        """Keep a chunk. Putting it again changes nothing, except that it repairs a damaged chunk.

        Durable after the next `sync` that names it. Never seen half-written: a put that is cut
        off leaves the chunk as it was before, or whole.

        Raises:
            StoreFull: no room beyond the reserve; nothing was kept.
            StoreDenied: this user may not write it.
            StoreError: it cannot be said whether it was kept.
            SyncFailed: the disk failed; the node must stop.
        """

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Make all these chunks, put before, durable.

        Raises:
            StoreError: some may not be durable.
        """

    def get(self, chunk_id: ChunkId) -> bytes:
        """Return a chunk's bytes, as they are there now.

        What was put is returned by every `get` that begins after `put` returned.

        Raises:
            ChunkNotFound: it is not there.
            ChunkDamaged: more is there than any chunk has, the disk cannot read it, or its bytes
                change on their way each time.
            StoreDenied: this user may not read it.
            StoreError: it is there and cannot be read, or nobody answers.
        """

    def size(self, chunk_id: ChunkId) -> int | None:
        """Return the size of a chunk as kept, or None if it is not there."""

    def delete(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Forget these chunks durably; those not there are no error.

        Cut off, any part of them may be gone.
        """

    def contents(self) -> Iterator[tuple[ChunkId, int]]:
        """Yield every chunk that is there and its size as kept, each once, in any order.

        A listing may lag: recent puts may be missing, and recent deletions may still appear. So use
        it to find surplus chunks, never to find missing ones.
        """

    def ids(self) -> Iterator[ChunkId]:
        """Yield every chunk that is there, as `contents` does, without asking for its size."""

    def free_bytes(self) -> int:
        """Return how much more can be put, the reserve left out."""

    def use_reserve(self, reserve_bytes: int) -> None:
        """Leave so much free from now on."""

    def check(self) -> None:
        """Check that it can be used now.

        Raises:
            StoreDenied: this user may not use it; the message says why.
            StoreError: it does not answer, or keeps another node's chunks.
        """

    def close(self) -> None:
        """Let go of connections and the like; nothing is asked of it afterwards."""

    def where(self) -> str:
        """Return where chunks are, as a person writes it; empty for the home."""

    def is_open(self) -> bool:
        """Return whether others on the way to it see which requests are made, though no content."""

    def requests(self) -> Mapping[tuple[str, str], "Requests"]:
        """Return what other machines were asked since the start, by operation and outcome.

        Nothing where chunks are on a disk of this machine.
        """

    def folders(self) -> Sequence[Path]:
        """Return the folders of this machine that hold chunks; none if they are elsewhere."""


def raise_if_general(storage: ChunkStorage, error: StoreError) -> None:
    """Raise what keeps all chunks from being used; return where an error is about one alone.

    A loop over many chunks calls it: where nobody answers, or credentials are refused, each chunk
    would be waited for, and called a problem of its own.

    Args:
        storage: What raised the error.
        error: What it raised about one chunk.

    Raises:
        StoreError: no chunk can be used now.
    """
    if isinstance(error, (ChunkDamaged, ChunkNotFound)):
        return
    if isinstance(error, StoreAway):
        raise error
    storage.check()
