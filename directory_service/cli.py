"""The `emix-directory` command: run a directory, and sign what only its network may sign."""

import shlex
import time
from pathlib import Path
from typing import Any

import click
from emix.directory.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from directory_service.operator import OperatorKey, read_endpoints, signed_list
from directory_service.operator_commands import (
    COMMANDS,
    given_passphrase,
    json_option,
    network_key_option,
    read_key,
)
from node.errors import PeerUnreachable, UsageError
from node.rpc.blocking import open_blocking_channel
from node.rpc.bounds import OWN
from node.rpc.methods import methods
from node.rpc.unix import unix_address
from node.sandbox.confine import hide
from node.system import safe_paths
from node.terminal.commands import EXIT_STATUS, SETTINGS, CommandGroup, home_of
from node.terminal.extras import add_extras
from node.terminal.output import (
    Column,
    Styled,
    print_line,
    show_bytes,
    show_facts,
    show_json,
    show_list_place,
    show_table,
    show_time,
)

DEFAULT_HOME = "~/.emix-directory"
_METHODS = {
    m.name: m for m in methods(pb.DESCRIPTOR.services_by_name["DirectoryAdminService"], answer=OWN)
}


@click.group(cls=CommandGroup, context_settings=SETTINGS, epilog=EXIT_STATUS)
@click.option(
    "--home",
    metavar="DIR",
    envvar="EMIX_DIRECTORY_HOME",
    help=f"The directory's home. [default: {DEFAULT_HOME}, or EMIX_DIRECTORY_HOME]",
)
@click.version_option(package_name="emix", prog_name="emix-directory")
def cli(home: str | None) -> None:
    """Run the directory of a regional network: identity and discovery, no patient data.

    The network's key signs invitations and lists; it stays with the operator, not on the
    directory's machine.

    \b
    Examples:
      emix-directory init --name "Montana Imaging" --network-key /media/usb/montana.key \\
          --endpoint directory.example.org:7420
      emix-directory serve
      emix-directory token create "Great Falls Clinic" --network-key /media/usb/montana.key
      emix-directory list sign --network-key /media/usb/montana.key
    """


@cli.command()
@click.option("--name", required=True, help="The network's name for people.")
@network_key_option
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="HOST:PORT",
    help="The directory's public address; can be repeated. Needed for a new network.",
)
@click.option("--listen", default="0.0.0.0:7420", show_default=True, help="Address to listen on.")
@click.option("--database", default="", metavar="URL", help="postgresql://... [default: embedded]")
@click.option("--relay-listen", default="", metavar="HOST:PORT", help="Also relay at this address.")
@click.option(
    "--relay",
    "relays",
    multiple=True,
    metavar="HOST:PORT",
    help="A relay's public address; can be repeated.",
)
@json_option
@click.pass_context
def init(
    context: click.Context,
    name: str,
    key_file: str,
    endpoints: tuple[str, ...],
    listen: str,
    database: str,
    relay_listen: str,
    relays: tuple[str, ...],
    json_: bool,
) -> None:
    """Make a directory's home, and the network's key file if it does not exist yet.

    With --key-passphrase-file a new key file is encrypted under that passphrase; `key protect`
    sets one later.

    \b
    Example:
      emix-directory init --name "Montana Imaging" --network-key /media/usb/montana.key \\
          --endpoint directory.example.org:7420
    """
    from directory_service.home import Home, make_home

    home, path = Home(_home(context)), safe_paths.absolute(Path(key_file))
    if path.is_relative_to(home.root.absolute()):
        raise UsageError("the network key file must be outside the home: choose another place")
    if relay_listen and not relays:
        raise UsageError("--relay-listen needs the relay's public address: --relay HOST:PORT")
    is_new = not path.exists()
    if is_new:
        key = OperatorKey.new(name, read_endpoints(endpoints), time.time())
    else:
        key = read_key(path)
        if key.name != name or (endpoints and read_endpoints(endpoints) != key.endpoints):
            raise UsageError(
                f"{path} is the key of {key.name!r} at {', '.join(key.endpoints)}: give this --name"
                " and --endpoint, or choose another file for a new network"
            )

    def keep_key() -> None:  # once everything else that was asked for is right
        if is_new:
            key.write(path, given_passphrase())
            if not json_:
                print_line(f"Made the network's key: {path}. Keep it off the directory's machine.")

    make_home(
        home,
        key,
        listen=listen,
        database=database,
        relay_listen=relay_listen,
        relays=read_endpoints(relays) if relays else (),
        signed_list=b"" if is_new else signed_list(path, key, time.time()),
        keep_key=keep_key,
    )
    if json_:
        facts = {"home": str(home.root), "name": key.name, "network_id": str(key.network)}
        show_json({**facts, "network_key": str(path), "is_new_network": is_new})
    else:
        print_line(f"Made a directory in {home.root}.")
        print_line(f"Network ID: {key.network}")
    if is_new and not json_:
        print_line(
            "Next: `emix-directory serve`, then `emix-directory list sign --network-key FILE`."
        )
    if is_new:
        return
    if not relays:
        print_line(
            "WARNING: no --relay was given. If the network had relays, name them in [relay]"
            " addresses of directory.toml, and run `emix-directory renew --network-key FILE` before"
            " you start the directory.",
            is_error=True,
        )
    if not json_:
        print_line("Next: `emix-directory serve`. The network's nodes reconnect by themselves:")
        print_line("`emix-directory facilities` shows those that have not yet.")


