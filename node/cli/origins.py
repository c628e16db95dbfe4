"""The --origin option, and the question if a study has several origins."""

import shlex
from collections.abc import Generator
from contextlib import contextmanager

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.errors import SeveralOrigins
from node.terminal.output import is_json_asked, print_line

origin_option = click.option(
    "--origin",
    default="",
    metavar="FACILITY|own",
    help="Whose packages: a Facility ID (or 16 characters), a name, or own.",
)

_NOT_REPEATED = {"origin", "json_", "yes"}
_ABOUT_STUDY = {"recipient", "note"}


@contextmanager
def asking_for_origin(context: click.Context, uid: str, *arguments: str) -> Generator[None]:
    """If the block raises `SeveralOrigins`, list the origins with the command for each.

    No patient's name is shown: the question is only which origin, and `emix study` shows the rest.
    So what a person wrote about the study is left out of the commands, and named.
    """
    try:
        yield
    except SeveralOrigins as exc:
        sources = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=uid)).sources
        own = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest()).facility_id
        options, left_out = _options(context)
        facts = []
        for source in sources:
            is_own = source.origin == own
            name = "this facility" if is_own else source.origin_name or "not paired"
            command = shlex.join(
                ["emix", *arguments, *options, "--origin", "own" if is_own else source.origin]
            )
            count = f"{source.instances} instances in {len(source.packages)} packages"
            facts.append({"origin": source.origin, "name": name, "command": command})
            if not is_json_asked.get():
                print_line(f"{name}, {count}:", is_error=True)
                print_line(f"  {command}", is_error=True)
        if left_out and not is_json_asked.get():
            print_line(f"Add {' and '.join(left_out)} as before.", is_error=True)
        exc.facts = {"origins": facts, "left_out": left_out}
        raise


def _options(context: click.Context) -> tuple[list[str], list[str]]:
    """Return the other options that a person gave; and those that say something of the study."""
    given, left_out = [], []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if not isinstance(option, click.Option) or not value or option.name in _NOT_REPEATED:
            continue
        if option.name in _ABOUT_STUDY:
            left_out.append(option.opts[0])
        else:
            given += [option.opts[0]] if option.is_flag else [option.opts[0], str(value)]
    return given, left_out
