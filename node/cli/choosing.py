"""Resolves what a person typed to a study; a study found by words is shown and confirmed."""

import re
from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.errors import NotFound
from node.terminal.output import ask, print_line, show_day

_PLAIN = re.compile(r"[sS][0-9]{1,18}|[0-9]+\.[0-9.]*(?:…[0-9.]+)?")
"""What can name a study by number or UID only."""

_SHOWN = 10


def is_path(text: str) -> bool:
    """Return whether a text names files rather than a study: only with a / in it."""
    return "/" in text


def is_plain(text: str) -> bool:
    """Return whether a text can only be a number or UID of a study: nobody is asked about it."""
    return _PLAIN.fullmatch(text.strip()) is not None


def all_matching(context: click.Context, query: str, *, is_sure: bool) -> list[str]:
    """Return the UIDs of all studies that match search words, after a person has confirmed them.

    Raises:
        NotFound: none does.
        NotMeant: the person did not confirm them.
        UsageError: there is no terminal to ask at, and --yes was not given.
    """
    answer = run_call(context, "StudyService.ListStudies", pb.ListStudiesRequest(query=query))
    found = {study.study_instance_uid: study for study in answer.studies}
    if not found:
        raise NotFound("no study matches; `emix studies` lists what is here")
    if not is_sure:
        for study in list(found.values())[:_SHOWN]:
            print_line(summary_of(study), is_error=True)
        more = f" (the newest {_SHOWN} are shown)" if len(found) > _SHOWN else ""
        ask(f"Are these {len(found)} studies meant{more}?", is_sure=False)
    return list(found)


def chosen(context: click.Context, text: str, *, is_sure: bool) -> str:
    """Return the text that names the study to the node, after a person has confirmed it if needed.

    A UID or number is returned unchanged. A study found by search words is shown, and the person
    confirms it: the words may match another patient than the intended one.

    Raises:
        NotFound, Conflict: the text matches no study, or several.
        NotMeant: the person did not confirm it.
        UsageError: there is no terminal to ask at, and --yes was not given.
    """
    if is_plain(text):
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
    """Return the name of a study's patient; if there are several, their number and the first."""
    return of_several(study.patients_total, study.patient_name)


def of_several(count: int, first: str) -> str:
    """Return a patient's name, after the number of patients if there are several.

    The number comes first, since tables cut off the end.
    """
    return f"{count} patients: {first}" if count > 1 else first


def of_patient(patient: pb.Patient) -> str:
    """Return who a patient is, in a line."""
    born = f"born {show_day(patient.birth_date)}" if patient.birth_date else ""
    return "  ".join(filter(None, (patient.name, patient.patient_id, born, patient.sex)))


def incomplete(number: int) -> str:
    """Return the note about a study that an unfinished import is of."""
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
