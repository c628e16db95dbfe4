"""Imports that run or were not finished."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.domain.patients import Patient


@dataclass(frozen=True, slots=True)
class PartialStudy:
    """What an import that is not finished has kept of a study."""

    study_uid: str
    patients: Sequence[Patient]
    instances: int
    sealed_bytes: int


@dataclass(frozen=True, slots=True)
class UnfinishedImport:
    """An import that runs, or was not finished.

    Attributes:
        id: Its number.
        sources: What the person named, as absolute paths.
        problem: Why it ended; empty if that could not be noted.
        studies: The partial studies that it has kept.
    """

    id: int
    sources: tuple[str, ...]
    operator: str
    begun_time: float
    problem: str
    studies: Sequence[PartialStudy]
