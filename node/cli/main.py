"""The `emix` command."""

from types import MappingProxyType

import click

from node.cli.homes import DEFAULT_HOME
from node.sandbox.confine import hide
from node.terminal.commands import EXIT_STATUS, SETTINGS, CommandGroup
from node.terminal.extras import add_extras

# Each module is loaded with the first of its commands: all of them together cost more than most
# commands do.
_MODULES = {
    "audit_commands": "receipts",
    "audit_log_commands": "audit",
    "config_commands": "config",
    "export_commands": "export",
    "held_commands": "held",
    "import_commands": "import",
    "keeping_commands": "clock retention",
    "key_commands": "node keys",
    "network_commands": "join networks find",
    "home_commands": "init serve passphrase restore",
    "node_commands": "id status doctor store backup",
    "peer_commands": "peers",
    "study_commands": "studies query study delete",
    "transfer_commands": "send transfers cancel inbox accept decline",
    "unfinished_commands": "imports",
}


class _Group(CommandGroup):
    interrupted = "interrupted; the node continues the work that it was given"
    modules = MappingProxyType(
        {name: f"node.cli.{module}" for module, names in _MODULES.items() for name in names.split()}
    )


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


add_extras(cli, "emix")


def main() -> None:
    """Run the command."""
    hide()  # keys, passphrases and studies pass through it
    cli.main(prog_name="emix")
