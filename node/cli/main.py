"""The `emix` command."""

import click

from node.cli import (
    audit_commands,
    audit_log_commands,
    config_commands,
    export_commands,
    held_commands,
    import_commands,
    keeping_commands,
    key_commands,
    network_commands,
    node_commands,
    peer_commands,
    study_commands,
    transfer_commands,
    unfinished_commands,
)
from node.cli.client import DEFAULT_HOME
from node.sandbox.confine import hide
from node.terminal.commands import EXIT_STATUS, SETTINGS, CommandGroup
from node.terminal.extras import add_extras


class _Group(CommandGroup):
    interrupted = "interrupted; what the node was asked to do goes on there"


@click.group(
    cls=_Group,
    context_settings=SETTINGS,
    epilog=EXIT_STATUS,
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


for _module in (
    node_commands,
    peer_commands,
    network_commands,
    import_commands,
    held_commands,
    study_commands,
    export_commands,
    transfer_commands,
    audit_commands,
    audit_log_commands,
    unfinished_commands,
    keeping_commands,
    key_commands,
    config_commands,
):
    for _command in _module.COMMANDS:
        cli.add_command(_command)
add_extras(cli, "emix")


def main() -> None:
    """Run the command."""
    hide()  # keys, passphrases and studies pass through it
    cli.main(prog_name="emix")
