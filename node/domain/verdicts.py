"""What this node decides about each file that comes in: carry, flag, hold, or refuse."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.domain.index import ImageIndexes, PackageIndex
from node.domain.pixels import Pixels


class Verdict(enum.StrEnum):
    """The answers; only `CARRY` and `FLAG` put an instance into a package."""

    CARRY = "carry"
    FLAG = "flag"  # odd, and carried: the reasons say what is odd
    HOLD = "hold"  # sealed byte-exact, released only by a person
    REFUSE = "refuse"  # not identifiable as one DICOM instance, or over a limit
    DIRECTORY = "directory"  # a DICOMDIR: it names the files of a medium, and is none of them
    MISSING = "missing"  # named by a DICOMDIR, and not there
    NOT_DICOM = "not-dicom"  # nothing of DICOM's: a viewer, a picture; no image is lost with it

    @property
    def keeps_out(self) -> bool:
        """Whether an instance is kept byte-exact, and out of its package until a person decides."""
        return self is Verdict.HOLD


@dataclass(frozen=True, slots=True)
class Examined:
    """What the examination of one file found.

    Identifiers are empty unless `verdict` puts the instance into a package or holds it.
    `pixels` is where its pixels lie, if it has any. `is_failure` says that it is the examination
    that failed, whatever the file is like.
    `index` has the decoded values that people search by, keyed by DICOM keyword; it is
    patient data and stays inside the encrypted database. `references` are the files that a
    DICOMDIR names, their components joined by `/`; `is_partial` says that it may name more, and
    `reasons` why.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    pixels: Pixels | None = None
    index: dict[str, str] = field(default_factory=dict)
    references: Sequence[str] = ()
    is_partial: bool = False
    is_failure: bool = False

    @property
    def is_instance(self) -> bool:
        """Whether it is one DICOM instance, whatever else is said of it."""
        return self.verdict in (Verdict.CARRY, Verdict.FLAG) or self.verdict.keeps_out


@dataclass(frozen=True, slots=True)
class Doubt:
    """A verdict on one instance of a package that is not simply `CARRY`, and why."""

    position: int
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking a whole arrived package found.

    Attributes:
        index: The searchable values of its instances, merged.
        doubts: The receiver's own verdicts, by position, where they are not `CARRY`.
        images: What each instance says of itself, by position.
    """

    index: PackageIndex = field(default_factory=PackageIndex)
    doubts: Sequence[Doubt] = ()
    images: ImageIndexes = field(default_factory=ImageIndexes)
