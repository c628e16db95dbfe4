"""A package as a node keeps it."""

from dataclasses import dataclass

from node.domain.ids import FacilityId, PackageId
from node.domain.manifest import StudyInstanceUID


@dataclass(frozen=True, slots=True)
class Package:
    """A package as a node keeps it.

    Attributes:
        id: Its number in this store.
        state: open (an import fills it), held (a person decides), arriving, closed (immutable
            and visible), or deleting.
        epoch: Which of this node's keys wraps its data key.
        next_number: The number for the next chunk sealed into it.
        received_from: Who sent it here; None for a package sealed here.
    """

    id: int
    package_id: PackageId
    origin: FacilityId
    study_uid: StudyInstanceUID
    state: str
    epoch: int
    wrapped_key: bytes
    next_number: int
    created_time: float
    manifest_digest: bytes | None
    received_from: FacilityId | None
