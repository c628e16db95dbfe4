"""Commands about the node's keys: replacing and renewing the node key, rotating, shredding.

All of them work on a home in which no node runs.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.client import operator
from node.cli.homes import emix_command, home_path, kit_from, passphrase_of
from node.domain.actors import Actor, at_home
from node.errors import UsageError
from node.terminal.commands import as_json
from node.terminal.output import print_line, show_json, show_time

if TYPE_CHECKING:
    from node.app.home import Home
    from node.app.rekeying import KeyFacts, Rotated
    from node.domain.ids import NodeId

_MOST_BYTES = 64 * 1024
passphrase_option = click.option(
    "--passphrase-file", metavar="FILE", help="A file that holds the passphrase."
)
kit_option = click.option(
    "--recovery-kit", metavar="FILE", help="The facility's recovery kit.", required=True
)


@click.group()
def node() -> None:
    """Replace the node key or renew its certificate, with the recovery kit."""


def _show_key(facts: "KeyFacts", text: str, *, json_: bool) -> None:
    if json_:
        show_json(
            {
                "node_id": str(facts.node),
                "generation": facts.generation,
                "expires_seconds": facts.expires_seconds,
            }
        )
        return
    print_line(text)
    print_line(f"Node {facts.node}; its certificate ends {show_time(facts.expires_seconds)}.")


_clock_is_right = click.option(
    "--clock-is-right",
    is_flag=True,
    help="You have checked that this machine's clock is right, though the node doubts it.",
)


@node.command()
@kit_option
@_clock_is_right
@as_json
@click.pass_context
def replace(context: click.Context, recovery_kit: str, clock_is_right: bool, json_: bool) -> None:
    """Make a new node key after the old one may have been stolen. Stop the node first.

    At its next start the new node announces itself; peers and directories then refuse the old
    one. What the old node signed before stays verifiable. A thief of the old keys may have read
    the store: rotate the epoch, too, and set another passphrase.

    \b
    Examples:
      emix node replace --recovery-kit /media/usb/kit.json
      emix node replace --recovery-kit kit.json --json      # then keys rotate-epoch, passphrase
    """
    from node.app.rekeying import replace_node

    home = _home(context)
    kit = kit_from(recovery_kit)
    facts = replace_node(home, kit, _actor(), is_clock_right=clock_is_right)
    text = (
        f"The node has a new key. Start it with `{emix_command(home.root)} serve`: it informs its"
        " peers by itself."
    )
    _show_key(facts, text, json_=json_)


@node.command()
@click.option("--recovery-kit", metavar="FILE", help="The facility's recovery kit.")
@click.option("--certificate", metavar="FILE", help="A certificate by `emix node certify`.")
@passphrase_option
@_clock_is_right
@as_json
@click.pass_context
def renew(
    context: click.Context,
    recovery_kit: str | None,
    certificate: str | None,
    passphrase_file: str | None,
    clock_is_right: bool,
    json_: bool,
) -> None:
    """Renew the node key's certificate, which is valid for 400 days. Stop the node first.

    Use the recovery kit here, or, if the kit stays offline, a certificate made where it is: see
    `emix node request` and `emix node certify`.

    \b
    Examples:
      emix node renew --recovery-kit /media/usb/kit.json
      emix node renew --certificate /media/usb/node.certificate
    """
    from node.app.rekeying import renew_node, take_certificate
    from node.documents.node_requests import decode_certificate

    if (recovery_kit is None) == (certificate is None):
        raise UsageError("give either --recovery-kit or --certificate")
    home = _home(context)
    if recovery_kit is not None:
        kit = kit_from(recovery_kit)
        facts = renew_node(home, kit, _actor(), is_clock_right=clock_is_right)
    else:
        signer = decode_certificate(_read(str(certificate)))
        facts = take_certificate(home, passphrase_of(home, passphrase_file), signer, _actor())
    text = f"The node's certificate was renewed. Start it: `{emix_command(home.root)} serve`."
    _show_key(facts, text, json_=json_)


@node.command()
@click.argument("file")
@passphrase_option
@as_json
@click.pass_context
def request(context: click.Context, file: str, passphrase_file: str | None, json_: bool) -> None:
    """Write a request for a new certificate; take it to the recovery kit. It holds no secret.

    \b
    Example:
      emix node request /media/usb/node.request
    """
    from node.app.home import unlock
    from node.documents.node_requests import NodeRequest
    from node.system.safe_paths import absolute, write_file

    home = _home(context)
    unlocked = unlock(home, passphrase_of(home, passphrase_file))
    write_file(Path(file), NodeRequest.of(unlocked.signer).encode())
    if json_:
        show_json({"file": str(absolute(Path(file))), "node_id": str(unlocked.signer.node_id)})
        return
    print_line(f"Wrote {file}. Where the kit is:")
    print_line(f"  emix node certify {file} CERTIFICATE --node {unlocked.signer.node_id}")


@node.command()
@click.argument("request_file", metavar="REQUEST")
@click.argument("certificate")
@kit_option
@click.option(
    "--node", "node_text", metavar="ID", help="The node's ID, as `emix status` shows it there."
)
@as_json
def certify(
    request_file: str, certificate: str, recovery_kit: str, node_text: str | None, json_: bool
) -> None:
    """Renew a node key's certificate where the recovery kit is; no home is needed there.

    This renews only a key that the kit has certified before, of the node that you name with
    --node, since the request may have been swapped on its way. To certify another key, use
    `emix node replace`.

    \b
    Example:
      emix node certify node.request node.certificate --recovery-kit kit.json --node ID
    """
    from node.crypto.signing import node_id
    from node.documents.node_requests import NodeRequest, encode_certificate
    from node.system.safe_paths import absolute, write_file

    asked = NodeRequest.decode(_read(request_file))
    signer = asked.certify(kit_from(recovery_kit).facility_key, time.time())
    cert = signer.verified()
    node = node_id(cert.node_key)
    if node != _node_named(node_text):
        raise UsageError(f"the request is of node {node}, not of the one that you name")
    write_file(Path(certificate), encode_certificate(signer))
    if json_:
        show_json(
            {
                "file": str(absolute(Path(certificate))),
                "node_id": str(node),
                "generation": cert.generation,
                "expires_seconds": cert.expires_seconds,
            }
        )
        return
    print_line(f"Node {node}, whose key is of {show_time(cert.generation)}.")
    print_line(f"The certificate ends {show_time(cert.expires_seconds)}.")
    print_line(f"Wrote {certificate}. At the node: emix node renew --certificate {certificate}")


def _node_named(text: str | None) -> "NodeId":
    """Return the node that a person names, not looking at the request."""
    from node.domain.ids import NodeId

    if text is None:
        if not sys.stdin.isatty():
            raise UsageError("the node's ID is needed (`emix status` at the node): --node ID")
        text = str(click.prompt("Node ID, as `emix status` shows it there"))
    try:
        return NodeId.parse(text)
    except ValueError as exc:
        raise UsageError(f"not a node ID: {exc}") from exc


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def keys(context: click.Context, json_: bool) -> None:
    """Show the node key and its expiry; rotate or destroy other keys.

    \b
    Examples:
      emix keys
      emix keys --json | jq .expires_seconds
    """
    if context.invoked_subcommand is None:
        from node.app.rekeying import key_facts

        facts = key_facts(_home(context))
        _show_key(facts, f"Node key of {show_time(facts.generation)}.", json_=json_)


@keys.command("rotate-epoch")
@passphrase_option
@as_json
@click.pass_context
def rotate_epoch(context: click.Context, passphrase_file: str | None, json_: bool) -> None:
    """Wrap all packages' keys under a new epoch key and destroy the old. Stop the node first.

    Do this once a year, and after staff or a node key was replaced. If it is interrupted, nothing
    is lost: run it again. Backups still contain the keys that were in use when they were made.

    \b
    Example:
      emix keys rotate-epoch
    """
    from node.app.rekeying import rotate_epoch as rotate

    home = _home(context)
    _show_rotated(rotate(home, passphrase_of(home, passphrase_file), _actor()), json_=json_)


@keys.command()
@passphrase_option
@as_json
@click.pass_context
def shred(context: click.Context, passphrase_file: str | None, json_: bool) -> None:
    """Destroy the keys of all deleted data. Stop the node first.

    Until then, anyone with the keyring and an old copy of chunks and database can recover deleted
    data. Afterwards they also need an old copy of the keyring: destroy earlier backups, and mind
    that a disk may keep remnants of replaced files. Copies at other facilities are not affected.

    \b
    Example:
      emix keys shred                                       # after `emix delete`
    """
    from node.app.rekeying import shred as destroy

    home = _home(context)
    _show_rotated(destroy(home, passphrase_of(home, passphrase_file), _actor()), json_=json_)


def _show_rotated(rotated: "Rotated", *, json_: bool) -> None:
    if json_:
        show_json(
            {
                "epoch": rotated.epoch,
                "packages": rotated.packages,
                "destroyed_epochs": list(rotated.destroyed),
            }
        )
        return
    destroyed = ", ".join(map(str, rotated.destroyed))
    print_line(f"{rotated.packages} packages are under epoch {rotated.epoch} now.")
    print_line(f"Destroyed the keys of epochs {destroyed}.")


@keys.command("rotate-seal")
@passphrase_option
@as_json
@click.pass_context
def rotate_seal(context: click.Context, passphrase_file: str | None, json_: bool) -> None:
    """Make a new key to which others seal packages' keys. Stop the node first.

    The old key is kept for 30 days, the longest time that a delivery sealed to it is valid.

    \b
    Example:
      emix keys rotate-seal
    """
    from node.app.rekeying import rotate_seal as rotate

    home = _home(context)
    kept, destroyed = rotate(home, passphrase_of(home, passphrase_file), _actor())
    if json_:
        show_json({"kept": kept, "destroyed": destroyed})
        return
    print_line(f"The seal key is new. {kept} older ones are kept, {destroyed} were destroyed.")


def _actor() -> Actor:
    return at_home(operator())


def _home(context: click.Context) -> "Home":
    from node.app.home import Home

    return Home(home_path(context))


def _read(path: str) -> bytes:
    from node.system.safe_paths import read_file

    try:
        return read_file(Path(path), _MOST_BYTES)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror})") from exc


COMMANDS = (node, keys)
