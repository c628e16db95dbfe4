"""Instances that wait for a person."""

from dataclasses import dataclass

from node.domain.ids import FacilityId


@dataclass(frozen=True, slots=True)
class HeldInstance:
    """An instance that waits for a person.

    Attributes:
        id: Its number, by which it is decided about.
        received_from: Who sent it, as part of a package; None for one that was imported.
        label: The file, as the importer named it; empty for one that was sent.
    """

    id: int
    package: int
    position: int
    reasons: tuple[str, ...]
    label: str
    found_time: float
    size_bytes: int
    sop_instance_uid: str
    study_uid: str
    received_from: FacilityId | None
