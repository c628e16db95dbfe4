"""The `emix` command."""

import os
import sys
from typing import Any

import click

from node.cli import node_commands, peer_commands, study_commands, transfer_commands
from node.cli.client import DEFAULT_HOME, exit_with
from node.errors import NodeError


class _Group(click.Group):
    """Turns our errors into a line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NodeError as exc:
            exit_with(exc)
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            _end_of(exc)
            raise
        except BrokenPipeError:
            _leave_pipe()


def _end_of(error: BaseException) -> None:
    """End as a person expects who pressed Ctrl-C or closed the pipe; return for the rest."""
    kinds = {type(leaf) for leaf in _leaves(error)}
    if BrokenPipeError in kinds:
        _leave_pipe()
    if KeyboardInterrupt in kinds:
        click.echo("emix: interrupted; what the node was asked to do goes on there", err=True)
        raise SystemExit(130)


def _leave_pipe() -> None:
    # Python would complain once more when it flushes what nobody reads.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 something failed or was not carried, 2 wrong usage,"
    " 3 configuration, 4 not found, 5 conflict, 10 to 14 store, keys, files, protocol, documents,"
    " 20 peer not reachable, 21 peer not trusted.",
)
@click.option(
    "--home",
    metavar="DIR",
    envvar="EMIX_HOME",
    help=f"The node's home. [default: {DEFAULT_HOME}, or EMIX_HOME]",
)
@click.version_option(package_name="emix", prog_name="emix")
def cli(home: str | None) -> None:
    """Exchange imaging studies directly with other facilities.

    A node keeps a facility's encrypted store (`emix init`, `emix serve`); all other commands
    talk to the node that runs in the same home.

    \b
    Examples:
      emix init --name "Great Falls Clinic" --recovery-kit /media/usb/kit.json
      emix serve
      emix import /media/cdrom
      emix send 1.2.840.113619.2 "Billings Hospital" --priority stat --wait
    """


for _module in (node_commands, peer_commands, study_commands, transfer_commands):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Run the command."""
    cli.main(prog_name="emix")
