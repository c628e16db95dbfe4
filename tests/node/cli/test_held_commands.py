"""`emix held`: what waits for a person, and what a person decides about it."""

from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import Conflict, NotFound
from tests.support.answering import AnsweringNode, widest

LIST, DECIDE = "StudyService.ListHeld", "StudyService.DecideHeld"
IMPORTED = pb.HeldInstance(
    held_id=3,
    held_seconds=1764000000,
    size_bytes=524_288,
    label="/media/cdrom/DICOM/0001/0002/0003/0004/0005/IM000001",
    reasons=["an executable in the preamble", "no pixel data"],
)
RECEIVED = pb.HeldInstance(
    held_id=12,
    held_seconds=1764000000,
    size_bytes=100,
    received_from="Billings Hospital",
    label="1.2.3",
    reasons=["an executable in the preamble"],
)


def decided(request: pb.DecideHeldRequest) -> pb.DecideHeldResponse | Conflict | NotFound:
    """Return what a node says that holds 3 and 4, and cannot discard 5."""
    if request.held_id in (3, 4):
        package = f"{request.held_id}0123456789abcdef" if request.release else ""
        return pb.DecideHeldResponse(package_id=package)
    if request.held_id == 5:
        return Conflict("5 was received: it stays in its package, held")
    return NotFound(f"nothing is held as {request.held_id}; see `emix held`")


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    held = pb.ListHeldResponse(held=[IMPORTED, RECEIVED])
    return AnsweringNode(tmp_path / "home", {LIST: held, DECIDE: decided})


def test_list_has_number_size_source_and_reasons(node: AnsweringNode) -> None:
    done = node.run("held")
    assert done.exit_code == 0
    heading, imported, received = done.stdout.splitlines()
    assert heading.split("  ")[0] == "NUMBER"
    assert imported.split()[0] == "3"
    assert "524.3 kB" in imported
    assert IMPORTED.label in imported
    assert imported.endswith("an executable in the preamble; no pixel data")
    assert "from Billings Hospital" in received
    assert "1.2.3" not in received


def test_list_fits_eighty_columns_and_keeps_the_ends_of_a_path(node: AnsweringNode) -> None:
    done = node.run("held", width=80)
    assert widest(done.stdout) <= 80
    assert "IM000001" in done.stdout
    assert "/media" in done.stdout
    assert "    why: an executable in the preamble; no pixel data" in done.stdout.splitlines()


def test_empty_list_says_so(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListHeldResponse()
    assert node.run("held").stdout == "Nothing is held.\n"
    assert node.json("held") == {"held": []}


def test_list_in_json_has_whole_numbers_and_all_reasons(node: AnsweringNode) -> None:
    first, second = node.json("held")["held"]
    assert (first["held_id"], first["size_bytes"]) == (3, 524_288)
    assert first["reasons"] == list(IMPORTED.reasons)
    assert second["received_from"] == "Billings Hospital"


def test_each_number_is_released_once_in_the_order_given(node: AnsweringNode) -> None:
    done = node.run("held", "release", "4", "3", "4")
    assert done.exit_code == 0
    assert done.stdout == "4: released as package 40123456\n3: released as package 30123456\n"
    assert node.requests(DECIDE) == [
        pb.DecideHeldRequest(held_id=4, release=True),
        pb.DecideHeldRequest(held_id=3, release=True),
    ]
    assert node.names == [DECIDE, DECIDE]


def test_discarding_does_not_release(node: AnsweringNode) -> None:
    assert node.run("held", "discard", "3").stdout == "3: discarded\n"
    assert node.requests(DECIDE) == [pb.DecideHeldRequest(held_id=3, release=False)]


def test_number_that_is_refused_does_not_keep_the_others(node: AnsweringNode) -> None:
    done = node.run("held", "discard", "5", "3", "9")
    assert done.exit_code == Conflict.exit_code  # the first error's
    assert done.stdout == "3: discarded\n"
    assert done.stderr.splitlines() == [
        "emix: 5 was received: it stays in its package, held",
        "emix: nothing is held as 9; see `emix held`",
    ]


def test_json_lists_what_was_decided_and_each_error(node: AnsweringNode) -> None:
    done = node.json("held", "release", "9", "3", status=NotFound.exit_code)
    assert done["released"] == [{"held_id": 3, "package_id": "30123456789abcdef"}]
    assert done["errors"] == [
        {
            "held_id": 9,
            "code": "not-found",
            "message": "nothing is held as 9; see `emix held`",
            "exit_status": NotFound.exit_code,
        }
    ]
    assert node.error("held", "release", "9") == {
        "code": "not-found",
        "message": "nothing is held as 9; see `emix held`",
        "exit_status": NotFound.exit_code,
        "held_id": 9,
    }
    assert node.json("held", "discard", "3") == {"discarded": [3], "errors": []}


@pytest.mark.parametrize("number", ["0", "-1", "s3", str(2**63)])
@pytest.mark.parametrize("command", ["release", "discard"])
def test_what_cannot_be_a_number_is_not_sent(
    node: AnsweringNode, command: str, number: str
) -> None:
    assert node.run("held", command, "3", "--", number).exit_code == 2
    assert node.run("held", command).exit_code == 2
    assert node.sent == []


@pytest.mark.parametrize("command", ["release", "discard"])
def test_smallest_and_largest_number_are_sent(node: AnsweringNode, command: str) -> None:
    node.answers[DECIDE] = pb.DecideHeldResponse(package_id="01234567")
    assert node.run("held", command, "1", str(2**63 - 1)).exit_code == 0
    assert [request.held_id for request in node.requests(DECIDE)] == [1, 2**63 - 1]
