"""Joining, listing and leaving networks, and finding their facilities."""

from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import NotFound
from node.terminal.output import show_time
from tests.support.answering import AnsweringNode, widest

JOIN, LEAVE = "NetworkService.JoinNetwork", "NetworkService.LeaveNetwork"
LIST, FIND = "NetworkService.ListNetworks", "NetworkService.FindFacilities"
LETTER = "emix-join-1-abcdefghijklmnop"
DAY = 1_790_000_000
FACILITY = "BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH-IIIIIII"
MONTANA = pb.Network(
    network_id="N1",
    name="Montana Imaging",
    standing="member",
    list_number=7,
    list_epoch=1,
    list_expires_seconds=DAY,
    members=12,
    state="connected",
    endpoint="directory.example.org:7420",
)


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            JOIN: pb.JoinNetworkResponse(network=MONTANA),
            LEAVE: pb.LeaveNetworkResponse(network=MONTANA),
            LIST: pb.ListNetworksResponse(networks=[MONTANA]),
            FIND: pb.FindFacilitiesResponse(),
        },
    )


def test_letter_is_taken_from_the_command_line(node: AnsweringNode) -> None:
    done = node.run("join", LETTER)
    assert node.requests(JOIN) == [pb.JoinNetworkRequest(letter=LETTER)]
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "Joined Montana Imaging."
    assert "see `emix networks`" in second


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_letter_is_taken_from_a_file_as_editors_write_it(
    node: AnsweringNode, tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "letter.txt"
    file.write_text(LETTER, encoding=encoding)
    assert node.json("join", str(file))["name"] == "Montana Imaging"
    assert node.requests(JOIN) == [pb.JoinNetworkRequest(letter=LETTER)]


def test_letter_is_taken_from_standard_input(node: AnsweringNode) -> None:
    done = node.run("join", "-", typed=f"{LETTER}\n")
    assert done.exit_code == 0
    assert node.requests(JOIN)[0].letter.strip() == LETTER


def test_letter_that_is_neither_a_file_nor_a_letter_is_not_sent(
    node: AnsweringNode, tmp_path: Path
) -> None:
    done = node.run("join", f"{tmp_path}/none.txt")
    assert (done.exit_code, node.sent) == (2, [])
    assert "none.txt is neither a readable file nor a join letter" in done.stderr


def test_file_that_is_no_text_is_not_sent(node: AnsweringNode, tmp_path: Path) -> None:
    file = tmp_path / "scan"
    file.write_bytes(b"\x80\x81 emix-join")
    done = node.run("join", str(file))
    assert (done.exit_code, node.sent) == (2, [])
    assert "that is not a join letter: it is not text" in done.stderr


def test_refused_letter_is_not_shown_with_the_error(node: AnsweringNode, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text(LETTER)
    node.answers[JOIN] = NotFound("this letter was used before; ask the operator for another")
    done = node.run("join", str(file))
    assert done.exit_code == 4
    assert LETTER not in done.output


def test_networks_are_listed_with_standing_list_and_directory(node: AnsweringNode) -> None:
    done = node.run("networks")
    row = done.stdout.splitlines()[1]
    for cell in ("Montana Imaging", "member", "7", show_time(DAY), "12", "connected directory."):
        assert cell in row
    assert "PROBLEM" not in done.stdout


def test_later_epoch_of_a_list_is_shown_and_a_network_without_a_list_has_no_date(
    node: AnsweringNode,
) -> None:
    second, new = pb.Network(), pb.Network(name="New", standing="waiting", list_expires_seconds=DAY)
    second.CopyFrom(MONTANA)
    second.list_epoch = 2
    node.answers[LIST] = pb.ListNetworksResponse(networks=[second, new])
    first, last = node.run("networks").stdout.splitlines()[1:]
    assert "7 (epoch 2)" in first
    assert show_time(DAY) not in last


def test_networks_fit_80_columns_with_the_problem_below(node: AnsweringNode) -> None:
    long = pb.Network()
    long.CopyFrom(MONTANA)
    long.name = "Montana, Wyoming and Idaho Imaging Exchange"
    long.endpoint = "directory-of-the-exchange.imaging.example.org:7420"
    long.problem = "the directory's certificate is of another name " * 3
    node.answers[LIST] = pb.ListNetworksResponse(networks=[long])
    shown = node.run("networks", width=80).stdout
    assert widest(shown) <= 80
    _, row, below, *_ = shown.splitlines()
    assert row.startswith("Montana, Wyo")
    assert "member" in row
    assert below.startswith("    problem: the directory's certificate")


def test_no_network_leads_to_how_to_join_one(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListNetworksResponse()
    assert node.run("networks").stdout == "No network is joined: `emix join --help`.\n"
    assert node.json("networks") == {"networks": []}


def test_network_is_left_by_its_name(node: AnsweringNode) -> None:
    done = node.run("networks", "leave", "Montana Imaging")
    assert done.stdout == "Left Montana Imaging. Its operator can revoke the membership too.\n"
    assert node.names == [LEAVE]
    assert node.requests(LEAVE) == [pb.LeaveNetworkRequest(network="Montana Imaging")]
    assert node.json("networks", "leave", "Montana Imaging")["network_id"] == "N1"


def facility(**changes: object) -> pb.FoundFacility:
    facts: dict[str, object] = {
        "facility_id": FACILITY,
        "display_name": "Billings Hospital",
        "listed_name": "Billings Hospital",
        "city": "Billings",
        "departments": ["CT", "MR"],
        "standing": "member",
        "online": True,
        **changes,
    }
    return pb.FoundFacility(**facts)  # type: ignore[arg-type]


def test_words_are_sought_together_and_at_most_so_many_are_listed(node: AnsweringNode) -> None:
    assert node.run("find", "great", "falls").stdout == "No facility matches.\n"
    node.run("find", "billings mr", "--limit", "100")
    assert node.requests(FIND) == [
        pb.FindFacilitiesRequest(words="great falls", limit=20),
        pb.FindFacilitiesRequest(words="billings mr", limit=100),
    ]


@pytest.mark.parametrize(
    "arguments", [(), ("billings", "--limit", "0"), ("billings", "--limit", "101")]
)
def test_search_that_cannot_be_meant_is_not_sent(
    node: AnsweringNode, arguments: tuple[str, ...]
) -> None:
    assert node.run("find", *arguments).exit_code == 2
    assert node.sent == []


def test_found_facility_is_shown_with_its_whole_id(node: AnsweringNode) -> None:
    node.answers[FIND] = pb.FindFacilitiesResponse(facilities=[facility()])
    done = node.run("find", "billings")
    cells = [cell.strip() for cell in done.stdout.splitlines()[1].split("  ") if cell]
    assert cells == ["Billings Hospital", "Billings", "CT MR", "online", "member", FACILITY]
    assert done.stderr == ""


def test_name_that_a_facility_gives_itself_is_shown_if_it_is_another(node: AnsweringNode) -> None:
    other = facility(display_name="Best Hospital", paired=True, online=False)
    node.answers[FIND] = pb.FindFacilitiesResponse(facilities=[other, facility()])
    heading, first, second = node.run("find", "billings").stdout.splitlines()
    assert "CALLS ITSELF" in heading
    assert "Best Hospital" in first
    assert second.count("Billings Hospital") == 1
    assert "offline" in first
    assert "paired" in first
    assert "paired" not in second


def test_facility_whose_directory_is_silent_is_shown_with_when_it_was_seen(
    node: AnsweringNode,
) -> None:
    node.answers[FIND] = pb.FindFacilitiesResponse(
        facilities=[facility(seen_seconds=DAY, online=True)],
        silent_networks=["Montana Imaging", "Wyoming"],
    )
    done = node.run("find", "billings")
    assert f"seen {show_time(DAY)}" in done.stdout
    assert "online" not in done.stdout
    assert done.stderr.startswith(
        "The directory of Montana Imaging, Wyoming does not answer (`emix networks` says why)"
    )
    assert node.json("find", "billings")["silent_networks"] == ["Montana Imaging", "Wyoming"]


def test_found_facilities_fit_80_columns_and_the_id_stays_whole(node: AnsweringNode) -> None:
    name = "Hospital of the Sisters of Charity of Leavenworth"
    long = facility(
        listed_name=name,
        display_name=f"The {name}",
        departments=["CT", "MR", "US", "NM", "PT", "XA", "Emergency"],
        city="Saint Mary of the Mountains",
        seen_seconds=DAY,
    )
    node.answers[FIND] = pb.FindFacilitiesResponse(facilities=[long])
    shown = node.run("find", "charity", width=80).stdout
    assert widest(shown) <= 80
    assert f"facility id: {FACILITY}" in shown
