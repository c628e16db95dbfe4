"""Commands about the node's keys: replacing and renewing the node key, rotating, shredding.

All of them work on a home in which no node runs.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.client import operator
from node.cli.homes import home_path, kit_from, passphrase_of
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
    help="You have looked: this machine's clock is right, though the node doubts it.",
)


@node.command()
@kit_option
@_clock_is_right
@as_json
@click.pass_context
def replace(context: click.Context, recovery_kit: str, clock_is_right: bool, json_: bool) -> None:
    """Make a new node key, if the old one was or may have been stolen. The node must not run.

    Peers and directories refuse the old key once they have seen the new one, which the node
    presents at its next start. Documents that the old key signed before stay verifiable. A thief
    of the old keys may have read the store: rotate the epoch, too, and set another passphrase.

    \b
    Examples:
      emix node replace --recovery-kit /media/usb/kit.json
      emix node replace --recovery-kit kit.json --json      # then keys rotate-epoch, passphrase
    """
    from node.app.rekeying import replace_node

    home = _home(context)
    kit = kit_from(recovery_kit)
    facts = replace_node(home, kit, _actor(), is_clock_right=clock_is_right)
    text = "The node has a new key. Start it with `emix serve`: it tells its peers by itself."
    _show_key(facts, text, json_=json_)


@node.command()
@click.option("--recovery-kit", metavar="FILE", help="The facility's recovery kit.")
@click.option("--certificate", metavar="FILE", help="Instead, what `emix node certify` wrote.")
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
    """Renew the node key's certificate, which stands for 400 days. The node must not run.

    With the recovery kit here, or, where it stays offline, with a certificate made there: see
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
    _show_key(facts, "The node's certificate was renewed. Start it: `emix serve`.", json_=json_)


@node.command()
@click.argument("file")
@passphrase_option
@as_json
@click.pass_context
def request(context: click.Context, file: str, passphrase_file: str | None, json_: bool) -> None:
    """Write a request for a new certificate, to be taken to the recovery kit. It holds no secret.

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

    Only for a key that this kit has certified before, and for the node that you name: the request
    may have been swapped on its way. Another key is certified by `emix node replace` alone.

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
            raise UsageError("say which node it is, as `emix status` shows it there: --node ID")
        text = str(click.prompt("Node ID, as `emix status` shows it there"))
    try:
        return NodeId.parse(text)
    except ValueError as exc:
        raise UsageError(f"not a node ID: {exc}") from exc


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def keys(context: click.Context, json_: bool) -> None:
    """Show which node key there is and how long it stands; rotate and destroy others.

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
    """Wrap all packages' keys under a new epoch key and destroy the old. The node must not run.

    Once a year, and after staff or a node key was replaced. Cut off, it loses nothing: run it
    again. Backups hold the keys of their time.

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
    """Destroy the keys of everything that was deleted. The node must not run.

    Before that, anyone with the keyring and an old copy of chunks and database can restore deleted
    studies. Afterwards only old copies of the keyring allow that: destroy earlier backups, and
    remember that a disk may keep the contents of replaced files. Other facilities keep what they
    have received.

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
    """Make a new key to which others seal packages' keys. The node must not run.

    The last one is kept for 30 days: so long a delivery can stand that was sealed to it.

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
