"""Commands about transfers: sending, watching, deciding."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import all_matching, name_of_patients, of_several
from node.cli.client import Client, node_client, run_call
from node.cli.moves import FINAL, Moves, name_of, why
from node.cli.origins import origin_option
from node.cli.sending import Sending
from node.errors import UsageError
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    as_dict,
    limit_of,
    limited,
    note_limit,
    print_json_line,
    print_line,
    show_bytes,
    show_day,
    show_done,
    show_json,
    show_rate,
    show_table,
    show_time,
    yes_option,
)

_MOST_INPUT = 16 * 2**20


@click.command()
@click.argument("studies", nargs=-1, metavar="STUDY|PATH...")
@click.argument("facility")
@click.option("--all", "is_query", is_flag=True, help="Send every study that matches the words.")
@click.option("--stdin", is_flag=True, help="Read studies from standard input, one a line.")
@click.option("--to", "recipient", help="The recipient at the facility.")
@click.option("--note", help="A note for the receiver.")
@click.option(
    "--priority",
    type=click.Choice(["stat", "urgent", "routine"]),
    help="[default: routine]",
)
@origin_option
@click.option(
    "--include-held", is_flag=True, help="Include held instances. The audit log records it."
)
@click.option("--again", is_flag=True, help="Send even packages that have a receipt already.")
@click.option("--wait", is_flag=True, help="Wait for the verified receipt.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 30 * 86400),
    metavar="SECONDS",
    help="Wait at most this long; implies --wait. Sending continues afterwards.",
)
@yes_option
@as_json
@click.pass_context
def send(
    context: click.Context,
    studies: tuple[str, ...],
    facility: str,
    is_query: bool,
    stdin: bool,
    recipient: str | None,
    note: str | None,
    priority: str | None,
    origin: str,
    include_held: bool,
    again: bool,
    wait: bool,
    timeout: int | None,
    yes: bool,
    json_: bool,
) -> None:
    """Send studies to a facility that is paired, or a member of a network.

    A STUDY is its number in a list, its UID or the beginning of it, its accession number, or
    search words that match one study only: it is shown, and you confirm it, unless --yes is given.
    An argument with a / in it is a PATH: a CD, folder, file or ZIP, which is imported first; for a
    DICOMDIR, only the files that it references. Items that cannot be sent are reported, and the
    others are sent. With --all, the words are searched as `emix studies` does, and every study that
    matches is sent, after you have confirmed them.

    The transfer survives restarts and broken links; `emix transfers` shows its progress. With
    --wait the exit status is 0 only when the receiver's signed receipt was verified here; until
    then the command says what it waits for.

    Without --to, --note and --priority, the values of the last transfer of the study to that
    facility apply. With other values, packages that are there already get a new delivery, and
    their images are not sent twice.

    If one Study Instance UID covers several patients, they are shown and you confirm them. If
    several facilities sealed different images of the study, choose one with --origin. Packages
    that another facility sealed are sent on unchanged, with their manifests. Received packages
    with a held instance, and held imported instances, are left out and named; the exit status is
    1 then.

    \b
    Examples:
      emix send s12 "Billings Hospital" --to "Dr. Jones" --priority stat --wait
      emix send s12 s13 1.2.840.113619.2 "Billings Hospital"
      emix send --all muller CT "Billings Hospital"
      emix send --stdin "Billings Hospital" < uids.txt
      emix send /media/cdrom "Billings Hospital" --note "second opinion" --timeout 600
    """
    order = pb.SendRequest(
        facility=facility,
        recipient=recipient,
        note=note,
        priority=priority,
        again=again,
        origin=origin,
        include_held=include_held,
    )
    sent = Sending(context, order, json_=json_)
    named = _named(context, studies, is_query=is_query, stdin=stdin, is_sure=yes)
    try:
        sent.send(named, is_sure=yes)
        if wait or timeout is not None:
            sent.wait(timeout)
    finally:  # also if interrupted: transfers made by then continue
        sent.show_end()
    if status := sent.status(is_waited=wait or timeout is not None):
        raise SystemExit(status)


def _named(
    context: click.Context, studies: Sequence[str], *, is_query: bool, stdin: bool, is_sure: bool
) -> Sequence[str]:
    """Return what names the studies to send.

    Raises:
        UsageError: nothing does, or it is named in two ways.
    """
    if is_query and stdin:
        raise UsageError("name the studies with --all or with --stdin, not with both")
    if is_query:
        return all_matching(context, " ".join(studies), is_sure=is_sure)
    if not stdin:
        if not studies:
            raise UsageError("name a study to send, and the facility last; see `emix send --help`")
        return studies
    if studies:
        raise UsageError("with --stdin, only the facility is named on the command line")
    lines = sys.stdin.read(_MOST_INPUT + 1)
    if len(lines) > _MOST_INPUT:
        raise UsageError("standard input has more than 16 MiB; send fewer studies at once")
    named = [line.strip() for line in lines.splitlines() if line.strip()]
    if not named:
        raise UsageError("standard input names no study")
    return named


@click.command()
@click.option("--watch", is_flag=True, help="Show changes until Ctrl-C.")
@click.option("--open", "open_only", is_flag=True, help="List only open transfers.")
@limited
@as_json
@click.pass_context
def transfers(
    context: click.Context, watch: bool, open_only: bool, limit: int | None, json_: bool
) -> None:
    """List transfers, newest first; --watch with --json prints one object a line.

    \b
    Examples:
      emix transfers
      emix transfers --watch
      emix transfers --open --json
    """
    if watch:
        # Ctrl-C is how a watch ends: nothing was interrupted.
        with suppress(KeyboardInterrupt), node_client(context) as client:
            _watch(client, open_only, json_)
        return
    request = pb.ListTransfersRequest(open_only=open_only, limit=limit_of(limit, json_))
    answer = run_call(context, "TransferService.ListTransfers", request)
    if json_:
        show_json(answer)
    else:
        _show_transfers(answer.transfers, "No transfers.")
        note_limit(request.limit, answer.transfers)


def _show_transfers(found: object, empty: str) -> None:
    show_table(
        (
            ">NO",
            Column("TRANSFER", spare=7),
            "",
            Column("FACILITY", least=9),
            "STATE",
            Column("PRIORITY", spare=3),
            Column("ROUTE", spare=4),
            Column(">RTT ms", spare=8),
            Column(">RATE", spare=5),
            ">DONE",
            Column(">SIZE", spare=2),
            Column(">INST", spare=6),
            "CHANGED",
            Column("STUDY", least=12, is_middle=True),
            Column("WHY", is_note=True),
        ),
        [
            (
                f"t{t.number}",
                t.transfer_id[:8],
                "->" if t.direction == "send" else "<-",
                t.peer_name or t.peer[:7],
                t.state,
                t.priority,
                t.route,
                f"{t.round_trip_milliseconds:.1f}" if t.round_trip_milliseconds else "",
                show_rate(t.bytes_a_second),
                f"{100 * t.bytes_done // (t.bytes_total or 1)} %",
                show_bytes(t.bytes_total),
                t.instances,
                show_time(t.updated_seconds),
                t.study_instance_uid,
                why(t),
            )
            for t in found  # type: ignore[attr-defined]
        ],
        empty,
    )


def _watch(client: Client, open_only: bool, json_: bool) -> None:
    """Show open transfers first, then changes until the watch is ended."""
    request = pb.WatchTransfersRequest()
    shown: set[int] = set()
    moves = Moves(time.time())
    with client.stream("TransferService.WatchTransfers", request) as events:
        if not json_:
            print_line("Open transfers and their changes; end with Ctrl-C.", is_error=True)
        for event in events:
            t = event.transfer
            if open_only and t.state in FINAL and t.number not in shown:
                continue
            shown.add(t.number)
            if json_:
                print_json_line(as_dict(t))
            elif line := moves.line(t, time.time()):
                print_line(line)


@click.command()
@click.argument("transfer")
@as_json
@click.pass_context
def cancel(context: click.Context, transfer: str, json_: bool) -> None:
    """Cancel a transfer that is not delivered yet, by its number or its id's beginning.

    \b
    Examples:
      emix cancel t12
      emix cancel 3F2A
    """
    request = pb.CancelTransferRequest(transfer=transfer)
    t = run_call(context, "TransferService.CancelTransfer", request).transfer
    show_done(t, f"transfer {name_of(t)}: {t.state}", json_=json_)


@click.command()
@limited
@as_json
@click.pass_context
def inbox(context: click.Context, limit: int | None, json_: bool) -> None:
    """List received studies, newest first, waiting offers, and incoming transfers.

    \b
    Example:
      emix inbox
    """
    with node_client(context) as client:
        newest = pb.ListStudiesRequest(arrived_only=True, limit=limit_of(limit, json_))
        arrived = client.call("StudyService.ListStudies", newest)
        offers = client.call(
            "TransferService.ListTransfers", pb.ListTransfersRequest(held_only=True)
        )
        request = pb.ListTransfersRequest(open_only=True)
        is_open = client.call("TransferService.ListTransfers", request).transfers
    decided = {t.number for t in offers.transfers}
    coming = [t for t in is_open if t.direction == "receive" and t.number not in decided]
    if json_:
        show_json(
            {
                **as_dict(arrived),
                "offers": [as_dict(t) for t in offers.transfers],
                "coming": [as_dict(t) for t in coming],
            }
        )
        return
    _show_arrived(arrived.studies)
    note_limit(newest.limit, arrived.studies)
    if offers.transfers:
        print_line()
        _show_offers(offers.transfers)
    if coming:
        print_line()
        _show_coming(coming)


def _show_arrived(studies: Sequence[pb.Study]) -> None:
    """Show what has arrived, newest first: a line for each sender of a package."""
    show_table(
        (
            ">NO",
            "RECEIVED",
            Column("FROM", least=8),
            Column("PATIENT", least=10),
            Column("ID", least=6),
            Column("DATE", spare=2),
            Column("MOD", least=3, spare=3),
            ">INST",
            Column("ORIGIN", least=6, spare=1),
            Column("STUDY UID", least=12, is_middle=True),
            "PRIORITY",
            Column("TO", is_note=True),
            Column("NOTE", is_note=True),
            Column("DOUBTS", is_note=True),
        ),
        [
            (
                f"s{study.number}",
                show_time(delivery.received_seconds or package.created_seconds),
                delivery.sender,
                name_of_patients(study),
                study.patient_id,
                show_day(study.study_date),
                "/".join(study.modalities),
                package.instances,
                study.origin_name or study.origin[:7],
                study.study_instance_uid,
                delivery.priority,
                delivery.recipient,
                delivery.note,
                _held_and_flagged(package),
            )
            for delivery, package, study in sorted(
                (
                    (d, p, s)
                    for s in studies
                    for p in s.packages
                    if p.received_from
                    for d in _deliveries(p)
                ),
                key=lambda found: -found[0].received_seconds,
            )
        ],
        "No study has arrived yet.",
    )


def _show_offers(offers: Sequence[pb.Transfer]) -> None:
    """Show what waits for a person's decision."""
    show_table(
        (
            ">NO",
            Column("OFFER", spare=4),
            Column("FROM", least=8),
            "PRIORITY",
            Column("PATIENT", least=10),
            Column("ID", least=4),
            Column("BORN", spare=2),
            Column("DATE", spare=1),
            "MOD",
            Column("DESCRIPTION", least=8, spare=3),
            ">INST",
            Column(">SIZE", spare=5),
            Column("TO", is_note=True),
            Column("NOTE", is_note=True),
        ),
        [
            (
                f"t{t.number}",
                t.transfer_id[:8],
                t.peer_name,
                t.priority,
                *_offered(t.summary),
                t.instances,
                show_bytes(t.bytes_total),
                t.recipient,
                t.note,
            )
            for t in offers
        ],
        "",
    )
    print_line("`emix accept OFFER` or `emix decline OFFER --reason TEXT`")


