"""The summary of a delivery, for a person who must accept it before it is carried."""

from dataclasses import dataclass

from node.domain.display_text import printable
from node.domain.patients import Patient

MOST_PATIENTS, MAX_TEXT = 5, 64  # in all a quarter of what a delivery may be, in any alphabet


@dataclass(frozen=True, slots=True)
class Summary:
    """Whom a package is of, and what examination. Patient data; each value may be empty."""

    patients: tuple[Patient, ...] = ()
    study_uid: str = ""
    study_date: str = ""
    description: str = ""
    modalities: str = ""
    accession_number: str = ""

    def bounded(self) -> "Summary":
        """Return the summary cut to its bounds and made safe to show; the sender is not trusted."""
        return Summary(
            tuple(
                Patient(_text(p.name), _text(p.patient_id), _text(p.birth_date), _text(p.sex))
                for p in self.patients[:MOST_PATIENTS]
            ),
            _text(self.study_uid),
            _text(self.study_date),
            _text(self.description),
            _text(self.modalities),
            _text(self.accession_number),
        )


def _text(text: str) -> str:
    return printable(text[:MAX_TEXT], " ").strip()
