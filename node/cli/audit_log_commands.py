"""Commands about the audit log."""

import time
from datetime import datetime
from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import run_call
from node.cli.verifying import VerifyReport
from node.domain.audit_kinds import KINDS
from node.errors import UsageError
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    as_dict,
    print_line,
    show_done,
    show_json,
    show_table,
    show_time,
)

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"])


@click.group(invoke_without_command=True)
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(0, 2**31),
    help="How many entries; 0 for all.",
)
@click.option("--alarms", is_flag=True, help="Only alarms that nobody has acknowledged.")
@click.option(
    "--study",
    default="",
    metavar="STUDY",
    help="A study, or the beginning of UIDs; includes deleted studies.",
)
@click.option("--peer", default="", metavar="FACILITY", help="A facility's name or ID.")
@click.option("--operator", default="", metavar="USER", help="A user's name or number.")
@click.option(
    "--action",
    default="",
    metavar="KIND",
    help="A kind of entry, or its beginning; see `emix audit kinds`.",
)
@click.option("--since", type=_MOMENT, help="From this day or time on (local).")
@click.option("--until", type=_MOMENT, help="Before this day or time (local).")
@as_json
@click.pass_context
def audit(
    context: click.Context,
    limit: int,
    alarms: bool,
    study: str,
    peer: str,
    operator: str,
    action: str,
    since: datetime | None,
    until: datetime | None,
    json_: bool,
) -> None:
    """List the audit log's latest entries, all or those that match the options.

    \b
    Examples:
      emix audit
      emix audit --alarms
      emix audit --study s12
      emix audit --study 1.2.840.113619.2 --action study.exported
      emix audit --peer "Billings Hospital" --since 2026-11-01 --json
      emix audit --operator alice --since "2026-11-24 15:00"
    """
    if context.invoked_subcommand is not None:
        return
    request = pb.ListAuditRequest(
        limit=limit,
        open_alarms=alarms,
        study=study,
        peer=peer,
        operator=operator,
        kind=action,
        since_milliseconds=_milliseconds(since),
        until_milliseconds=_milliseconds(until),
    )
    answer = _audit_entries(context, request)
    if json_:
        show_json(answer)
        return
    empty = "No alarm is open." if alarms else "The audit log has no such entry."
    _show_audit(answer, empty)


def _milliseconds(moment: datetime | None) -> int:
    return int(moment.astimezone().timestamp() * 1000) if moment else 0


