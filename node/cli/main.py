"""The `emix` command."""

from types import MappingProxyType

import click

from node.cli.homes import DEFAULT_HOME
from node.sandbox.confine import hide
from node.terminal.commands import EXIT_STATUS, SETTINGS, CommandGroup
from node.terminal.extras import add_extras

# Each module is loaded with the first of its commands: all of them together cost more than most
# commands do. The list of commands is told without them.
_MODULES = {
    "audit_commands": {"receipts": "List receipts, given and received."},
    "audit_log_commands": {"audit": "List the audit log's latest entries."},
    "config_commands": {"config": "Check the settings in emix.toml."},
    "export_commands": {"export": "Write a study's files into a new folder, or a ZIP file."},
    "held_commands": {"held": "List held instances, which wait for a person's decision."},
    "import_commands": {"import": "Import files, folders, discs, disc images and archives."},
    "keeping_commands": {
        "clock": "Confirm this node's clock.",
        "retention": "Run one retention step, as the node does every hour.",
    },
    "key_commands": {
        "node": "Replace the node key or renew its certificate.",
        "keys": "Show the node key and its expiry; rotate or destroy keys.",
    },
    "network_commands": {
        "join": "Join a network with the letter that its operator sent.",
        "networks": "List the networks that this facility has joined.",
        "find": "Find facilities of the networks by name, city, department.",
    },
    "home_commands": {
        "init": "Make a new node: keys, encrypted store, configuration.",
        "serve": "Run the node until it is stopped (Ctrl-C, SIGTERM).",
        "passphrase": "Set a new passphrase; stop the node first.",
        "restore": "Make the home from a backup (on a new machine, say).",
    },
    "node_commands": {
        "id": "Show this facility's ID, which partners compare.",
        "status": "Show the node's state and its alarms.",
        "doctor": "Find problems and say how to fix them.",
        "store": "Check or repair the local store.",
        "backup": "Write a copy of the whole node, encrypted; or verify one.",
    },
    "peer_commands": {"peers": "List paired facilities; pair with one, or part from it."},
    "study_commands": {
        "studies": "List studies, newest first, all or those with some words.",
        "query": "Find studies, series or instances by DICOM attributes.",
        "study": "Show one study: patient, series, packages, where it went.",
        "delete": "Delete a study here.",
    },
    "transfer_commands": {
        "send": "Send studies to a facility: paired, or of a network.",
        "transfers": "List transfers, newest first; watch them.",
        "cancel": "Cancel a transfer that is not delivered yet.",
        "inbox": "List received studies, waiting offers, incoming transfers.",
        "accept": "Accept a waiting offer.",
        "decline": "Decline a waiting offer.",
    },
    "unfinished_commands": {"imports": "List running and unfinished imports."},
}


class _Group(CommandGroup):
    interrupted = "interrupted; the node continues the work that it was given"
    modules = MappingProxyType(
        {name: f"node.cli.{module}" for module, commands in _MODULES.items() for name in commands}
    )
    summaries = MappingProxyType(
        {name: summary for commands in _MODULES.values() for name, summary in commands.items()}
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
