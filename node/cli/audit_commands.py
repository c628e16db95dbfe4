"""Commands about receipts."""

from pathlib import Path

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import node_client, run_call
from node.errors import NodeError, UsageError
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    limit_of,
    limited,
    note_limit,
    print_line,
    show_bytes,
    show_done,
    show_json,
    show_table,
    show_time,
)

# A manifest has at most 64 MiB, and the proof is base64 of it.
_MOST_PROOF_BYTES = 128 << 20


@click.group(invoke_without_command=True)
@limited
@as_json
@click.pass_context
def receipts(context: click.Context, limit: int | None, json_: bool) -> None:
    """List receipts, given and received.

    \b
    Examples:
      emix receipts
      emix receipts export t12 proof.json
    """
    if context.invoked_subcommand is not None:
        return
    request = pb.ListReceiptsRequest(limit=limit_of(limit, json_))
    answer = run_call(context, "AuditService.ListReceipts", request)
    if json_:
        show_json(answer)
        return
    show_table(
        (
            ">NO",
            Column("TRANSFER", spare=2),
            "",
            Column("FACILITY", least=10),
            ">INST",
            Column(">SIZE", spare=1),
            "RECEIVED",
            Column("STUDY", least=12, is_middle=True),
            Column("DELETED THERE", is_note=True),
        ),
        [
            (
                f"t{r.number}",
                r.transfer_id[:8],
                "got from" if r.direction == "send" else "given to",
                r.peer_name or r.peer[:7],
                r.instances,
                show_bytes(r.plaintext_bytes),
                show_time(r.received_seconds),
                r.study_instance_uid,
                show_time(r.deleted_seconds),
            )
            for r in answer.receipts
        ],
        "No receipts.",
    )
    note_limit(request.limit, answer.receipts)


@receipts.command("export")
@click.argument("transfer")
@click.argument("file")
@as_json
@click.pass_context
def export_receipt(context: click.Context, transfer: str, file: str, json_: bool) -> None:
    """Write a transfer's manifest, delivery and receipt into one file, as proof.

    \b
    Example:
      emix receipts export t12 proof.json
    """
    request = pb.ExportReceiptRequest(transfer=transfer)
    # The documents' cryptography takes a while to load, and most commands do without.
    from node.documents.receipt import Proof
    from node.documents.signed import Document

    with (
        node_client(context) as client,
        client.stream("AuditService.ExportReceipt", request) as answers,
    ):
        answer = next(answers)
        manifest = b"".join([answer.manifest_piece, *(more.manifest_piece for more in answers)])
    proof = Proof(
        Document.decode(manifest),
        Document.decode(answer.delivery),
        Document.decode(answer.receipt),
    )
    safe_paths.write_file(Path(file), proof.encode())
    text = f"Wrote {file}; anyone can check it with `emix receipts verify {file}`."
    show_done({"file": str(safe_paths.absolute(Path(file)))}, text, json_=json_)


@receipts.command()
@click.argument("file")
@as_json
@click.pass_context
def verify(context: click.Context, file: str, json_: bool) -> None:
    """Verify an exported receipt offline; says whether this node has pinned its signer.

    \b
    Example:
      emix receipts verify proof.json
    """
    from node.documents.receipt import Proof

    try:
        proof = Proof.decode(safe_paths.read_file(Path(file), _MOST_PROOF_BYTES))
    except OSError as exc:
        raise UsageError(f"{file} cannot be read ({exc.strerror})") from exc
    manifest, delivery, receipt = proof.verify()
    pinned = _pinned(context)
    who = {
        "sealed_by": manifest.origin,
        "sent_by": delivery.sender,
        "received_by": receipt.receiver,
    }
    if json_:
        show_json(
            {
                "valid": True,
                "transfer_id": str(receipt.transfer_id),
                "study_instance_uid": manifest.study_instance_uid,
                "instances": receipt.instances,
                "plaintext_bytes": receipt.plaintext_bytes,
                "received_seconds": int(receipt.received_time),
                "reissued": receipt.reissued,
                **{name: str(facility) for name, facility in who.items()},
                "pinned": None if pinned is None else pinned.get(str(receipt.receiver), ""),
            }
        )
        return
    print_line("VALID: manifest, delivery and receipt are signed and belong together.")
    print_line(f"{'study':>12}  {manifest.study_instance_uid}")
    print_line(
        f"{'content':>12}  {receipt.instances} instances, {show_bytes(receipt.plaintext_bytes)}"
    )
    print_line(
        f"{'received':>12}  {show_time(int(receipt.received_time))}"
        f"{' (reissued)' if receipt.reissued else ''}"
    )
    for name, facility in who.items():
        known = "" if pinned is None else pinned.get(str(facility), "NOT PINNED HERE")
        print_line(f"{name.replace('_', ' '):>12}  {facility}  {known}")
    if pinned is None:
        print_line("No node runs here: compare the Facility IDs with ones that you trust.")


def _pinned(context: click.Context) -> dict[str, str] | None:
    """Return the names of pinned facilities and our own, if a node runs here."""
    try:
        peers = run_call(context, "PeerService.ListPeers", pb.ListPeersRequest()).peers
        own = run_call(context, "NodeService.GetStatus", pb.GetStatusRequest())
    except NodeError:
        return None
    names = {p.facility_id: f"pinned: {p.display_name}" for p in peers if p.state != "removed"}
    names[own.facility_id] = f"this facility: {own.display_name}"
    return names


COMMANDS = (receipts,)
