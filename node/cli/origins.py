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


@contextmanager
def asking_for_origin(context: click.Context, uid: str, *arguments: str) -> Generator[None]:
    """If the block raises `SeveralOrigins`, list the origins with the command for each.

    No patient's name is shown: the question is only which origin, and `emix study` shows the rest.
    """
    try:
        yield
    except SeveralOrigins as exc:
        sources = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=uid)).sources
        own = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest()).facility_id
        facts = []
        for source in sources:
            is_own = source.origin == own
            name = "this facility" if is_own else source.origin_name or "not paired"
            command = shlex.join(
                ["emix", *arguments, "--origin", "own" if is_own else source.origin]
            )
            count = f"{source.instances} instances in {len(source.packages)} packages"
            facts.append({"origin": source.origin, "name": name, "command": command})
            if not is_json_asked.get():
                print_line(f"{name}, {count}:", is_error=True)
                print_line(f"  {command}", is_error=True)
        exc.facts = {"origins": facts}
        raise