@cli.command()
@click.pass_context
def serve(context: click.Context) -> None:
    """Run the directory until it is stopped (Ctrl-C, SIGTERM).

    \b
    Example:
      emix-directory serve
    """
    from directory_service.app import run_directory
    from directory_service.home import Home

    run_directory(Home(_home(context)))


@cli.command()
@network_key_option
@click.option(
    "--all-keys",
    is_flag=True,
    help="Replace the directory's own key, too; stop the directory first.",
)
@json_option
@click.pass_context
def renew(context: click.Context, key_file: str, all_keys: bool, json_: bool) -> None:
    """Make a new TLS key and certificate for the service, used from its next start on.

    Also signs the relays of `[relay] addresses`, so that nodes use them. --all-keys replaces all
    secrets in the home: use it after a break-in, or when somebody who had access leaves.

    \b
    Examples:
      emix-directory renew --network-key /media/usb/montana.key
      emix-directory renew --network-key /media/usb/montana.key --all-keys
    """
    from directory_service import rotation
    from directory_service.home import Home

    home, key = Home(_home(context)), read_key(Path(key_file))
    (rotation.rotate if all_keys else rotation.renew)(home, key)
    if json_:
        show_json({"home": str(home.root), "is_all_keys": all_keys})
        return
    if not all_keys:
        print_line("The certificate is renewed; restart the directory.")
        return
    print_line("All keys are new; start the directory. If there are other processes, stop them and")
    print_line("copy directory.key, ticket.cert, tls.key and tls.pem to their homes first.")


@cli.command()
@json_option
@click.pass_context
def facilities(context: click.Context, json_: bool) -> None:
    """List the facilities that joined, their standing, and how many nodes are online.

    \b
    Examples:
      emix-directory facilities
      emix-directory facilities --json
    """
    found = _call(context, "ListFacilities", pb.ListFacilitiesRequest())
    if json_:
        show_json(found)
        return
    rows = [
        (
            f.name,
            f.facility_id,
            f.standing,
            f"{f.online} of {f.nodes}",
            f.city,
            show_time(f.joined_seconds),
            " ".join(f.software),
        )
        for f in found.facilities
    ]
    columns = (
        Column("FACILITY", least=12),
        Column("ID", least=8),
        "STANDING",
        ">ONLINE",
        Column("CITY", least=6, spare=1),
        "JOINED",
        Column("SOFTWARE", least=8, spare=2),
    )
    show_table(columns, rows, "No facility has joined yet.")


@cli.command()
@json_option
@click.pass_context
def status(context: click.Context, json_: bool) -> None:
    """Show the directory's state and its alarms.

    \b
    Example:
      emix-directory status
    """
    found = _call(context, "GetStatus", pb.GetStatusRequest())
    if json_:
        show_json(found)
        return
    expires = show_time(found.list_expires_seconds) if found.list_number else "-"
    place = show_list_place(found.list_epoch, found.list_number)
    facts = (
        ("network", f"{found.name}  {found.network_id}"),
        ("software", found.software),
        ("running since", show_time(found.started_seconds)),
        ("nodes connect to", found.endpoint),
        ("facilities", found.facilities),
        ("nodes", f"{found.nodes}, {found.online} online"),
        ("list", f"{place or 'none'}, valid until {expires}"),
        ("certificate until", show_time(found.certificate_expires_seconds)),
    )
    show_facts(facts, 17)
    if found.relay_endpoint:
        print_line(f"{'relay':>17}  {found.relay_endpoint}, {found.relay_open_pairs} pairs now")
    for alarm in found.alarms:
        print_line(Styled(f"{'ALARM':>17}  {alarm}", is_bold=True))


