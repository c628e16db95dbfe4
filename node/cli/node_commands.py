"""Commands about the node itself: init, serve, id, status, doctor, store, backup, restore."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import DEFAULT_HOME, home_path, node_client, run_call
from node.domain.display_text import encodable
from node.errors import KeysError, StoreError, UsageError
from node.system import safe_paths
from node.terminal.output import (
    ProgressBar,
    Styled,
    as_dict,
    print_error,
    print_line,
    show_bytes,
    show_done,
    show_facts,
    show_json,
    show_time,
)
from node.terminal.passphrases import passphrase_in, prompted

if TYPE_CHECKING:
    from node.app.home import Home
    from node.crypto.keyring import RecoveryKit
    from node.store.copies import BackupFolder

_MOST_SECRET_BYTES = 64 * 1024

as_json = click.option("--json", "json_", is_flag=True, help="JSON for machines.")


@click.command()
@click.option("--name", required=True, help="The facility's name, as others see it.")
@click.option(
    "--recovery-kit",
    required=True,
    metavar="FILE",
    help="Where to write the recovery kit: outside the home, to be kept offline.",
)
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the passphrase.")
@click.option("--host-key", is_flag=True, help="No passphrase: a key file in the home unlocks it.")
@click.option("--peer-listen", default="0.0.0.0:7410", show_default=True, metavar="HOST:PORT")
@click.option(
    "--introduction-listen", default="0.0.0.0:7411", show_default=True, metavar="HOST:PORT"
)
@click.option(
    "--chunks",
    default="",
    metavar="PLACE",
    help="Keep chunks in an object store: s3://BUCKET/PREFIX?endpoint=URL&region=NAME",
)
@click.option(
    "--chunks-credentials", metavar="FILE", help="Credentials for it, for this user alone."
)
@as_json
@click.pass_context
def init(
    context: click.Context,
    name: str,
    recovery_kit: str,
    passphrase_file: str | None,
    host_key: bool,
    peer_listen: str,
    introduction_listen: str,
    chunks: str,
    chunks_credentials: str | None,
    json_: bool,
) -> None:
    """Make a new node: keys, encrypted store, configuration.

    With --chunks the sealed chunks are kept in an object store that speaks S3, under a prefix
    that no other node has; the home keeps all else. Credentials are in a file as AWS's tools
    write it, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine has a role.

    \b
    Examples:
      emix --home /srv/emix init --name "Great Falls Clinic" --recovery-kit /media/usb/kit.json
      emix init --name "Great Falls Clinic" --recovery-kit /media/usb/kit.json \\
        --chunks 's3://imaging/great-falls?endpoint=https://s3.example.org' \\
        --chunks-credentials /etc/emix/s3-credentials
    """
    from node.app.home import Home, NewNode, make_home
    from node.app.opening import claim_place

    home = Home(home_path(context))
    passphrase = passphrase_in(passphrase_file)
    if host_key and passphrase is not None:
        raise UsageError("choose either --host-key or --passphrase-file")
    if not host_key and passphrase is None:
        say = UsageError("say how to unlock: --passphrase-file FILE or --host-key")
        passphrase = prompted("Passphrase", say, is_new=True)
    signer = make_home(
        home,
        NewNode(
            display_name=name,
            recovery_kit=Path(recovery_kit),
            passphrase=passphrase,
            peer_listen=peer_listen,
            introduction_listen=introduction_listen,
            chunks=chunks,
            chunks_credentials=(
                str(safe_paths.absolute(Path(chunks_credentials))) if chunks_credentials else ""
            ),
        ),
        partial(claim_place, home),
    )
    if json_:
        facts = {"home": home.root.absolute(), "recovery_kit": Path(recovery_kit).absolute()}
        show_json(
            {
                "facility_id": str(signer.facility_id),
                **{name: str(path) for name, path in facts.items()},
            }
        )
        return
    print_line(f"Made a node in {home.root}.")
    print_line(f"Facility ID: {signer.facility_id}")
    print_line(f"Keep {recovery_kit} offline: it recovers the keys and speaks for the facility.")
    print_line(f"Next: look at {home.config}, then `{_command(home.root)} serve`.")


@click.command()
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the passphrase.")
@click.pass_context
def serve(context: click.Context, passphrase_file: str | None) -> None:
    """Run the node until it is stopped (Ctrl-C, SIGTERM).

    \b
    Examples:
      emix serve                                  # asks for the passphrase
      emix serve --passphrase-file /run/credentials/emix.service/passphrase
    """
    from node.app.home import Home
    from node.app.node import run_node

    home = Home(home_path(context))
    run_node(home, passphrase_of(home, passphrase_file))


def passphrase_of(home: "Home", file: str | None) -> bytes | None:
    """Return the passphrase from a file or the prompt; None where a host key serves."""
    from node.app.home import needs_passphrase

    passphrase = passphrase_in(file)
    if passphrase is None and home.keyring.exists() and needs_passphrase(home):
        needed = KeysError("a passphrase is needed: --passphrase-file FILE, or at the prompt")
        passphrase = prompted("Passphrase", needed)
    return passphrase


@click.command()
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the present passphrase.")
@click.option("--recovery-kit", metavar="FILE", help="Instead, where the passphrase is lost.")
@click.option("--new-passphrase-file", metavar="FILE", help="A file that holds the new passphrase.")
@as_json
@click.pass_context
def passphrase(
    context: click.Context,
    passphrase_file: str | None,
    recovery_kit: str | None,
    new_passphrase_file: str | None,
    json_: bool,
) -> None:
    """Set a new passphrase; the node must not run.

    From then on only it and the recovery kit open the node: a host key is deleted. Copies of
    the home that were made before still open as they did.

    \b
    Examples:
      emix passphrase
      emix passphrase --recovery-kit /media/usb/kit.json      # the old one is lost
    """
    from node.app.home import Home, set_passphrase, unlock_root_key

    home = Home(home_path(context))
    with home.locked():
        kit = _kit_from(recovery_kit)
        old = passphrase_of(home, passphrase_file) if kit is None else None
        root_key = unlock_root_key(home, old, kit)
        new = passphrase_in(new_passphrase_file)
        if new is None:
            say = UsageError("say the new one: --new-passphrase-file FILE")
            new = prompted("New passphrase", say, is_new=True)
        set_passphrase(home, root_key, new)
    text = "The new passphrase is set. Start the node with `emix serve`."
    show_done({"home": str(home.root.absolute())}, text, json_=json_)


def _command(home: Path) -> str:
    """Return how commands for a home begin: with --home, where it is not the usual one."""
    is_usual = False
    with suppress(RuntimeError):  # a user without a home directory has no usual one
        is_usual = home.absolute() == Path(DEFAULT_HOME).expanduser()
    return "emix" if is_usual else shlex.join(["emix", "--home", str(home)])


def _kit_from(path: str | None) -> "RecoveryKit | None":
    return None if path is None else kit_from(path)


def kit_from(path: str) -> "RecoveryKit":
    """Return the recovery kit in a file; `UsageError` or `KeysError` if it is none."""
    from node.crypto.keyring import RecoveryKit

    try:
        return RecoveryKit.decode(safe_paths.read_file(Path(path), _MOST_SECRET_BYTES))
    except OSError as exc:
        raise UsageError(f"{path} cannot be read as a recovery kit ({exc.strerror})") from exc


@click.command("id")
@click.option("--export", "export", metavar="FILE", help="Write the statements for pairing.")
@click.option("--qr/--no-qr", default=None, help="A QR code of the ID. [default: on a terminal]")
@as_json
@click.pass_context
def show_id(context: click.Context, export: str | None, qr: bool | None, json_: bool) -> None:
    """Show this facility's ID: compare it with partners out of band.

    \b
    Example:
      emix id --export great-falls.emix      # send the file; the partner pairs with it
    """
    answer = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest())
    if export is not None:
        safe_paths.write_file(Path(export), answer.statements, 0o644)
        print_line(f"Statements written to {export}; the partner pairs with them.", is_error=True)
    if json_:
        show_json({"facility_id": answer.facility_id})
        return
    print_line(answer.facility_id)
    if qr or (qr is None and sys.stdout.isatty()):
        import segno

        segno.make(answer.facility_id, micro=False).terminal(compact=True)


@click.command()
@as_json
@click.pass_context
def status(context: click.Context, json_: bool) -> None:
    """Show how the node fares, and what an admin should know now.

    \b
    Examples:
      emix status
      emix status --json | jq .alarms
    """
    answer = run_call(context, "NodeService.GetStatus", pb.GetStatusRequest())
    if json_:
        show_json(answer)
        return
    rows = [
        ("facility", f"{answer.display_name}  {answer.facility_id}"),
        ("node", answer.node_id),
        ("software", answer.software),
        ("running since", show_time(answer.started_seconds)),
        ("peer service", answer.peer_endpoint),
        ("introduction", answer.introduction_endpoint),
        ("studies", f"{answer.studies} ({answer.instances} instances)"),
        ("store", f"{show_bytes(answer.sealed_bytes)}, {_room(answer)}"),
        ("open transfers", answer.open_transfers),
        ("held", f"{answer.held_instances} instances, {answer.held_offers} offers"),
    ]
    if answer.waiting_pairings:
        rows.append(("pairing", f"{answer.waiting_pairings} wait here: `emix peers confirm`"))
    if answer.asking_facilities:
        several = answer.asking_facilities > 1
        who = f"{answer.asking_facilities} {'facilities wait' if several else 'facility waits'}"
        text = f"{who} for this one to pair as well: `emix peers`"
        rows.append(("pairing", text))
    if answer.unfinished_imports:
        text = f"{answer.unfinished_imports} not finished; `emix imports` lists them"
        rows.append(("imports", text))
    show_facts(rows, 15)
    for alarm in answer.alarms:
        print_line(Styled(f"{'ALARM':>15}  {alarm}", "red"))


def _room(answer: pb.GetStatusResponse) -> str:
    if answer.chunk_place:
        return f"in {answer.chunk_place}"
    return f"{show_bytes(answer.free_bytes)} free"


@click.command()
@as_json
@click.pass_context
def doctor(context: click.Context, json_: bool) -> None:
    """Look for what is wrong and say what to do. Exit status 1 if there is a problem.

    \b
    Example:
      emix doctor || mail -s "emix needs somebody" imaging-it < /dev/null
    """
    answer = run_call(context, "NodeService.Diagnose", pb.DiagnoseRequest())
    if json_:
        show_json(answer)
    else:
        for finding in answer.findings:
            colour = {"ok": "green", "warning": "yellow", "problem": "red"}.get(finding.level)
            print_line(
                Styled(f"{finding.level:>8}", colour), f"  {finding.subject}: {finding.text}"
            )
            if finding.advice:
                print_line(f"{'':>8}  -> {finding.advice}")
    if any(finding.level == "problem" for finding in answer.findings):
        raise SystemExit(1)


@click.group()
def store() -> None:
    """Look after the local store."""


@store.command()
@click.option("--read-data", is_flag=True, help="Open every chunk too.")
@as_json
@click.pass_context
def check(context: click.Context, read_data: bool, json_: bool) -> None:
    """Verify the store. Exit status 1 if something is wrong.

    \b
    Examples:
      emix store check
      emix store check --read-data                # opens every chunk; takes its time
    """
    chunks, problems = 0, list[str]()
    request = pb.CheckStoreRequest(read_data=read_data)
    with node_client(context) as client, client.stream("NodeService.CheckStore", request) as events:
        for event in events:
            chunks = event.chunks_done
            if event.problem:
                problems.append(event.problem)
                if not json_:
                    print_line(f"PROBLEM  {event.problem}")
    how = "read and opened" if read_data else "looked at"
    text = f"{chunks} chunks {how}, {len(problems)} problems."
    show_done({"chunks": chunks, "problems": problems}, text, json_=json_)
    if problems:
        raise SystemExit(1)


@store.command("repair")
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the passphrase.")
@as_json
@click.pass_context
def repair_store(context: click.Context, passphrase_file: str | None, json_: bool) -> None:
    """Rebuild a lost database from the envelopes; the node must not run.

    Studies and receipts come back (receipts say that they were reissued). Pairings, the audit
    log, and what was on its way do not: pair again with each facility.

    \b
    Example:
      emix store repair
    """
    from node.app.home import Home
    from node.app.repairing import repair_home

    home = Home(home_path(context))
    repaired = repair_home(home, passphrase_of(home, passphrase_file))
    odd = [found for found in repaired if found.problem or found.missing_chunks]
    problems = [
        {
            "package": found.name,
            "problem": found.problem or f"{found.missing_chunks} chunks are missing",
        }
        for found in odd
    ]
    for one in () if json_ else problems:
        print_line(f"PROBLEM  {one['package']}: {one['problem']}")
    text = f"{len(repaired)} packages without rows, {len(repaired) - len(odd)} repaired whole."
    show_done({"packages": len(repaired), "problems": problems}, text, json_=json_)
    if problems:
        raise SystemExit(1)


class _BackupGroup(click.Group):
    """`backup DIRECTORY` makes one: what is not the name of another command is a folder."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the command that is meant."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args.insert(0, "make")
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say how it is used most."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] DIRECTORY | verify DIRECTORY")


