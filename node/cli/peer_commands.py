"""Commands about other facilities."""

import select
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import node_client, run_call
from node.domain.files import wrong_file
from node.domain.ids import FacilityId
from node.domain.names import find_named
from node.errors import Conflict, DocumentError, UsageError
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    ask,
    clean,
    print_line,
    show_ago,
    show_done,
    show_json,
    show_rate,
    show_table,
    yes_option,
)

_MOST_STATEMENTS_BYTES = 1 << 20


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def peers(context: click.Context, json_: bool) -> None:
    """List paired facilities: state, route, last seen, round-trip time, rate of the last transfer.

    \b
    Examples:
      emix peers
      emix peers --json | jq -r .peers[].display_name
    """
    if context.invoked_subcommand is not None:
        return
    answer = run_call(context, "PeerService.ListPeers", pb.ListPeersRequest())
    if json_:
        show_json(answer)
        return
    show_table(
        (
            Column("FACILITY", least=12),
            Column("ID", least=8),
            "STATE",
            Column("ROUTE", spare=4),
            Column("ENDPOINT", least=12, spare=5),
            "LAST SEEN",
            Column(">RTT ms", spare=6),
            Column(">RATE", spare=7),
            Column("PROBLEM", is_note=True),
            Column("WARNING", is_note=True),
        ),
        [
            (
                p.display_name,
                p.facility_id,
                p.state,
                p.route,
                p.endpoint,
                show_ago(p.last_seen_seconds),
                f"{p.round_trip_milliseconds:.1f}" if p.round_trip_milliseconds else "",
                show_rate(p.bytes_a_second),
                p.problem,
                p.warning,
            )
            for p in answer.peers
        ],
        "No facility is paired yet: `emix peers pair --help`.",
    )
    if answer.waiting_pairings:
        print_line()
        _show_waiting(answer.waiting_pairings)
    if answer.asking_facilities:
        print_line()
        _show_asking(answer.asking_facilities)


def _show_asking(asking: Sequence[pb.AskingFacility]) -> None:
    print_line("These facilities claim to have paired with this one; nobody here has paired")
    print_line("with them, and the claim is not verified. To accept, compare the whole ID by")
    print_line("telephone, then run `emix peers pair FACILITY-ID`.")
    for facility in asking:
        print_line(f"  {facility.display_name!r}, {show_ago(facility.asked_seconds)}")
        print_line(f"    {facility.facility_id}")


def _show_waiting(pairings: Sequence[pb.BeginStringPairingResponse]) -> None:
    show_table(
        ("STRING", "CALLS ITSELF"),
        [(p.short_string, p.display_name) for p in pairings],
        "No pairing waits for confirmation.",
    )
    if pairings:
        print_line("Compare the string by telephone; if it matches: `emix peers confirm STRING`")


@peers.command()
@click.argument("facility", metavar="[FACILITY-ID|./FILE]", required=False)
@click.option("--file", metavar="FILE", help="The file that the facility exported.")
@click.option("--at", metavar="HOST:PORT", help="The address of its introduction service.")
@click.option("--endpoint", metavar="HOST:PORT", help="Its peer service, if at another address.")
@click.option("--restore-removed", is_flag=True, help="Accept a facility that was removed.")
@as_json
@click.pass_context
def pair(
    context: click.Context,
    facility: str | None,
    file: str | None,
    at: str | None,
    endpoint: str | None,
    restore_removed: bool,
    json_: bool,
) -> None:
    """Pair with a facility, by its ID, by its exported file, or by a short string.

    \b
    Examples:
      emix peers pair ABCDEFG-HIJKLMN-...           # who has paired already, or a directory knows
      emix peers pair ABCDEFG-HIJKLMN-... --at imaging.example.org:7411
      emix peers pair --file billings.emix          # from its `emix id --export`
      emix peers pair --at imaging.example.org:7411 # compare eight characters by telephone

    Without --file, an argument is a file only if it contains a /. Both facilities must pair with
    each other before patient data flows. If another paired facility has a name that looks the
    same, the command says so, and on a terminal asks first.
    """
    if facility is not None and file is not None:
        raise UsageError("name a Facility ID or a file, not both")
    if facility is not None and "/" in facility:
        facility, file = None, facility
    if facility is None and file is None:
        if not at:
            raise UsageError("name a Facility ID, a file, or an address with --at")
        answer = run_call(
            context, "PeerService.BeginStringPairing", pb.BeginStringPairingRequest(at=at)
        )
        if json_:
            show_json(answer)
            return
        print_line(f"The node there calls itself {answer.display_name!r} (not verified yet).")
        print_line(f"Both sides now show:  {answer.short_string}")
        print_line("The other side sees it with `emix peers confirm`.")
        print_line("Call a number that you know, compare the string, and if it matches:")
        print_line("  emix peers confirm " + answer.short_string)
        return
    request = pb.PairPeerRequest(
        at=at or "", endpoint=endpoint or "", restore_removed=restore_removed
    )
    for option, address in (("--at", at), ("--endpoint", endpoint)):
        host, _, port = (address or "host:1").rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"{option} must be HOST:PORT, such as imaging.example.org:7411")
    if file is not None:
        request.statements = _statements_in(file)
    elif facility is not None:
        if "." in facility:
            raise UsageError(f"{facility} is not a Facility ID; give a file with --file")
        request.facility_id = facility
    answer = _pair(context, request, asks=not json_ and sys.stdin.isatty())
    answer.peer.CopyFrom(_settled(context, answer.peer))
    if json_:
        show_json(answer)
        return
    peer = answer.peer
    _warn(answer.warnings)
    print_line(f"Paired with {peer.display_name}.")
    print_line(f"Its Facility ID, to be compared by telephone: {peer.facility_id}")
    print_line(_what_is_left(peer))


