"""Ordering, listing, watching and cancelling transfers, and deciding about what comes in."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import Conflict, NotFound, PeerUnreachable
from node.terminal.output import show_time
from tests.support.answering import AnsweringNode, widest

SEND, LIST = "TransferService.Send", "TransferService.ListTransfers"
WATCH, CANCEL = "TransferService.WatchTransfers", "TransferService.CancelTransfer"
DECIDE, STUDIES = "TransferService.DecideOffer", "StudyService.ListStudies"
UID = "1.2.826.0.1.3680043.10.1338.7.20261126.4711.12"
DAY = 1_790_000_000
MB = 10**6


def transfer(number: int = 12, state: str = "carrying", **changes: object) -> pb.Transfer:
    """Return a transfer to Billings that is half way, with these changes."""
    facts: dict[str, object] = {
        "number": number,
        "transfer_id": f"{number:04}F2A9ABCDEF",
        "direction": "send",
        "peer": "BBBBBBB-OTHER",
        "peer_name": "Billings Hospital",
        "state": state,
        "priority": "stat",
        "study_instance_uid": UID,
        "bytes_done": 50 * MB,
        "bytes_total": 100 * MB,
        "plaintext_bytes": 170 * MB,
        "instances": 340,
        "updated_seconds": DAY,
        **changes,
    }
    return pb.Transfer(**facts)  # type: ignore[arg-type]


def seen(*transfers: pb.Transfer) -> list[pb.WatchTransfersResponse]:
    return [pb.WatchTransfersResponse(transfer=t) for t in transfers]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            SEND: pb.SendResponse(transfers=[transfer()]),
            LIST: pb.ListTransfersResponse(transfers=[transfer()]),
            CANCEL: pb.CancelTransferResponse(transfer=transfer(state="cancelled")),
            DECIDE: pb.DecideOfferResponse(transfer=transfer(direction="receive")),
            STUDIES: pb.ListStudiesResponse(),
        },
    )


def test_order_has_what_the_options_say(node: AnsweringNode) -> None:
    options = ("--to", "Dr. Jones", "--note", "second opinion", "--priority", "stat")
    more = ("--origin", "own", "--include-held", "--again")
    done = node.run("send", "s12", "Billings Hospital", *options, *more)
    assert done.exit_code == 0
    assert node.requests(SEND) == [
        pb.SendRequest(
            study="s12",
            facility="Billings Hospital",
            recipient="Dr. Jones",
            note="second opinion",
            priority="stat",
            again=True,
            origin="own",
            include_held=True,
        )
    ]


def test_options_that_are_not_given_leave_the_last_transfers_values(node: AnsweringNode) -> None:
    node.run("send", "s12", "Billings")
    assert node.requests(SEND) == [pb.SendRequest(study="s12", facility="Billings")]
    sent = node.requests(SEND)[0]
    assert not any(sent.HasField(name) for name in ("recipient", "note", "priority"))
    node.run("send", "s12", "Billings", "--note", "")
    assert node.requests(SEND)[1].HasField("note")


@pytest.mark.parametrize(
    "arguments",
    [
        ("Billings",),
        ("s12", "Billings", "--priority", "now"),
        ("s12", "Billings", "--timeout", "0"),
        ("s12", "Billings", "--timeout", "2592001"),
    ],
)
def test_order_that_cannot_be_meant_is_not_sent(
    node: AnsweringNode, arguments: tuple[str, ...]
) -> None:
    assert node.run("send", *arguments).exit_code == 2
    assert node.sent == []


def test_command_does_not_wait_unless_it_is_asked_to(node: AnsweringNode) -> None:
    done = node.run("send", "s12", "Billings")
    assert (done.exit_code, node.names) == (0, [SEND])
    assert done.stdout == (
        "transfer t12 (0012F2A9) to Billings Hospital: carrying, 340 instances, 170.0 MB\n"
    )


@pytest.mark.parametrize(("options", "seconds"), [(("--wait",), None), (("--timeout", "600"), 600)])
def test_waiting_ends_with_the_receipt(
    node: AnsweringNode, options: tuple[str, ...], seconds: int | None
) -> None:
    node.answers[WATCH] = seen(transfer(bytes_done=80 * MB), transfer(state="delivered"))
    done = node.run("send", "s12", "Billings", *options)
    assert done.exit_code == 0
    assert node.requests(WATCH) == [pb.WatchTransfersRequest(numbers=[12])]
    assert node.sent[-1].seconds == seconds
    assert f"delivered {show_time(DAY)}, 340 instances" in done.stdout
    assert "t12 -> Billings Hospital: carrying 80 % of 100.0 MB" in done.stderr


@pytest.mark.parametrize("state", ["declined", "failed", "cancelled"])
def test_waiting_for_a_transfer_that_ends_otherwise_fails(node: AnsweringNode, state: str) -> None:
    node.answers[WATCH] = seen(transfer(state=state, reason="no such patient here"))
    done = node.run("send", "s12", "Billings", "--wait")
    assert done.exit_code == 1
    assert f"to Billings Hospital: {state} (no such patient here), 340" in done.stdout


def test_what_was_ordered_is_listed_even_if_the_wait_breaks_off(node: AnsweringNode) -> None:
    node.answers[WATCH] = [*seen(transfer()), PeerUnreachable("the node stops")]
    done = node.run("send", "s12", "Billings", "--wait")
    assert done.exit_code == 20
    assert "transfer t12 (0012F2A9) to Billings Hospital: carrying" in done.stdout
    assert "the node stops" in done.stderr


def test_list_shows_direction_state_progress_and_reason(node: AnsweringNode) -> None:
    waiting = transfer(
        13,
        "pending",
        direction="receive",
        peer_name="",
        bytes_done=0,
        reason="not reached since 9:12",
    )
    moving = transfer(route="lan", round_trip_milliseconds=1.26, bytes_a_second=5 * MB)
    node.answers[LIST] = pb.ListTransfersResponse(transfers=[waiting, moving])
    done = node.run("transfers")
    assert node.requests(LIST) == [pb.ListTransfersRequest(limit=200)]
    first, second = done.stdout.splitlines()[1:]
    for cell in ("t13", "<- ", "BBBBBBB", "pending", "0 %", "not reached since 9:12"):
        assert cell in first
    for cell in ("t12", "-> ", "Billings Hospital", "50 %", "lan", "1.3", "5.0 MB/s", UID):
        assert cell in second
    assert show_time(DAY) in second


def test_list_fits_80_columns_with_the_reason_below(node: AnsweringNode) -> None:
    long = transfer(
        123456,
        peer_name="Hospital of the Sisters of Charity of Leavenworth",
        reason="the receiver has no room for it " * 4,
        route="dial-back",
        round_trip_milliseconds=120.5,
        bytes_a_second=MB,
    )
    node.answers[LIST] = pb.ListTransfersResponse(transfers=[long])
    shown = node.run("transfers", width=80).stdout
    assert widest(shown) <= 80
    row, below = shown.splitlines()[1:3]
    for cell in ("t123456", "->", "Hospital", "carrying", "50 %"):
        assert cell in row
    assert below.startswith("    why: the receiver has no room for it")


def test_list_says_when_the_receiver_has_deleted_a_package(node: AnsweringNode) -> None:
    deleted = transfer(state="delivered", deleted_seconds=DAY)
    node.answers[LIST] = pb.ListTransfersResponse(transfers=[deleted])
    assert f"deleted there since, on {show_time(DAY)}" in node.run("transfers").stdout


def test_list_of_open_transfers_is_asked_of_the_node(node: AnsweringNode) -> None:
    done = node.run("transfers", "--open", "--limit", "1")
    assert node.requests(LIST) == [pb.ListTransfersRequest(open_only=True, limit=1)]
    assert done.stderr == "The newest 1; --limit 0 shows all.\n"
    node.answers[LIST] = pb.ListTransfersResponse()
    assert node.run("transfers").stdout == "No transfers.\n"


def test_list_in_json_is_of_all_transfers(node: AnsweringNode) -> None:
    (shown,) = node.json("transfers")["transfers"]
    assert (shown["number"], shown["bytes_done"], shown["state"]) == (12, 50 * MB, "carrying")
    assert node.requests(LIST) == [pb.ListTransfersRequest(limit=0)]


def test_watch_shows_changes_until_ctrl_c_which_is_no_error(node: AnsweringNode) -> None:
    def watched(_: object) -> Iterator[pb.WatchTransfersResponse]:
        yield from seen(transfer(), transfer(), transfer(state="delivered"))
        raise KeyboardInterrupt

    node.answers[WATCH] = watched
    done = node.run("transfers", "--watch")
    assert done.exit_code == 0
    assert node.requests(WATCH) == [pb.WatchTransfersRequest()]
    assert done.stderr == "Open transfers and their changes; end with Ctrl-C.\n"
    assert done.stdout.splitlines()[0] == (
        "t12 -> Billings Hospital: carrying 50 % of 100.0 MB, stat"
    )
    assert done.stdout.splitlines()[1:] == ["t12 -> Billings Hospital: delivered, 100.0 MB, stat"]


def test_watch_of_open_transfers_leaves_out_those_that_had_ended(node: AnsweringNode) -> None:
    node.answers[WATCH] = seen(
        transfer(11, "delivered", updated_seconds=2**33),
        transfer(12),
        transfer(12, "delivered"),
    )
    done = node.run("transfers", "--watch", "--open")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["t12", "t12"]
    done = node.run("transfers", "--watch")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["t11", "t12", "t12"]


def test_watch_in_json_is_an_object_a_line_for_every_change(node: AnsweringNode) -> None:
    node.answers[WATCH] = seen(transfer(), transfer(bytes_done=51 * MB))
    done = node.run("transfers", "--watch", "--json")
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["bytes_done"] for one in shown] == [50 * MB, 51 * MB]
    assert done.stderr == ""


def test_transfer_is_cancelled_by_the_name_that_was_given(node: AnsweringNode) -> None:
    done = node.run("cancel", "3F2A")
    assert done.stdout == "transfer t12 (0012F2A9): cancelled\n"
    assert node.requests(CANCEL) == [pb.CancelTransferRequest(transfer="3F2A")]
    assert node.json("cancel", "t12")["state"] == "cancelled"


def test_delivered_transfer_that_cannot_be_cancelled_is_a_conflict(node: AnsweringNode) -> None:
    node.answers[CANCEL] = Conflict("t12 is delivered already")
    assert node.error("cancel", "t12")["code"] == "conflict"
    done = node.run("cancel", "t12")
    assert (done.exit_code, done.stderr) == (5, "emix: t12 is delivered already\n")


def test_offer_is_accepted(node: AnsweringNode) -> None:
    done = node.run("accept", "t12")
    assert done.stdout == "offer t12 (0012F2A9): accepted\n"
    assert node.requests(DECIDE) == [pb.DecideOfferRequest(transfer="t12", accept=True)]
    assert node.json("accept", "t12")["number"] == 12


def test_offer_is_declined_with_the_reason_for_the_sender(node: AnsweringNode) -> None:
    done = node.run("decline", "t12", "--reason", "no such patient here")
    assert done.stdout == "offer t12 (0012F2A9): declined\n"
    assert node.requests(DECIDE) == [
        pb.DecideOfferRequest(transfer="t12", accept=False, reason="no such patient here")
    ]
    node.answers[DECIDE] = NotFound("no offer waits as t99; see `emix inbox`")
    assert node.run("decline", "t99").exit_code == 4


def arrived(*packages: pb.Package, **changes: object) -> pb.Study:
    facts: dict[str, object] = {
        "number": 7,
        "study_instance_uid": UID,
        "origin": "CCCCCCC-THIRD",
        "patient_name": "Müller^Hans",
        "patient_id": "P-77",
        "patients_total": 1,
        "study_date": "20261124",
        "modalities": ["CT"],
        "packages": packages,
        **changes,
    }
    return pb.Study(**facts)  # type: ignore[arg-type]


def listed(
    node: AnsweringNode, *, offers: list[pb.Transfer] | None = None, others: list[pb.Transfer]
) -> None:
    """Have the node list these offers, which are open as well, and these open transfers."""

    def answer(request: pb.ListTransfersRequest) -> pb.ListTransfersResponse:
        if request.held_only:
            return pb.ListTransfersResponse(transfers=offers)
        assert request.open_only
        return pb.ListTransfersResponse(transfers=[*(offers or ()), *others])

    node.answers[LIST] = answer


PACKAGE = pb.Package(
    package_id="0123456789abcdef",
    instances=340,
    received_from="Billings Hospital",
    received_seconds=DAY,
    recipient="Dr. Jones",
    priority="stat",
    note="second opinion",
)
OFFER = transfer(
    20,
    "held",
    direction="receive",
    recipient="Dr. Roe",
    note="please compare",
    summary=pb.OfferSummary(
        patients=[pb.Patient(name="Roe^Jane", patient_id="R-1", birth_date="19610203")],
        study_date="20261125",
        description="Knee",
        modalities=["MR"],
    ),
)
COMING = transfer(21, direction="receive", reason="waits for chunks", recipient="Dr. Poe")


def test_empty_inbox_says_so_and_asks_for_what_arrived(node: AnsweringNode) -> None:
    listed(node, others=[])
    assert node.run("inbox").stdout == "No study has arrived yet.\n"
    assert node.requests(STUDIES) == [pb.ListStudiesRequest(arrived_only=True, limit=200)]


def test_inbox_lists_arrivals_newest_first_with_a_line_for_each_sender(
    node: AnsweringNode,
) -> None:
    again = pb.PackageDelivery(
        sender="Havre Clinic", received_seconds=DAY + 7200, recipient="Dr. Roe", priority="routine"
    )
    twice = pb.Package()
    twice.CopyFrom(PACKAGE)
    twice.further_deliveries.append(again)
    newer = pb.Package(
        instances=9, received_from="Butte", received_seconds=DAY + 3600, held_instances=2
    )
    newer.hold_reasons.append("an executable in the preamble")
    newer.flagged_instances = 3
    imported = pb.Package(instances=1, created_seconds=DAY + 9999)
    node.answers[STUDIES] = pb.ListStudiesResponse(
        studies=[arrived(twice, imported), arrived(newer, number=8, origin="DDDDDDD-FOURTH")]
    )
    listed(node, others=[])
    rows = node.run("inbox").stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["s7", "s8", "s7"]
    for cell in (show_time(DAY + 7200), "Havre Clinic", "routine", "Dr. Roe", "CCCCCCC", UID):
        assert cell in rows[0]
    assert rows[1].endswith("2: an executable in the preamble, 3 odd")
    for cell in (show_time(DAY), "Billings Hospital", "stat", "Dr. Jones", "second opinion"):
        assert cell in rows[2]


def test_inbox_says_first_that_a_study_has_several_patients(node: AnsweringNode) -> None:
    node.answers[STUDIES] = pb.ListStudiesResponse(studies=[arrived(PACKAGE, patients_total=2)])
    listed(node, others=[])
    assert "2 patients: Müller^Hans" in node.run("inbox").stdout


def test_inbox_shows_offers_with_the_senders_summary_and_what_to_do(node: AnsweringNode) -> None:
    listed(node, offers=[OFFER], others=[])
    lines = node.run("inbox").stdout.splitlines()
    row = next(line for line in lines if line.startswith("t20"))
    for cell in ("0020F2A9", "Roe^Jane", "1961-02-03", "2026-11-25", "MR", "Knee", "Dr. Roe"):
        assert cell in row
    assert row.endswith("please compare")
    assert lines[-1] == "`emix accept OFFER` or `emix decline OFFER --reason TEXT`"


def test_inbox_shows_what_is_coming_but_no_offer_twice_and_nothing_that_goes_out(
    node: AnsweringNode,
) -> None:
    listed(node, offers=[OFFER], others=[COMING, transfer(22)])
    shown = node.run("inbox").stdout
    assert shown.count("t20") == 1
    assert "t22" not in shown
    row = next(line for line in shown.splitlines() if line.startswith("t21"))
    assert "50 %" in row
    assert row.endswith("Dr. Poe  waits for chunks")


def test_inbox_without_offers_does_not_say_how_to_decide_one(node: AnsweringNode) -> None:
    listed(node, others=[COMING])
    assert "emix accept" not in node.run("inbox").stdout


def test_offer_without_a_summary_is_shown_without_a_patient(node: AnsweringNode) -> None:
    bare = transfer(20, "held", direction="receive")
    listed(node, offers=[bare], others=[])
    shown = node.run("inbox").stdout
    assert "t20" in shown
    assert "PATIENT" not in shown


def test_inbox_fits_80_columns(node: AnsweringNode) -> None:
    name = "Hospital of the Sisters of Charity of Leavenworth"
    package = pb.Package()
    package.CopyFrom(PACKAGE)
    package.received_from, package.note = name, "please compare with the last one " * 4
    study = arrived(package, patient_name="Featherstonehaugh-Cholmondeley^Marjoribanks")
    node.answers[STUDIES] = pb.ListStudiesResponse(studies=[study])
    offer, coming = pb.Transfer(), pb.Transfer()
    offer.CopyFrom(OFFER)
    coming.CopyFrom(COMING)
    offer.peer_name = coming.peer_name = name
    offer.summary.description = "without contrast, " * 5
    coming.reason = "the sender is not reached " * 5
    listed(node, offers=[offer], others=[coming])
    shown = node.run("inbox", width=80).stdout
    assert widest(shown) <= 80
    said = " ".join(shown.split())
    for text in (show_time(DAY), "Featherst", "note: please compare", "why: the sender is not"):
        assert text in said


def test_inbox_in_json_has_arrivals_offers_and_what_is_coming(node: AnsweringNode) -> None:
    node.answers[STUDIES] = pb.ListStudiesResponse(studies=[arrived(PACKAGE)])
    listed(node, offers=[OFFER], others=[COMING, transfer(22)])
    shown = node.json("inbox")
    assert node.requests(STUDIES) == [pb.ListStudiesRequest(arrived_only=True, limit=0)]
    assert [one["number"] for one in shown["studies"]] == [7]
    assert [one["number"] for one in shown["offers"]] == [20]
    assert [one["number"] for one in shown["coming"]] == [21]
    assert shown["offers"][0]["summary"]["patients"][0]["name"] == "Roe^Jane"