@click.group(cls=_BackupGroup)
def backup() -> None:
    """Write a copy of the whole node, as encrypted as the original, or verify one.

    `emix backup DIRECTORY` is short for `emix backup make DIRECTORY`.

    \b
    Examples:
      emix backup /mnt/backup/emix-2026-11-24
      emix backup --mounted /mnt/backup/emix-2026-11-24
      emix backup verify /mnt/backup/emix-2026-11-24
    """


@backup.command("make")
@click.argument("directory")
@click.option(
    "--mounted",
    is_flag=True,
    help="Only onto a disk of its own: not where the disk for backups is not mounted.",
)
@as_json
@click.pass_context
def make_backup(context: click.Context, directory: str, mounted: bool, json_: bool) -> None:
    """Write a copy of the whole node, as encrypted as the original, while it runs.

    The command writes it, as the user who runs it; the folder is new, or empty, and what it lies
    in is there already. Interrupted, it leaves nothing. Exit status 1 if a file of the node could
    not be read or was damaged already: it is named, and the rest is there.

    \b
    Examples:
      emix backup /mnt/backup/emix-2026-11-24
      emix backup --mounted /mnt/backup/emix-2026-11-24 --json
    """
    from node.store.copies import BackupFolder

    home, target = home_path(context), safe_paths.absolute(Path(directory))
    request = pb.BackupRequest(destination=encodable(str(target)))
    unreadable: list[pb.BackupUnreadable] = []
    try:
        with (
            node_client(context) as client,
            BackupFolder(target, home, is_elsewhere=mounted) as folder,
            ProgressBar("writing") as bar,
            client.stream("NodeService.Backup", request) as events,
        ):
            _receive_backup(events, folder, unreadable, bar)
            folder.finish()
    except KeyboardInterrupt:
        print_error("interrupted; nothing of the backup was left")
        raise SystemExit(130) from None
    if json_:
        show_json(
            {
                "directory": str(target),
                "files": len(folder.files),
                "bytes": folder.total_bytes,
                "damaged": folder.damaged,
                "unreadable": [as_dict(found) for found in unreadable],
            }
        )
    else:
        for found in unreadable:
            print_line(f"PROBLEM  {found.name}: {found.reason}")
        for name in folder.damaged:
            print_line(f"PROBLEM  {name}: it is damaged in the node")
        print_line(f"{len(folder.files)} files, {show_bytes(folder.total_bytes)} in {directory}.")
        if unreadable or folder.damaged:
            print_line("See `emix store check --read-data` for what is damaged.")
    if unreadable or folder.damaged:
        raise SystemExit(1)


