"""`emix receipts`: lists, proofs written into files, and proofs checked without a node."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.documents.receipt import Proof, sign_receipt
from node.errors import ConfigError, DocumentError, NotFound, UsageError
from tests.node.documents.test_documents import A, B, C, make_proof
from tests.support.answering import AnsweringNode, run_emix, widest

LIST, EXPORT = "AuditService.ListReceipts", "AuditService.ExportReceipt"
PEERS, STATUS = "PeerService.ListPeers", "NodeService.GetStatus"
PROOF, DELIVERY, RECEIPT = make_proof()
SENDER, RECEIVER = str(A.facility_id), str(B.facility_id)
GOT = pb.ReceiptRow(
    transfer_id="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    direction="send",
    peer=RECEIVER,
    peer_name="Billings Hospital",
    study_instance_uid="1.2.826.0.1.3680043.10.1338.7.20261126.4711.12",
    instances=240,
    plaintext_bytes=126_000_000,
    received_seconds=1_800_000_000,
    number=12,
    deleted_seconds=1_800_086_400,
)
GIVEN = pb.ReceiptRow(
    transfer_id="ffff",
    direction="receive",
    peer=SENDER,
    study_instance_uid="1.2.3",
    instances=1,
    plaintext_bytes=5,
    received_seconds=1_800_000_000,
    number=9,
)


def in_pieces(size: int) -> list[pb.ExportReceiptResponse]:
    """Return a proof as a node sends it: the manifest in pieces, the rest with the first."""
    manifest = PROOF.manifest.encode()
    pieces = [manifest[i : i + size] for i in range(0, len(manifest), size)]
    answers = [pb.ExportReceiptResponse(manifest_piece=piece) for piece in pieces]
    answers[0].delivery = PROOF.delivery.encode()
    answers[0].receipt = PROOF.receipt.encode()
    return answers


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    peers = [
        pb.Peer(facility_id=RECEIVER, display_name="Billings Hospital", state="pinned"),
        pb.Peer(facility_id=str(C.facility_id), display_name="Helena", state="pinned"),
    ]
    return AnsweringNode(
        tmp_path / "home",
        {
            LIST: pb.ListReceiptsResponse(receipts=[GOT, GIVEN]),
            EXPORT: in_pieces(100),
            PEERS: pb.ListPeersResponse(peers=peers),
            STATUS: pb.GetStatusResponse(facility_id=SENDER, display_name="Great Falls Clinic"),
        },
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A proof in a file."""
    path = tmp_path / "proof.json"
    path.write_bytes(PROOF.encode())
    return path


def test_list_says_who_gave_each_receipt_and_what_was_deleted_there(node: AnsweringNode) -> None:
    done = node.run("receipts")
    assert done.exit_code == 0
    heading, got, given = done.stdout.splitlines()
    assert heading.endswith("DELETED THERE")
    assert got.split()[:5] == ["t12", "0f1e2d3c", "got", "from", "Billings"]
    assert "126.0 MB" in got
    assert got.count("2027-01-1") == 2
    assert given.split()[:5] == ["t9", "ffff", "given", "to", SENDER[:7]]
    assert given.rstrip().endswith("1.2.3")


def test_list_fits_eighty_columns(node: AnsweringNode) -> None:
    done = node.run("receipts", width=80)
    assert widest(done.stdout) <= 80
    assert "t12" in done.stdout
    assert "got from" in done.stdout
    assert "    deleted there: 2027-01-1" in done.stdout


@pytest.mark.parametrize(
    ("options", "limit"),
    [([], 200), (["--json"], 0), (["--limit", "2"], 2), (["--limit", "3", "--json"], 3)],
)
def test_list_asks_for_as_many_as_it_shows(
    node: AnsweringNode, options: list[str], limit: int
) -> None:
    done = node.run("receipts", *options)
    assert done.exit_code == 0
    assert node.requests(LIST) == [pb.ListReceiptsRequest(limit=limit)]
    assert ("The newest 2; --limit 0 shows all." in done.stderr) == (limit == 2)


def test_empty_list_says_so(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListReceiptsResponse()
    assert node.run("receipts").stdout == "No receipts.\n"


def test_list_in_json_has_every_field(node: AnsweringNode) -> None:
    got, given = node.json("receipts")["receipts"]
    assert got["transfer_id"] == GOT.transfer_id
    assert (got["plaintext_bytes"], got["deleted_seconds"]) == (126_000_000, 1_800_086_400)
    assert (given["direction"], given["reissued"]) == ("receive", False)


@pytest.mark.parametrize("size", [7, 10**6])
def test_exported_proof_is_whole_and_private(
    node: AnsweringNode, tmp_path: Path, size: int
) -> None:
    node.answers[EXPORT] = in_pieces(size)
    file = tmp_path / "new.json"
    done = node.run("receipts", "export", "t12", str(file))
    assert done.exit_code == 0
    assert done.stdout == (
        f"Wrote {file}; anyone can check it with `emix receipts verify {file}`.\n"
    )
    assert node.requests(EXPORT) == [pb.ExportReceiptRequest(transfer="t12")]
    assert Proof.decode(file.read_bytes()) == PROOF
    assert file.stat().st_mode & 0o077 == 0
    assert node.names == [EXPORT]  # the list is not asked for


def test_export_in_json_names_the_file_by_its_whole_path(
    node: AnsweringNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert node.json("receipts", "export", "t12", "p.json") == {"file": f"{tmp_path}/p.json"}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (NotFound("no transfer is t12"), NotFound.exit_code),
        ([*in_pieces(100)[:1], NotFound("the chunks are gone")], NotFound.exit_code),
        (in_pieces(100)[:1], DocumentError.exit_code),
    ],
)
def test_proof_that_is_not_whole_is_not_written(
    node: AnsweringNode, tmp_path: Path, answer: Any, status: int
) -> None:
    node.answers[EXPORT] = answer
    file = tmp_path / "new.json"
    done = node.run("receipts", "export", "t12", str(file))
    assert done.exit_code == status
    assert done.stdout == ""
    assert not file.exists()