def _audit_entries(context: click.Context, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
    answer: pb.ListAuditResponse = run_call(context, "AuditService.ListAudit", request)
    return answer


def _show_audit(answer: pb.ListAuditResponse, empty: str) -> None:
    show_table(
        (">NO", "TIME", "WHAT", Column("BY", least=10), Column("FACTS", is_note=True)),
        [
            (e.sequence, show_time(e.time_milliseconds // 1000), e.kind, e.operator, e.body)
            for e in answer.entries
        ],
        empty,
    )


@audit.command()
@as_json
def kinds(json_: bool) -> None:
    """List the kinds of entries: what `--action` takes, and what the audit log records.

    \b
    Examples:
      emix audit kinds
      emix audit kinds --json
    """
    if json_:
        show_json({"kinds": dict(KINDS)})
    else:
        show_table(("KIND", Column("MEANS", is_note=True)), list(KINDS.items()), "")


@audit.command()
@as_json
@click.pass_context
def acknowledge(context: click.Context, json_: bool) -> None:
    """Show the open alarms, and record that you have seen them: `emix status` omits them then.

    They stay in the audit log. An alarm that is raised again is shown again.

    \b
    Example:
      emix audit acknowledge
    """
    answer = _audit_entries(context, pb.ListAuditRequest(open_alarms=True))
    if not json_:
        _show_audit(answer, "No alarm is open.")
    done = pb.AcknowledgeAlarmsResponse()
    if answer.entries:
        request = pb.AcknowledgeAlarmsRequest(through_sequence=answer.entries[-1].sequence)
        done = run_call(context, "AuditService.AcknowledgeAlarms", request)
    if json_:
        show_json({**as_dict(answer), **as_dict(done)})
    elif answer.entries:
        print_line(f"{done.alarms} alarms acknowledged.")


@audit.command("verify")
@click.option("--witnesses", is_flag=True, help="Ask connected facilities for their heads now.")
@click.option("--head", "head_file", metavar="FILE", help="Compare the log with an exported head.")
@click.option(
    "--entry",
    metavar="NUMBER:DIGEST",
    help="Compare the log with an entry written down earlier.",
)
@as_json
@click.pass_context
def verify_audit(
    context: click.Context, witnesses: bool, head_file: str | None, entry: str | None, json_: bool
) -> None:
    """Verify the audit log: its hash chain, and the heads that other facilities keep of it.

    Exit status 1 if the chain is broken, or the log contradicts a head that a facility keeps; 20
    if no facility could be asked.

    Anyone with this machine's keys can rewrite the log and the confirmations stored with it. Only
    the answers of other facilities (--witnesses), or a head kept elsewhere (--head, --entry), can
    reveal that.

    \b
    Examples:
      emix audit verify --witnesses
      emix audit verify --head /media/usb/head-2026-11.json
    """
    if head_file is not None and entry is not None:
        raise UsageError("give either --head or --entry, not both")
    request = pb.VerifyAuditRequest(ask_witnesses=witnesses)
    if head_file is not None:
        request.head = _read_head(head_file)
    if entry is not None:
        request.sequence, request.digest = _parse_entry(entry)
    answer = run_call(context, "AuditService.VerifyAudit", request)
    report = VerifyReport(answer, is_asked=witnesses, now=time.time())
    if json_:
        show_json(answer)
    else:
        for line in report.lines():
            print_line(line)
    if report.status:
        raise SystemExit(report.status)


def _read_head(file: str) -> bytes:
    # The documents' cryptography takes a while to load, and most commands do without.
    from node.documents.audit_head import MAX_FILE_BYTES, read_head_file

    try:
        return read_head_file(safe_paths.read_file(Path(file), MAX_FILE_BYTES))
    except OSError as exc:
        raise UsageError(f"{file} cannot be read ({exc.strerror})") from exc


def _parse_entry(text: str) -> tuple[int, bytes]:
    number, _, digest = text.partition(":")
    try:
        sequence, value = int(number), bytes.fromhex(digest)
    except ValueError:
        sequence, value = 0, b""
    if not 1 <= sequence < 2**53 or len(value) != 32:
        raise UsageError("--entry is NUMBER:DIGEST, as `emix audit head` shows it")
    return sequence, value


@audit.command()
@click.option("--export", "file", metavar="FILE", help="Write the head into a file, signed.")
@as_json
@click.pass_context
def head(context: click.Context, file: str | None, json_: bool) -> None:
    """Show the head of the audit log. Keep it away from this machine: on paper, or a stick.

    It holds no patient data: a number, a digest and a time.

    \b
    Examples:
      emix audit head
      emix audit head --export /media/usb/head-2026-11.json
    """
    answer = run_call(context, "AuditService.GetAuditHead", pb.GetAuditHeadRequest())
    if file is not None:
        from node.documents.audit_head import head_file

        safe_paths.write_file(Path(file), head_file(answer.head))
    if json_:
        show_json(answer)
        return
    if file is not None:
        print_line(f"Wrote {file}; later: emix audit verify --head {file}")
        return
    print_line(f"{'facility':>10}  {answer.facility_id}")
    print_line(f"{'entry':>10}  {answer.sequence}, {show_time(answer.time_milliseconds // 1000)}")
    print_line(f"{'digest':>10}  {answer.digest.hex()}")
    print_line(f"Later: emix audit verify --entry {answer.sequence}:{answer.digest.hex()}")


@audit.command()
@click.argument("facility")
@as_json
@click.pass_context
def accept(context: click.Context, facility: str, json_: bool) -> None:
    """Accept that a paired facility's audit log starts anew, after an alarm about it.

    Do so when a person there has explained it by telephone: an old backup was restored, or the
    database was rebuilt. The heads of the earlier log are no longer used.

    \b
    Example:
      emix audit accept "Great Falls Clinic"
    """
    request = pb.AcceptPeerLogRequest(facility=facility)
    done = run_call(context, "AuditService.AcceptPeerLog", request)
    text = f"The audit log of {done.display_name} may begin anew; {done.heads} heads count no"
    show_done(done, f"{text} longer.", json_=json_)


COMMANDS = (audit,)
