"""A package as a node keeps it."""

import enum
from dataclasses import dataclass

from node.domain.ids import FacilityId, PackageId
from node.domain.manifest import StudyInstanceUID


class PackageState(enum.StrEnum):
    """How a package stands. `docs/states.md` shows what makes each transition."""

    OPEN = "open"
    """An import fills it."""

    HELD = "held"
    """One instance that a person decides about, apart from its study."""

    ARRIVING = "arriving"
    """A transfer fills it."""

    CLOSED = "closed"
    """Immutable, and visible."""

    DELETING = "deleting"
    """Invisible; what only it names is removed."""


class Closing(enum.StrEnum):
    """Why the open packages of a study closed."""

    QUIET = "quiet"  # nothing had come for it for a while
    COMMAND = "command"  # an explicit command said that it is complete
    AT_ONCE = "at once"  # each request at that door is complete by itself


@dataclass(frozen=True, slots=True)
class Package:
    """A package as a node keeps it.

    Attributes:
        id: Its number in this store.
        state: Only a closed one is seen by anybody.
        epoch: Which of this node's keys wraps its data key.
        next_number: The number for the next chunk sealed into it.
        received_from: Who sent it here; None for a package sealed here.
        needs: As in its manifest.
    """

    id: int
    package_id: PackageId
    origin: FacilityId
    study_uid: StudyInstanceUID
    state: PackageState
    epoch: int
    wrapped_key: bytes
    next_number: int
    created_time: float
    manifest_digest: bytes | None
    received_from: FacilityId | None
    needs: tuple[str, ...] = ()
