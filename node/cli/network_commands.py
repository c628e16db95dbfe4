"""Commands about networks that share a directory: join, networks, find."""

import sys
from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.domain.display_text import plain_text
from node.errors import UsageError
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    print_line,
    show_done,
    show_json,
    show_list_place,
    show_table,
    show_time,
)

_MOST_LETTER_BYTES = 32 * 1024


@click.command()
@click.argument("letter", metavar="LETTER|FILE|-")
@as_json
@click.pass_context
def join(context: click.Context, letter: str, json_: bool) -> None:
    """Join a network with the letter that its operator sent; it works once.

    The letter is a secret until it is used: give it as a file, or as - for standard input.

    \b
    Examples:
      emix join letter.txt
      emix join -                            # paste it, then Ctrl-D
    """
    text = letter
    if letter == "-":
        text = _text(sys.stdin.buffer.read(_MOST_LETTER_BYTES))
    elif not letter.startswith("emix-join-"):
        try:
            text = _text(safe_paths.read_file(Path(letter), _MOST_LETTER_BYTES))
        except OSError as exc:
            raise UsageError(f"{letter} is neither a readable file nor a join letter") from exc
    request = pb.JoinNetworkRequest(letter=text)
    network = run_call(context, "NetworkService.JoinNetwork", request).network
    if json_:
        show_json(network)
        return
    print_line(f"Joined {network.name}.")
    print_line("Its operator confirms it with the next signed list; see `emix networks`.")


def _text(data: bytes) -> str:
    try:
        return plain_text(data)
    except ValueError as exc:
        raise UsageError("that is not a join letter: it is not text") from exc


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def networks(context: click.Context, json_: bool) -> None:
    """List the networks that this facility has joined, and its standing in each.

    \b
    Examples:
      emix networks
      emix networks --json
    """
    if context.invoked_subcommand is not None:
        return
    answer = run_call(context, "NetworkService.ListNetworks", pb.ListNetworksRequest())
    if json_:
        show_json(answer)
        return
    columns = (
        Column("NETWORK", least=12),
        "STANDING",
        Column(">LIST", spare=5),
        Column("VALID UNTIL", spare=3),
        Column(">MEMBERS", spare=4),
        Column("DIRECTORY", least=16),
        Column("PROBLEM", is_note=True),
    )
    rows = [
        (
            n.name,
            n.standing,
            show_list_place(n.list_epoch, n.list_number),
            show_time(n.list_expires_seconds) if n.list_number else "",
            n.members,
            f"{n.state} {n.endpoint}",
            n.problem,
        )
        for n in answer.networks
    ]
    show_table(columns, rows, "No network is joined: `emix join --help`.")


@networks.command()
@click.argument("network")
@as_json
@click.pass_context
def leave(context: click.Context, network: str, json_: bool) -> None:
    """Leave a network; facilities that are paired stay paired.

    \b
    Example:
      emix networks leave "Montana Imaging"
    """
    request = pb.LeaveNetworkRequest(network=network)
    left = run_call(context, "NetworkService.LeaveNetwork", request).network
    text = f"Left {left.name}. Its operator can revoke the membership too."
    show_done(left, text, json_=json_)


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@as_json
@click.pass_context
def find(context: click.Context, words: tuple[str, ...], limit: int, json_: bool) -> None:
    """Find facilities of the networks by name, city or department; tolerates typing errors.

    If a node or its directory is offline, its facility is found if it was seen within 30 days.

    \b
    Examples:
      emix find great falls
      emix find "billings mr"
    """
    request = pb.FindFacilitiesRequest(words=" ".join(words), limit=limit)
    answer = run_call(context, "NetworkService.FindFacilities", request)
    if json_:
        show_json(answer)
        return
    rows = [
        (
            f.listed_name,
            f.display_name if f.display_name != f.listed_name else "",
            f.city,
            " ".join(f.departments),
            _presence(f),
            "paired" if f.paired else f.standing,
            f.facility_id,
        )
        for f in answer.facilities
    ]
    columns = (
        Column("FACILITY", least=14),
        Column("CALLS ITSELF", least=12, spare=3),
        Column("CITY", least=8, spare=5),
        Column("DEPARTMENTS", least=8, spare=6),
        Column("NODE", least=7),
        "STANDING",
        # Whole: to pair with it, and to compare.
        Column("FACILITY ID", is_note=True),
    )
    show_table(columns, rows, "No facility matches.")
    if answer.silent_networks:
        names = ", ".join(answer.silent_networks)
        print_line(
            f"The directory of {names} does not answer (`emix networks` says why): what it showed"
            " before is listed, with when.",
            is_error=True,
        )


def _presence(facility: pb.FoundFacility) -> str:
    if facility.seen_seconds:
        return f"seen {show_time(facility.seen_seconds)}"
    return "online" if facility.online else "offline"


COMMANDS = (join, networks, find)
