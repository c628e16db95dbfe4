"""Packages on their way in and out."""

from dataclasses import dataclass

from node.crypto.keys import DataKey
from node.documents.signed import Document
from node.domain.packages import Package


@dataclass(frozen=True, slots=True)
class Arrival:
    """A package on its way in: its row, its key, and which chunks are recorded as durable."""

    package: Package
    data_key: DataKey
    present: frozenset[int]  # positions in the manifest


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A package that can be sent: its row, its key, its manifest, and its size.

    Attributes:
        held: How many of its instances wait here for a person; of a received package only.
    """

    package: Package
    data_key: DataKey
    manifest: Document
    plaintext_bytes: int
    held: int
