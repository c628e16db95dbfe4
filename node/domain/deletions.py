"""Deletion notices: the package of a transfer was deleted at the receiver."""

from dataclasses import dataclass

from node.domain.ids import TransferId

MOST_AT_ONCE = 64
"""Deletion notices in one Hello, at most."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a transfer brought was deleted, at a time (seconds since 1970) of the receiver's."""

    transfer_id: TransferId
    time: float
