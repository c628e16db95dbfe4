"""Retention of received packages: the decisions, without I/O.

A package is deleted only if somebody has looked at it or exported it, and only a week after it was
announced. Deletions are few at a time, so a person who checks the node daily can still stop them.
"""

import enum
from dataclasses import dataclass

WARNING_SECONDS = 7 * 86400.0
"""The shortest time between the announcement and the deletion of a package."""

MOST_AT_ONCE = 100
"""Packages that one step deletes; a step is an hour."""

DAY_SECONDS = 86400.0


class Fate(enum.StrEnum):
    """What becomes of an old package."""

    UNSEEN = "unseen"  # kept: nobody has looked at it or exported it
    SENDING = "sending"  # kept: it is being sent on
    DUE = "due"  # to be announced with the next step
    ANNOUNCED = "announced"  # it waits for the time that was announced
    DELETED = "deleted"  # the next step deletes it


@dataclass(frozen=True, slots=True)
class Aged:
    """A received package that is older than the policy keeps it.

    Attributes:
        number: Its row number.
        study_uid: The UID of its study.
        package: Its package id.
        origin: The facility that sealed it.
        received_from: The facility that sent it.
        created_time: When it came.
        is_looked_at: Whether somebody has looked at its study here, or exported it, since.
        is_sending: Whether a transfer of it to another facility is not final.
        expiring_time: From when on it may be deleted; None until that is announced.
    """

    number: int
    study_uid: str
    package: bytes
    origin: bytes
    received_from: bytes
    created_time: float
    is_looked_at: bool
    is_sending: bool
    expiring_time: float | None

    def fate(self, now: float) -> Fate:
        """Return what becomes of it at a time."""
        if not self.is_looked_at:
            return Fate.UNSEEN
        if self.is_sending:
            return Fate.SENDING
        if self.expiring_time is None:
            return Fate.DUE
        return Fate.ANNOUNCED if now < self.expiring_time else Fate.DELETED


@dataclass(frozen=True)
class Step:
    """What one step did: packages announced, and packages deleted."""

    announced: int
    deleted: int