_SETTLING_SECONDS, _LOOK_SECONDS = 6.0, 0.25


def _settled(context: click.Context, peer: pb.Peer) -> pb.Peer:
    """Return a peer once it is clear whether the other side has paired too, or after a while."""
    until = time.monotonic() + _SETTLING_SECONDS
    found = peer
    with node_client(context) as client:
        while time.monotonic() < until:
            peers = client.call("PeerService.ListPeers", pb.ListPeersRequest()).peers
            mine = [p for p in peers if p.facility_id == peer.facility_id]
            if not mine:
                break
            found = mine[0]
            if found.state in ("connected", "removed") or _NOT_PAIRED in found.problem:
                break
            select.select([], [], [], _LOOK_SECONDS)  # by no clock: see node.rpc.settling
    return found


_NOT_PAIRED = "not paired with this facility"


def _what_is_left(peer: pb.Peer) -> str:
    """Return the next step until studies can be exchanged."""
    if peer.state == "connected":
        return f"It has paired with this facility, too: connected ({peer.route})."
    if _NOT_PAIRED in peer.problem:
        return (
            "It has not paired with this facility yet. Ask it to compare this facility's ID"
            " (`emix id` here, `emix peers` there) and to run `emix peers pair FACILITY-ID`."
        )
    why = f" ({peer.problem})" if peer.problem else ""
    return (
        f"It is not connected yet{why}; this node keeps trying. It must pair with this facility,"
        " too (give it the file of `emix id --export FILE`). `emix peers` shows the state."
    )


def _pair(
    context: click.Context, request: pb.PairPeerRequest, *, asks: bool
) -> pb.PairPeerResponse:
    """Pair; where a person is there to ask, not with a name that looks like another's unasked."""
    request.refuse_alike = asks
    try:
        answer = run_call(context, "PeerService.PairPeer", request)
    except DocumentError as exc:
        if not request.statements:
            raise
        wanted = "what `emix id --export` writes"
        text = wrong_file("the file", request.statements, wanted)
        raise UsageError(f"{text} ({exc})") from exc
    except Conflict as exc:
        if not asks or "looks like" not in str(exc):
            raise
        _warn([str(exc)])
        click.confirm("Pair with it all the same?", abort=True)
        request.refuse_alike = False
        answer = run_call(context, "PeerService.PairPeer", request)
        del answer.warnings[:]  # they were shown
    found: pb.PairPeerResponse = answer
    return found


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print_line(f"WARNING  {warning}", is_error=True)


def _statements_in(file: str) -> bytes:
    try:
        statements = safe_paths.read_file(Path(file), _MOST_STATEMENTS_BYTES)
    except FileNotFoundError as exc:
        raise UsageError(f"{file} does not exist") from exc
    except OSError as exc:
        raise UsageError(f"{file} cannot be read ({exc.strerror})") from exc
    if not statements:
        raise UsageError(f"{file} is empty; ask the facility to export it again")
    return statements


@peers.command()
@click.argument("short_string", required=False)
@as_json
@click.pass_context
def confirm(context: click.Context, short_string: str | None, json_: bool) -> None:
    """Confirm a pairing by short string, or list those that wait.

    \b
    Examples:
      emix peers confirm                          # those that wait
      emix peers confirm K7QM-2XTA                # as the other facility read it out
    """
    if short_string is None:
        waiting = run_call(
            context, "PeerService.ListStringPairings", pb.ListStringPairingsRequest()
        )
        if json_:
            show_json(waiting)
            return
        _show_waiting(waiting.pairings)
        return
    request = pb.ConfirmStringPairingRequest(short_string=short_string)
    answer = run_call(context, "PeerService.ConfirmStringPairing", request)
    if json_:
        show_json(answer)
        return
    peer = _settled(context, answer.peer)
    _warn(answer.warnings)
    print_line(f"Paired with {peer.display_name} ({peer.facility_id}).")
    if peer.state == "connected":
        print_line(_what_is_left(peer))
    else:
        print_line("The other side must confirm the string, too.")


@peers.command()
@click.argument("facility")
@yes_option
@as_json
@click.pass_context
def remove(context: click.Context, facility: str, yes: bool, json_: bool) -> None:
    """Remove a facility for good: its running calls end, new ones are refused.

    Asks first, unless --yes is given. `emix peers pair --restore-removed` accepts it again.

    \b
    Examples:
      emix peers remove "Billings Hospital"
      emix peers remove ABCDEFG-HIJKLMN-... --yes
    """
    with node_client(context) as client:
        peers = client.call("PeerService.ListPeers", pb.ListPeersRequest()).peers
    names = {}
    for peer in peers:
        with suppress(ValueError):  # no ID of ours
            if peer.state != "removed":
                names[FacilityId.parse(peer.facility_id)] = peer.display_name
    one = find_named(names, facility)
    what = f"{clean(names[one])}, Facility ID {one}"
    ask(
        f"Remove {what}? Its running transfers end, and its connections are refused.",
        is_sure=yes,
    )
    request = pb.RemovePeerRequest(facility=str(one))
    peer = run_call(context, "PeerService.RemovePeer", request).peer
    text = f"Removed {peer.display_name}. It keeps the studies that it has received."
    show_done(peer, text, json_=json_)


COMMANDS = (peers,)