def _receive_backup(
    events: Iterator[pb.BackupResponse],
    folder: "BackupFolder",
    unreadable: list[pb.BackupUnreadable],
    bar: ProgressBar,
) -> None:
    """Write what a node sends of a backup; `StoreError` if that is not all of it."""
    total = done = 0
    sent: int | None = None
    for event in events:
        match event.WhichOneof("event"):
            case "size":
                total = event.size.bytes
                folder.check_room(total, event.size.files)
            case "piece":
                folder.add(event.piece.name, event.piece.data)
                done += len(event.piece.data)
                bar.update(done, max(done, total))
            case "unreadable":
                unreadable.append(event.unreadable)
            case "end":
                sent = event.end.files
    folder.end_file()
    if sent != len(folder.files):
        raise StoreError("the node did not send the whole backup; try again")


@backup.command("verify")
@click.argument("directory")
@as_json
def verify_backup(directory: str, json_: bool) -> None:
    """Read every file of a backup and say what is not as it was written.

    It needs no node and no key. Exit status 1 if something is missing or damaged.

    \b
    Example:
      emix backup verify /mnt/backup/emix-2026-11-24
    """
    from node.store.copies import read_inventory, verify

    source = safe_paths.absolute(Path(directory))
    files = read_inventory(source)
    total = sum(listed.size_bytes for listed in files.values())
    with ProgressBar("reading") as bar:
        problems = list(verify(source, files, lambda done: bar.update(done, total)))
    if json_:
        found = [{"file": problem.name, "problem": problem.what} for problem in problems]
        show_json(
            {"directory": str(source), "files": len(files), "bytes": total, "problems": found}
        )
    else:
        for problem in problems:
            print_line(f"PROBLEM  {problem.name} {problem.what}")
        print_line(f"{len(files)} files, {show_bytes(total)}, {len(problems)} problems.")
    if problems:
        raise SystemExit(1)


