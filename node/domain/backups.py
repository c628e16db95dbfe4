"""Pieces of a copy of a node, on their way to the writer."""

from dataclasses import dataclass

from node.domain.ids import ChunkId


@dataclass(frozen=True)
class Piece:
    """A piece of a file of the copy; the first of a file has its name, the others none.

    `problem` says why a file cannot be read: nothing comes of it. `had` is a chunk instead, that
    whoever writes the copy has.
    """

    name: str
    data: bytes
    problem: str = ""
    had: ChunkId | None = None
