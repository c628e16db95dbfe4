"""Commands about the node itself: id, status, doctor, store, backup."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import node_client, run_call
from node.cli.homes import home_path, passphrase_of
from node.domain.display_text import encodable
from node.domain.ids import ChunkId
from node.errors import StoreError
from node.system import safe_paths
from node.terminal.commands import as_json
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

if TYPE_CHECKING:
    from node.outside.copies import BackupFolder


@click.command("id")
@click.option("--export", "export", metavar="FILE", help="Write the statements for pairing.")
@click.option("--qr/--no-qr", default=None, help="A QR code of the ID. [default: on a terminal]")
@as_json
@click.pass_context
def show_id(context: click.Context, export: str | None, qr: bool | None, json_: bool) -> None:
    """Show this facility's ID; compare it with partners over another channel, such as telephone.

    \b
    Example:
      emix id --export great-falls.emix      # send the file; the partner pairs with it
    """
    answer = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest())
    if export is not None:
        safe_paths.write_file(Path(export), answer.statements, 0o644)
        print_line(f"Wrote {export}; the partner runs `emix peers pair --file`.", is_error=True)
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
    """Show the node's state and its alarms.

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
    """Find problems and say how to fix them. Exit status 1 if there is a problem.

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
    """Check or repair the local store."""


@store.command()
@click.option("--read-data", is_flag=True, help="Also decrypt and check every chunk.")
@as_json
@click.pass_context
def check(context: click.Context, read_data: bool, json_: bool) -> None:
    """Verify the store. Exit status 1 if something is wrong.

    \b
    Examples:
      emix store check
      emix store check --read-data                # opens every chunk; takes its time
    """
    chunks, unopened, problems = 0, 0, list[str]()
    request = pb.CheckStoreRequest(read_data=read_data)
    with node_client(context) as client, client.stream("NodeService.CheckStore", request) as events:
        for event in events:
            if event.HasField("chunks_unopened"):
                unopened = event.chunks_unopened
                continue
            chunks = event.chunks_done
            if event.problem:
                problems.append(event.problem)
                if not json_:
                    print_line(f"PROBLEM  {event.problem}")
    how = "read and opened" if read_data else "looked at"
    text = f"{chunks} chunks {how}, {len(problems)} problems."
    if unopened:
        text += (
            f" {unopened} chunks were not opened since they were sealed: the node opens them by"
            " itself, little by little, or --read-data does it now."
        )
    done = {"chunks": chunks, "problems": problems, "unopened": unopened}
    show_done(done, text, json_=json_)
    if problems:
        raise SystemExit(1)


@store.command("repair")
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the passphrase.")
@as_json
@click.pass_context
def repair_store(context: click.Context, passphrase_file: str | None, json_: bool) -> None:
    """Rebuild a lost database from the envelopes; stop the node first.

    This restores studies, and receipts, which are marked as reissued. It does not restore
    pairings, the audit log and open transfers: pair again with each facility.

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


_HAD_AT_ONCE = 1000


class _BackupGroup(click.Group):
    """Makes `backup DIRECTORY` short for `backup make DIRECTORY`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `make` if the first argument is not a command or --help."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args.insert(0, "make")
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the most common usage."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] DIRECTORY | verify DIRECTORY")


@click.group(cls=_BackupGroup)
def backup() -> None:
    """Write a copy of the whole node, as encrypted as the original, or verify one.

    `emix backup DIRECTORY` is short for `emix backup make DIRECTORY`.

    \b
    Examples:
      emix backup /mnt/backup/emix-2026-11-24
      emix backup --mounted /mnt/backup/emix-2026-11-24
      emix backup --base /mnt/backup/emix-2026-11-24 /mnt/backup/emix-2026-11-25
      emix backup verify /mnt/backup/emix-2026-11-24
    """


@backup.command("make")
@click.argument("directory")
@click.option(
    "--mounted",
    is_flag=True,
    help="Refuse a folder on the disk of the system or of the home.",
)
@click.option(
    "--base",
    metavar="EARLIER",
    help="An earlier backup: its chunks are hard-linked, not written again.",
)
@as_json
@click.pass_context
def make_backup(
    context: click.Context, directory: str, mounted: bool, base: str | None, json_: bool
) -> None:
    """Write a copy of the whole node, as encrypted as the original, while it runs.

    The command writes it, as the user who runs it. DIRECTORY must be new or empty, and its parent
    must exist. If interrupted, it leaves nothing behind. Exit status 1 if a file of the node could
    not be read or was damaged already: that file is named, and all others are written.

    With --base only new chunks are written: chunks never change. Either backup may be deleted. A
    linked chunk is on the disk once, and is not read: if it is damaged in the earlier backup, it
    is damaged in this one. `emix backup verify` reads all chunks.

    \b
    Examples:
      emix backup /mnt/backup/emix-2026-11-24
      emix backup --mounted /mnt/backup/emix-2026-11-24 --json
      emix backup --base /mnt/backup/emix-2026-11-24 /mnt/backup/emix-2026-11-25
    """
    from node.outside.copies import BackupFolder, read_base

    home, target = home_path(context), safe_paths.absolute(Path(directory))
    earlier = None if base is None else read_base(safe_paths.absolute(Path(base)))
    requests = [pb.BackupRequest(destination=encodable(str(target)))]
    had = [] if earlier is None else earlier.chunks
    for i in range(0, len(had), _HAD_AT_ONCE):
        digests = [chunk_id.digest for chunk_id in had[i : i + _HAD_AT_ONCE]]
        requests.append(pb.BackupRequest(had_chunks=digests))
    unreadable: list[pb.BackupUnreadable] = []
    try:
        with (
            node_client(context) as client,
            BackupFolder(target, home, is_elsewhere=mounted, base=earlier) as folder,
            ProgressBar("writing") as bar,
            client.stream("NodeService.Backup", requests) as events,
        ):
            _receive_backup(events, folder, unreadable, bar)
            folder.finish()
    except KeyboardInterrupt:
        print_error("interrupted; the partial backup was removed")
        raise SystemExit(130) from None
    if json_:
        show_json(
            {
                "directory": str(target),
                "files": len(folder.files),
                "bytes": folder.total_bytes,
                "linked": folder.linked,
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
        if base is not None:
            print_line(f"{folder.linked} of them are links to files of {base}.")
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
    """Write the backup that the node sends; `StoreError` if it is not complete."""
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
            case "had":
                for digest in event.had.chunks:
                    folder.keep(ChunkId(digest))
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
    """Read every file of a backup and name those that are missing or damaged.

    It needs no node and no key. Exit status 1 if something is missing or damaged.

    \b
    Example:
      emix backup verify /mnt/backup/emix-2026-11-24
    """
    from node.outside.copies import read_inventory, verify

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


COMMANDS = (show_id, status, doctor, store, backup)
