"""Commands about transfers: sending, watching, deciding."""

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import Client, node_client, run_call
from node.cli.node_commands import as_json
from node.cli.origins import asking_for_origin, origin_option
from node.terminal.output import (
    ProgressBar,
    as_dict,
    limit_of,
    limited,
    note_limit,
    print_json_line,
    print_line,
    show_bytes,
    show_done,
    show_json,
    show_rate,
    show_table,
    show_time,
)

_FINAL = ("delivered", "declined", "cancelled", "failed")


@click.command()
@click.argument("study")
@click.argument("facility")
@click.option("--to", "recipient", default="", help="For whom there.")
@click.option("--note", default="", help="A word with it.")
@click.option(
    "--priority",
    type=click.Choice(["stat", "urgent", "routine"]),
    default="routine",
    show_default=True,
)
@origin_option
@click.option(
    "--include-held", is_flag=True, help="Include held instances. The audit log records it."
)
@click.option("--again", is_flag=True, help="Even what it has given a receipt for already.")
@click.option("--wait", is_flag=True, help="Wait for the verified receipt.")
@as_json
@click.pass_context
def send(
    context: click.Context,
    study: str,
    facility: str,
    recipient: str,
    note: str,
    priority: str,
    origin: str,
    include_held: bool,
    again: bool,
    wait: bool,
    json_: bool,
) -> None:
    """Send a study to a facility that is paired, or a member of a network.

    The transfer survives restarts and broken links; `emix transfers` shows how far it is. With
    --wait the exit status is 0 only when the receiver's signed receipt was verified here.

    Where several facilities sealed different images of the study, --origin says whose. What
    another facility sealed goes on with its manifest, as it came. A package that it sent, and in
    which this node holds an instance, is left out and named; the exit status is 1 then.

    \b
    Example:
      emix send 1.2.840.113619.2 "Billings Hospital" --to "Dr. Jones" --priority stat --wait
    """
    request = pb.SendRequest(
        study=study,
        facility=facility,
        recipient=recipient,
        note=note,
        priority=priority,
        again=again,
        origin=origin,
        include_held=include_held,
    )

    with asking_for_origin(context, study, "send", study, facility), node_client(context) as client:
        answer = client.call("TransferService.Send", request)
        transfers = {t.number: t for t in answer.transfers}
        if wait:
            _follow(client, transfers)
    if json_:
        del answer.transfers[:]
        answer.transfers.extend(transfers.values())
        show_json(answer)
    else:
        if answer.known:
            print_line(
                f"{len(answer.known)} of {len(transfers)} packages were sent there before:"
                " nothing new is sent for them (--again sends what was delivered)."
            )
        for t in transfers.values():
            reason = f" ({t.reason})" if t.reason else ""
            print_line(
                f"transfer {_name(t)} to {t.peer_name}: {t.state}{reason},"
                f" {t.instances} instances, {show_bytes(t.plaintext_bytes)}"
            )
        for package in answer.held_packages:
            print_line(
                f"package {package[:8]} is not sent on: an instance of it is held here (`emix held`"
                " lists it; release it, or --include-held sends it as it is)"
            )
    is_late = wait and any(t.state != "delivered" for t in transfers.values())
    if is_late or answer.held_packages:
        raise SystemExit(1)


def _follow(client: Client, transfers: dict[int, pb.Transfer]) -> None:
    """Watch until all these transfers are final."""
    request = pb.WatchTransfersRequest(numbers=transfers)
    with (
        ProgressBar("sending") as bar,
        client.stream("TransferService.WatchTransfers", request) as events,
    ):
        while any(t.state not in _FINAL for t in transfers.values()):
            event = next(events, None)
            if event is None:
                return
            if event.transfer.number in transfers:
                transfers[event.transfer.number] = event.transfer
                bar.update(
                    sum(t.bytes_done for t in transfers.values()),
                    sum(t.bytes_total for t in transfers.values()),
                )


@click.command()
@click.option("--watch", is_flag=True, help="Go on showing changes until Ctrl-C.")
@click.option("--open", "open_only", is_flag=True, help="Only those that are not final.")
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
        with node_client(context) as client:
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
            "TRANSFER",
            "",
            "FACILITY",
            "STATE",
            "PRIORITY",
            "ROUTE",
            ">RTT ms",
            ">RATE",
            ">DONE",
            ">SIZE",
            ">INST",
            "CHANGED",
            "STUDY",
            "WHY",
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
                t.reason,
            )
            for t in found  # type: ignore[attr-defined]
        ],
        empty,
    )


