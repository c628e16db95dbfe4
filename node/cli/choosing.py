"""Which study a command is about: what a person typed, and a look at it where words chose it."""

import re
from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.errors import NotFound
from node.terminal.output import ask, print_line, show_day

_PLAIN = re.compile(r"[sS][0-9]{1,18}|[0-9]+\.[0-9.]*(?:…[0-9.]+)?")
"""What can name a study by number or UID only."""


def is_path(text: str) -> bool:
    """Return whether a text names files rather than a study: only with a / in it."""
    return "/" in text


def chosen(context: click.Context, text: str, *, is_sure: bool) -> str:
    """Return what names the study to the node, once a person has seen which it is.

    A UID or number is taken as it is. Where search words found the study, it is shown and asked
    about: they may fit another patient than the one that was meant.

    Raises:
        NotFound, Conflict: none is meant, or several.
        NotMeant: it is another.
        UsageError: nobody is there to look, and --yes was not given.
    """
    if _PLAIN.fullmatch(text.strip()):
        return text
    try:
        answer = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=text))
    except NotFound as exc:
        if not Path(text).exists():
            raise
        raise NotFound(f"{exc}; a file or folder has a / in it: ./{text}") from exc
    found = answer.sources[0]
    if answer.chosen_by == "words":
        print_line(f"{summary_of(found)}", is_error=True)
        ask("Is this the study?", is_sure=is_sure)
    uid: str = found.study_instance_uid
    return uid


def name_of_patients(study: pb.Study) -> str:
    """Return whom a study is of; of several, how many they are, and the first."""
    return of_several(study.patients_total, study.patient_name)


def of_several(count: int, first: str) -> str:
    """Return a patient's name, with how many there are where it is not the only one.

    The number first: what is cut off a table is the end.
    """
    return f"{count} patients: {first}" if count > 1 else first


def of_patient(patient: pb.Patient) -> str:
    """Return who a patient is, in a line."""
    born = f"born {show_day(patient.birth_date)}" if patient.birth_date else ""
    return "  ".join(filter(None, (patient.name, patient.patient_id, born, patient.sex)))


def incomplete(number: int) -> str:
    """Return what is said of a study of which an import has not brought everything."""
    return f"Incomplete: import i{number} of this study is not finished; see `emix imports`."


def summary_of(study: pb.Study) -> str:
    """Return who and what a study is, in a line."""
    born = f"born {show_day(study.birth_date)}" if study.birth_date else ""
    parts = (
        f"s{study.number}",
        name_of_patients(study),
        study.patient_id,
        born,
        show_day(study.study_date),
        "/".join(study.modalities),
        study.study_description,
        f"{study.instances} instances" + (", incomplete" if study.unfinished_imports else ""),
    )
    return ", ".join(part for part in parts if part)
