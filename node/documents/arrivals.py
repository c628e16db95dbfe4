"""Packages on their way in and out."""

from dataclasses import dataclass

from node.crypto.keys import DataKey
from node.domain.packages import Package
from node.domain.summary import Summary


@dataclass(frozen=True, slots=True)
class Arrival:
    """A package on its way in.

    Attributes:
        package: Its row.
        data_key: Its key.
        present: Which chunks are recorded as durable: positions in the manifest.
        is_new: Nothing of it was here before.
    """

    package: Package
    data_key: DataKey
    present: frozenset[int]
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A package that can be sent: its row, its key, and what a delivery says of it.

    The numbers come from the database: decoding the manifest of a large study takes a second.

    Attributes:
        summary: Its summary, with all patients under its Study Instance UID in this origin's
            packages; normally there is one.
        held: How many of its instances are held here; only a received package can have any.
    """

    package: Package
    data_key: DataKey
    manifest_digest: bytes
    manifest_bytes: int
    instances: int
    sealed_bytes: int
    plaintext_bytes: int
    held: int
    summary: Summary