def _watch(client: Client, open_only: bool, json_: bool) -> None:
    request = pb.WatchTransfersRequest()
    shown: set[int] = set()
    with client.stream("TransferService.WatchTransfers", request) as events:
        for event in events:
            t = event.transfer
            if open_only and t.state in _FINAL and t.number not in shown:
                continue
            shown.add(t.number)
            if json_:
                print_json_line(as_dict(t))
                continue
            arrow = "->" if t.direction == "send" else "<-"
            print_line(
                f"{_name(t)} {arrow} {t.peer_name or t.peer[:7]}: {t.state},"
                f" {show_bytes(t.bytes_done)} of {show_bytes(t.bytes_total)} {t.reason}"
            )


@click.command()
@click.argument("transfer")
@as_json
@click.pass_context
def cancel(context: click.Context, transfer: str, json_: bool) -> None:
    """Take back a transfer that is not delivered yet: by its number, or its id's beginning.

    \b
    Examples:
      emix cancel t12
      emix cancel 3F2A
    """
    request = pb.CancelTransferRequest(transfer=transfer)
    t = run_call(context, "TransferService.CancelTransfer", request).transfer
    show_done(t, f"transfer {_name(t)}: {t.state}", json_=json_)


def _name(transfer: pb.Transfer) -> str:
    """Return how a transfer is called: its number first, since its id is the sender's choice."""
    return f"t{transfer.number} ({transfer.transfer_id[:8]})"


@click.command()
@as_json
@click.pass_context
def inbox(context: click.Context, json_: bool) -> None:
    """List studies that arrived, and offers that wait for a person.

    \b
    Example:
      emix inbox
    """
    with node_client(context) as client:
        arrived = client.call("StudyService.ListStudies", pb.ListStudiesRequest(arrived_only=True))
        offers = client.call(
            "TransferService.ListTransfers", pb.ListTransfersRequest(held_only=True)
        )
    if json_:
        show_json({**as_dict(arrived), "offers": as_dict(offers)["transfers"]})
        return
    show_table(
        (
            "RECEIVED",
            "FROM",
            "TO",
            "NOTE",
            "PATIENT",
            "ID",
            "DATE",
            "MOD",
            ">INST",
            "HELD",
            "ORIGIN",
            "STUDY UID",
        ),
        [
            (
                show_time(package.received_seconds or package.created_seconds),
                package.received_from,
                package.recipient,
                package.note,
                study.patient_name,
                study.patient_id,
                study.study_date,
                "/".join(study.modalities),
                package.instances,
                _held_and_flagged(package),
                study.origin_name or study.origin[:7],
                study.study_instance_uid,
            )
            for package, study in sorted(
                ((p, s) for s in arrived.studies for p in s.packages if p.received_from),
                key=lambda found: -found[0].received_seconds,
            )
        ],
        "No study has arrived yet.",
    )
    if offers.transfers:
        print_line()
        show_table(
            (">NO", "OFFER", "FROM", "PRIORITY", ">INST", ">SIZE", "TO", "NOTE"),
            [
                (
                    f"t{t.number}",
                    t.transfer_id[:8],
                    t.peer_name,
                    t.priority,
                    t.instances,
                    show_bytes(t.bytes_total),
                    t.recipient,
                    t.note,
                )
                for t in offers.transfers
            ],
            "",
        )
        print_line("`emix accept OFFER` or `emix decline OFFER --reason TEXT`")


def _held_and_flagged(package: pb.Package) -> str:
    """Return what this node's own examination says of what arrived; empty for nothing."""
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
    """Accept an offer that waits here; it arrives when the sender asks again.

    \b
    Example:
      emix accept t12
    """
    request = pb.DecideOfferRequest(transfer=offer, accept=True)
    t = run_call(context, "TransferService.DecideOffer", request).transfer
    show_done(t, f"offer {_name(t)}: accepted", json_=json_)


@click.command()
@click.argument("offer")
@click.option("--reason", default="", help="What the sender is told.")
@as_json
@click.pass_context
def decline(context: click.Context, offer: str, reason: str, json_: bool) -> None:
    """Decline an offer that waits here.

    \b
    Example:
      emix decline t12 --reason "no such patient here"
    """
    request = pb.DecideOfferRequest(transfer=offer, accept=False, reason=reason)
    t = run_call(context, "TransferService.DecideOffer", request).transfer
    show_done(t, f"offer {_name(t)}: declined", json_=json_)


COMMANDS = (send, transfers, cancel, inbox, accept, decline)