def _deliveries(package: pb.Package) -> list[pb.PackageDelivery]:
    """Return what each sender of a package that arrived wrote with it."""
    first = pb.PackageDelivery(
        sender=package.received_from,
        received_seconds=package.received_seconds,
        recipient=package.recipient,
        note=package.note,
        priority=package.priority,
    )
    return [first, *package.further_deliveries]


def _offered(summary: pb.OfferSummary) -> tuple[str, ...]:
    """Return the cells of an offer's summary, as its sender states it; empty if it has none."""
    first = summary.patients[0] if summary.patients else pb.Patient()
    return (
        of_several(len(summary.patients), first.name),
        first.patient_id,
        show_day(first.birth_date),
        show_day(summary.study_date),
        "/".join(summary.modalities),
        summary.description,
    )


def _show_coming(coming: Sequence[pb.Transfer]) -> None:
    """Show incoming transfers, and why each of them waits."""
    show_table(
        (
            ">NO",
            Column("ON ITS WAY FROM", least=16),
            "STATE",
            "PRIORITY",
            ">DONE",
            ">SIZE",
            ">INST",
            Column("TO", is_note=True),
            Column("NOTE", is_note=True),
            Column("WHY", is_note=True),
        ),
        [
            (
                f"t{t.number}",
                t.peer_name,
                t.state,
                t.priority,
                f"{100 * t.bytes_done // (t.bytes_total or 1)} %",
                show_bytes(t.bytes_total),
                t.instances,
                t.recipient,
                t.note,
                t.reason,
            )
            for t in coming
        ],
        "",
    )


