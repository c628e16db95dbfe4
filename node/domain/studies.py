"""Studies as people see them: each as one origin facility sealed it."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.domain.held import HeldInstance
from node.domain.ids import FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.patients import Patient


class Means(enum.StrEnum):
    """By what a study was chosen."""

    UID = "uid"
    NUMBER = "number"
    ACCESSION = "accession"
    WORDS = "words"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The one study that a person means.

    Attributes:
        origin: The origin, if the study was chosen by number; else None.
    """

    study_uid: StudyInstanceUID
    means: Means
    origin: FacilityId | None = None


@dataclass
class StudySource:
    """One study as one origin facility sealed it, with all its packages here."""

    study_uid: StudyInstanceUID
    origin: FacilityId
    number: int = 0
    index: dict[str, str] = field(default_factory=dict)
    patients: list[Patient] = field(default_factory=list)
    unfinished_imports: list[int] = field(default_factory=list)
    series_rows: list[dict[str, str]] = field(default_factory=list)
    packages: list[dict[str, object]] = field(default_factory=list)
    sent_to: list["SentTo"] = field(default_factory=list)
    series: int = 0
    instances: int = 0
    versioned_instances: int = 0
    plaintext_bytes: int = 0
    sealed_bytes: int = 0
    newest_time: float = 0.0


@dataclass(frozen=True, slots=True)
class SentTo:
    """A facility that gave receipts for a study.

    Attributes:
        delivered_time: When the last receipt was kept here.
        deleted_time: When it deleted all of the study's packages, as it states; 0 if it did not.
        instances: How many of the instances in the packages here it has.
    """

    peer: bytes
    delivered_time: float
    deleted_time: float
    instances: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion removed, and what remains of the study from that origin.

    Attributes:
        held: Imported instances that are held, outside of all closed packages.
        unfinished_imports: Imports that have kept a part of the study.
    """

    packages: int
    instances: int
    held: Sequence[HeldInstance]
    unfinished_imports: Sequence[int]
