"""Commands about imports that were not finished."""

from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import of_patient
from node.cli.client import run_call
from node.cli.import_commands import import_and_show, is_whole
from node.errors import NotFound
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    ask,
    print_line,
    show_bytes,
    show_done,
    show_json,
    show_table,
    show_time,
    yes_option,
)


class _Number(click.ParamType[int]):
    """The number of an import, as `i3` or `3`."""

    name = "number"

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        """Return the number."""
        digits = value.strip().lower().removeprefix("i")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
            self.fail(f"{value!r} is not the number of an import, such as i3", param, context)
        return int(digits)


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def imports(context: click.Context, json_: bool) -> None:
    """List running and unfinished imports.

    Instances of an unfinished import are not listed, exported or sent, and other instances of the
    same studies are shown as incomplete. Resume the import, or discard it to free its space.
    Importing the same paths again resumes it, too.

    \b
    Examples:
      emix imports
      emix imports resume i3
      emix imports discard i3
    """
    if context.invoked_subcommand is not None:
        return
    found = _all(context)
    if json_:
        show_json(found)
        return
    show_table(
        (
            ">NO",
            "BEGUN",
            "STATE",
            Column("PATIENT", least=10),
            ">INST",
            ">SIZE",
            Column("WHAT", least=12, is_middle=True),
            Column("WHY", is_note=True),
        ),
        [
            (
                f"i{one.number}",
                show_time(one.begun_seconds),
                "running" if one.is_running else "unfinished",
                _patients(one),
                one.instances,
                show_bytes(one.sealed_bytes),
                ", ".join(one.sources),
                one.problem,
            )
            for one in found.imports
        ],
        "Every import is finished.",
    )


def _all(context: click.Context) -> pb.ListImportsResponse:
    answer: pb.ListImportsResponse = run_call(
        context, "StudyService.ListImports", pb.ListImportsRequest()
    )
    return answer


def _patients(one: pb.UnfinishedImport) -> str:
    """Return the first patient of an import, and how many more there are."""
    patients = [patient for study in one.studies for patient in study.patients]
    names = list(dict.fromkeys(patient.name or patient.patient_id for patient in patients))
    more = len(names) - 1
    return f"{names[0]} (and {more} more)" if more > 0 else "".join(names)


@imports.command()
@click.argument("number", type=_Number())
@click.argument("paths", nargs=-1)
@click.option("--stream", is_flag=True, help="Stream files even if the node can read the paths.")
@as_json
@click.pass_context
def resume(
    context: click.Context, number: int, paths: tuple[str, ...], stream: bool, json_: bool
) -> None:
    """Resume an import, from PATHS if the files have moved.

    Instances stored before are not imported again. The exit status is 1 as for `emix import` (a
    file was held or refused, a DICOMDIR names a missing file, or there was no DICOM file), and if
    an instance stored before is not in PATHS. Ctrl-C keeps the instances stored before.

    \b
    Examples:
      emix imports resume i3
      emix imports resume i3 /media/cdrom1
    """
    sources = [Path(path) for path in paths or _find(context, number).sources]
    done = import_and_show(context, sources, stream=stream, resumes=number, json_=json_)
    left = _left_of(context, number)
    if json_:
        show_json({**done, "instances_left": left})
    elif left:
        print_line(
            f"i{number} is not finished: {left} instances stored before are not in these paths. Run"
            f" `emix imports resume i{number} PATHS` with the original paths, or `discard` it."
        )
    if left or not is_whole(done):
        raise SystemExit(1)


def _left_of(context: click.Context, number: int) -> int:
    """Return how many instances an import has kept that is still not finished."""
    answer = run_call(context, "StudyService.ListImports", pb.ListImportsRequest())
    return sum(one.instances for one in answer.imports if one.number == number)


@imports.command()
@click.argument("number", type=_Number())
@yes_option
@as_json
@click.pass_context
def discard(context: click.Context, number: int, yes: bool, json_: bool) -> None:
    """Delete the instances of an unfinished import and free their space. Asks first.

    \b
    Examples:
      emix imports discard i3
      emix imports discard i3 --yes
    """
    if not yes and not json_:
        found = _find(context, number)
        print_line(f"i{number}, {', '.join(found.sources)}: {found.instances} instances of")
        patients = (of_patient(patient) for study in found.studies for patient in study.patients)
        for patient in dict.fromkeys(patients):
            print_line(f"  {patient}")
    ask("Delete them from this node?", is_sure=yes)
    request = pb.DiscardImportRequest(number=number)
    done = run_call(context, "StudyService.DiscardImport", request)
    show_done(done, f"Discarded import i{number}: {done.packages} packages.", json_=json_)


def _find(context: click.Context, number: int) -> pb.UnfinishedImport:
    for one in _all(context).imports:
        if one.number == number:
            return one
    raise NotFound(f"no import i{number} is unfinished; `emix imports` lists those that are")


COMMANDS = (imports,)