def _held_and_flagged(package: pb.Package) -> str:
    """Return what this node's own examination holds or flags in a package; empty for nothing."""
    parts = []
    if package.held_instances:
        parts.append(f"{package.held_instances}: {'; '.join(package.hold_reasons)}")
    if package.flagged_instances:
        parts.append(f"{package.flagged_instances} odd")
    return ", ".join(parts)


@click.command()
@click.argument("offer")
@as_json
@click.pass_context
def accept(context: click.Context, offer: str, json_: bool) -> None:
    """Accept a waiting offer; the transfer starts as soon as the sender is reached.

    `emix inbox` shows the sender's description of it, if the sender's policy includes one.

    \b
    Example:
      emix accept t12
    """
    request = pb.DecideOfferRequest(transfer=offer, accept=True)
    t = run_call(context, "TransferService.DecideOffer", request).transfer
    show_done(t, f"offer {name_of(t)}: accepted", json_=json_)


@click.command()
@click.argument("offer")
@click.option("--reason", default="", help="A reason for the sender.")
@as_json
@click.pass_context
def decline(context: click.Context, offer: str, reason: str, json_: bool) -> None:
    """Decline a waiting offer.

    \b
    Example:
      emix decline t12 --reason "no such patient here"
    """
    request = pb.DecideOfferRequest(transfer=offer, accept=False, reason=reason)
    t = run_call(context, "TransferService.DecideOffer", request).transfer
    show_done(t, f"offer {name_of(t)}: declined", json_=json_)


COMMANDS = (send, transfers, cancel, inbox, accept, decline)
