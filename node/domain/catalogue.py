"""Answers of the catalogue; its queries are in `node.domain.query`."""

from collections.abc import Mapping
from dataclasses import dataclass

from node.domain.ids import FacilityId
from node.domain.manifest import StudyInstanceUID


@dataclass(frozen=True, slots=True)
class Found:
    """One study, series or instance.

    Attributes:
        study_uid: The study's, or that which the series or instance is in.
        origin: Who sealed it; the same study of two origins is two answers.
        number: The study's number here.
        values: What is known, by DICOM keyword; of a series or instance its study's values, too.
    """

    study_uid: StudyInstanceUID
    origin: FacilityId
    number: int
    values: Mapping[str, str]