@cli.command()
@json_option
@click.pass_context
def acknowledge(context: click.Context, json_: bool) -> None:
    """Acknowledge alarms about refused attempts: `status` no longer shows them, the log does.

    Alarms about a present problem, such as a list that expires, stay until it is fixed.

    \b
    Example:
      emix-directory acknowledge
    """
    found = _call(context, "AcknowledgeAlarms", pb.AcknowledgeAlarmsRequest())
    if json_:
        show_json({"alarms": found.alarms})
    else:
        print_line(f"{found.alarms} alarms acknowledged.")


@cli.group(invoke_without_command=True)
@click.option("--address", metavar="HOST:PORT", help="This relay's public address.")
@click.option("--listen", default="0.0.0.0:7421", show_default=True, help="Address to listen on.")
@click.option("--network", metavar="KEY", help="The network's public key, in base64.")
@click.option(
    "--streams",
    default=16,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Pairs of connections that a facility may have at once.",
)
@click.option(
    "--gib-a-day",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="GiB that a facility may send a day; 0: no limit.",
)
@click.option(
    "--mbit-a-second",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Mbit/s for all pairs, which share it evenly; 0: no limit.",
)
@click.option(
    "--strangers",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Connections from one address without a ticket so far; raise it behind a proxy.",
)
@click.option("--metrics", default="", metavar="HOST:PORT", help="Where to serve metrics.")
@click.pass_context
def relay(
    context: click.Context,
    address: str | None,
    listen: str,
    network: str | None,
    streams: int,
    gib_a_day: int,
    mbit_a_second: int,
    strangers: int,
    metrics: str,
) -> None:
    """Run a relay alone, for a network that trusts this facility: it sees ciphertext only.

    It needs no secret. The network's public key is in directory.toml of the directory; add the
    new relay's address to [relay] addresses there.

    \b
    Examples:
      emix-directory relay --address relay.example.org:7421 --network rLPQ...=
      emix-directory relay status            # of the relay in the directory's own process
    """
    if context.invoked_subcommand is not None:
        return
    from directory_service.app import run_relay
    from directory_service.home import read_network_key
    from directory_service.relay.service import A_MINUTE_OF_STRANGER, Limits

    if not address or not network:
        raise UsageError("--address HOST:PORT and --network KEY are needed")
    (address,) = read_endpoints([address])
    if metrics:
        read_endpoints([metrics])
    limits = Limits(
        streams_of_facility=streams,
        bytes_of_facility=gib_a_day * 2**30,
        bytes_a_second=mbit_a_second * 10**6 // 8,
        unknown_of_address=strangers,
        a_minute_of_address=strangers * A_MINUTE_OF_STRANGER,
    )
    try:
        key = read_network_key(network)
    except ValueError as exc:
        raise UsageError(f"--network must be {exc}") from exc
    run_relay(address, listen, key, limits, metrics)


@relay.command("status")
@json_option
@click.pass_context
def relay_status(context: click.Context, json_: bool) -> None:
    """Show what the relay in the directory's process has done since it started.

    \b
    Example:
      emix-directory relay status
    """
    found = _call(context, "GetStatus", pb.GetStatusRequest())
    figures = {
        "endpoint": found.relay_endpoint,
        "open_pairs": found.relay_open_pairs,
        "pairs": found.relay_pairs,
        "bytes": found.relay_bytes,
        "refused": found.relay_refused,
    }
    if json_:
        show_json(figures)
        return
    if not found.relay_endpoint:
        print_line("This directory runs no relay; see [relay] in directory.toml.")
        return
    for label, value in {**figures, "bytes": show_bytes(found.relay_bytes)}.items():
        print_line(f"{label.replace('_', ' '):>17}  {value}")


def _home(context: click.Context) -> Path:
    home = context.find_root().params.get("home") or DEFAULT_HOME
    return home_of(home, "EMIX_DIRECTORY_HOME")


def _call(context: click.Context, name: str, request: Message) -> Any:
    home = _home(context)
    socket = home / "admin.sock"
    if not (home / "directory.toml").exists():
        raise UsageError(
            f"{home} is not a directory's home; make one with `emix-directory init`, or name it"
            " with --home"
        )
    if not socket.exists():
        serve = f"emix-directory --home {shlex.quote(str(home))} serve"
        start = safe_paths.by_owner(home, serve)
        raise PeerUnreachable(f"no directory runs in {home}; start it: {start}")
    safe_paths.real_folder(home, owner=home.stat().st_uid)  # or another socket could be put there
    address = unix_address(socket.resolve())
    with open_blocking_channel(address, largest_answer=OWN.size) as channel:
        return channel.whole(_METHODS[name], request)


for _command in COMMANDS:
    cli.add_command(_command)
add_extras(cli, "emix-directory")


def main() -> None:
    """Run the command."""
    hide()  # keys and passphrases pass through it
    cli.main(prog_name="emix-directory")