@click.command()
@click.argument("directory")
@click.option(
    "--recovery-kit", metavar="FILE", help="Makes a new host key, where no passphrase was set."
)
@click.option("--incomplete", is_flag=True, help="Restore what is left of a damaged backup.")
@as_json
@click.pass_context
def restore(
    context: click.Context,
    directory: str,
    recovery_kit: str | None,
    incomplete: bool,
    json_: bool,
) -> None:
    """Make the home from a backup (on a new machine, say). The old node must not run any more.

    The home is a folder that is there and empty (a disk may be mounted on it), or a new one. A
    backup that lacks a part is refused before anything is written; --incomplete takes what is
    left, and exits with 1. A backup never holds the host key: of a node without a passphrase,
    restore with its recovery kit.

    \b
    Examples:
      emix --home /srv/emix restore /mnt/backup/emix-2026-11-24
      emix restore /mnt/backup/emix-2026-11-24 --recovery-kit /media/usb/kit.json
    """
    from node.app.home import Home
    from node.app.restoring import restore_home

    source, home = (
        safe_paths.absolute(Path(directory)),
        Home(safe_paths.absolute(home_path(context))),
    )
    with ProgressBar("restoring") as bar:
        restored = restore_home(
            source, home, _kit_from(recovery_kit), takes_incomplete=incomplete, tell=bar.update
        )
    if json_:
        missing = [{"file": problem.name, "problem": problem.what} for problem in restored.missing]
        show_json(
            {
                "home": str(home.root),
                "files": restored.files,
                "bytes": restored.bytes,
                "missing": missing,
            }
        )
    else:
        for problem in restored.missing:
            print_line(f"PROBLEM  {problem.name} {problem.what}")
        print_line(f"{restored.files} files, {show_bytes(restored.bytes)} in {home.root}.")
        start = _command(home.root)
        print_line(f"Next: `{start} serve`, then `{start} store check`.")
    if restored.missing:
        raise SystemExit(1)


COMMANDS = (init, serve, passphrase, show_id, status, doctor, store, backup, restore)
