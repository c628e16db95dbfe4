"""Commands about time: the clock, and retention."""

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.system.clock import shown_seconds
from node.terminal.commands import as_json
from node.terminal.output import Column, print_line, show_json, show_table, show_time

_FATES = {
    "unseen": "kept: nobody viewed it",
    "sending": "kept: it is being sent on",
    "due": "announced next",
    "deleted": "deleted within the hour",
}


@click.group()
def clock() -> None:
    """Confirm this node's clock; `emix doctor` says whether the node trusts it.

    \b
    Example:
      emix clock confirm
    """


@clock.command()
@as_json
@click.pass_context
def confirm(context: click.Context, json_: bool) -> None:
    """Confirm that the clock is right, after `emix doctor` called it suspect.

    If the clock is far from the last time that the node recorded, the node does not trust it until
    another facility agrees or you confirm it: with a wrong clock transfers would expire and
    studies be deleted. Check the clock first.

    \b
    Example:
      emix clock confirm
    """
    answer = run_call(context, "NodeService.ConfirmClock", pb.ConfirmClockRequest())
    if json_:
        show_json(answer)
        return
    ahead = answer.was_ahead_seconds
    if not ahead:
        print_line("The clock is trusted already.")
        return
    where = "ahead of" if ahead > 0 else "behind"
    print_line(
        f"The clock is trusted from now on. It is {shown_seconds(abs(ahead))} {where} what was"
        " known before."
    )


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would be deleted when; delete nothing.")
@as_json
@click.pass_context
def retention(context: click.Context, dry_run: bool, json_: bool) -> None:
    """Run one retention step (`retention_days` in emix.toml), as the node does every hour.

    Older received packages are announced first, and deleted a week later, at most a hundred in a
    step. Packages that nobody has viewed (`emix study`), exported or sent on are kept. Nothing is
    deleted while the clock is suspect.

    \b
    Examples:
      emix retention --dry-run
      emix retention --dry-run --json
      emix retention
    """
    if dry_run:
        preview = run_call(context, "NodeService.PreviewRetention", pb.PreviewRetentionRequest())
        _show_preview(preview, json_)
        return
    answer = run_call(context, "NodeService.ApplyRetention", pb.ApplyRetentionRequest())
    if json_:
        show_json(answer)
    else:
        print_line(f"{answer.announced} packages announced, {answer.deleted} deleted.")


def _show_preview(preview: pb.PreviewRetentionResponse, json_: bool) -> None:
    if json_:
        show_json(preview)
        return
    if not preview.days:
        print_line("Nothing is ever deleted: retention_days in emix.toml is 0.")
        return
    show_table(
        (
            ">NO",
            "RECEIVED",
            Column("FROM", least=9),
            Column("STUDY", least=12, is_middle=True),
            "OUTCOME",
        ),
        [
            (
                f"s{entry.number}",
                show_time(entry.received_seconds),
                entry.received_from,
                entry.study_instance_uid,
                _FATES.get(entry.fate) or f"deleted from {show_time(entry.expiring_seconds)[:10]}",
            )
            for entry in preview.entries
        ],
        f"Nothing that was received is older than {preview.days} days.",
    )
    if preview.suspended:
        print_line(f"Nothing is deleted now: {preview.suspended}.", is_error=True)


COMMANDS = (clock, retention)