def test_export_into_a_folder_that_is_not_there_is_an_error(
    node: AnsweringNode, tmp_path: Path
) -> None:
    done = node.run("receipts", "export", "t12", str(tmp_path / "none" / "p.json"))
    assert done.exit_code == ConfigError.exit_code
    assert f"{tmp_path}/none" in done.stderr


def test_proof_is_verified_without_a_node(file: Path, tmp_path: Path) -> None:
    done = run_emix(tmp_path / "none", "receipts", "verify", str(file))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("VALID: ")
    assert "1.2.3" in lines[1]
    assert "2 instances, 200 B" in lines[2]
    assert "reissued" not in done.stdout
    assert [line.split() for line in lines[4:7]] == [
        ["sealed", "by", SENDER],
        ["sent", "by", SENDER],
        ["received", "by", RECEIVER],
    ]
    assert lines[-1].startswith("No node runs here: compare the Facility IDs")
    assert widest(done.stdout) <= 80


def test_node_says_whom_of_the_signers_it_knows(node: AnsweringNode, file: Path) -> None:
    done = node.run("receipts", "verify", str(file))
    assert done.exit_code == 0
    assert f"sent by  {SENDER}  this facility: Great Falls Clinic" in done.stdout
    assert f"received by  {RECEIVER}  pinned: Billings Hospital" in done.stdout
    assert "NOT PINNED" not in done.stdout
    assert "No node runs here" not in done.stdout


def test_removed_facility_is_not_called_pinned(node: AnsweringNode, file: Path) -> None:
    removed = pb.Peer(facility_id=RECEIVER, display_name="Billings Hospital", state="removed")
    node.answers[PEERS] = pb.ListPeersResponse(peers=[removed])
    done = node.run("receipts", "verify", str(file))
    assert done.exit_code == 0
    assert f"received by  {RECEIVER}  NOT PINNED HERE" in done.stdout
    assert "Billings" not in done.stdout
    assert node.json("receipts", "verify", str(file))["pinned"] == ""


def test_verified_proof_in_json_distinguishes_an_unknown_signer_from_no_node(
    node: AnsweringNode, file: Path, tmp_path: Path
) -> None:
    shown = node.json("receipts", "verify", str(file))
    assert shown == {
        "valid": True,
        "transfer_id": str(RECEIPT.transfer_id),
        "study_instance_uid": "1.2.3",
        "instances": 2,
        "plaintext_bytes": 200,
        "received_seconds": 1_800_000_005,
        "reissued": False,
        "sealed_by": SENDER,
        "sent_by": SENDER,
        "received_by": RECEIVER,
        "pinned": "pinned: Billings Hospital",
    }
    done = run_emix(tmp_path / "none", "receipts", "verify", str(file), "--json")
    assert json.loads(done.stdout)["pinned"] is None


def test_receipt_that_was_signed_anew_says_so(node: AnsweringNode, file: Path) -> None:
    anew = sign_receipt(dataclasses.replace(RECEIPT, reissued=True), B)
    file.write_bytes(dataclasses.replace(PROOF, receipt=anew).encode())
    assert " (reissued)\n" in node.run("receipts", "verify", str(file)).stdout
    assert node.json("receipts", "verify", str(file))["reissued"] is True


def test_altered_proof_is_not_called_valid(node: AnsweringNode, file: Path) -> None:
    fewer = sign_receipt(dataclasses.replace(RECEIPT, instances=1), B)
    for data in (
        dataclasses.replace(PROOF, receipt=fewer).encode(),
        dataclasses.replace(PROOF, receipt=sign_receipt(RECEIPT, C)).encode(),
        PROOF.encode()[:-40],
        b"{}",
    ):
        file.write_bytes(data)
        done = node.run("receipts", "verify", str(file))
        assert done.exit_code == DocumentError.exit_code
        assert done.stdout == ""
        assert done.stderr.startswith("emix: ")
    assert node.names == []  # nothing is asked about a proof that is none


def test_file_that_cannot_be_read_is_named(node: AnsweringNode, tmp_path: Path) -> None:
    done = node.run("receipts", "verify", str(tmp_path / "none"))
    assert done.exit_code == UsageError.exit_code
    assert done.stderr == f"emix: {tmp_path}/none cannot be read (No such file or directory)\n"
