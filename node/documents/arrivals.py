"""A package on its way in."""

from dataclasses import dataclass

from node.crypto.keys import DataKey
from node.domain.packages import Package


@dataclass(frozen=True, slots=True)
class Arrival:
    """A package on its way in: its row, its key, and which chunks are recorded as durable."""

    package: Package
    data_key: DataKey
    present: frozenset[int]  # positions in the manifest
