"""`emix peers`: who is paired, pairing in each way, and removing a facility."""

import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.cli import peer_commands
from node.domain.ids import FacilityId
from node.errors import Conflict, DocumentError, NotFound
from tests.support.answering import AnsweringNode, widest

LIST, PAIR, REMOVE = "PeerService.ListPeers", "PeerService.PairPeer", "PeerService.RemovePeer"
BEGIN, WAITING = "PeerService.BeginStringPairing", "PeerService.ListStringPairings"
CONFIRM = "PeerService.ConfirmStringPairing"
ID = str(FacilityId(b"\1" * 32))
HOURS = 3600


def peer(number: int = 1, state: str = "connected", **changes: object) -> pb.Peer:
    facts: dict[str, object] = {
        "facility_id": str(FacilityId(bytes([number] * 32))),
        "display_name": "Billings Hospital",
        "state": state,
        "route": "lan",
        "endpoint": "imaging.example.org:7410",
        "last_seen_seconds": int(time.time()) - 2 * HOURS,
        **changes,
    }
    return pb.Peer(**facts)  # type: ignore[arg-type]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            LIST: pb.ListPeersResponse(peers=[peer()]),
            PAIR: pb.PairPeerResponse(peer=peer(state="connecting")),
            REMOVE: pb.RemovePeerResponse(peer=peer(state="removed")),
        },
    )


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a command look again at once, and let a second pass with each look."""
    monkeypatch.setattr(peer_commands, "_LOOK_SECONDS", 0)
    clock = SimpleNamespace(monotonic=count().__next__)
    monkeypatch.setattr(peer_commands, "time", clock)


def settling(node: AnsweringNode, states: Sequence[pb.Peer]) -> None:
    """Have the peer be in one of these states after the other; it stays in the last one."""

    def listed(_: object) -> pb.ListPeersResponse:
        looks = node.names.count(LIST)
        return pb.ListPeersResponse(peers=[peer(2), states[min(looks, len(states)) - 1]])

    node.answers[LIST] = listed


def test_list_shows_state_route_and_when_a_facility_was_seen(node: AnsweringNode) -> None:
    far = peer(2, "unreachable", round_trip_milliseconds=1.26, bytes_a_second=5_000_000)
    far.problem, far.warning, far.last_seen_seconds = "refused", "its clock is ahead", 0
    node.answers[LIST] = pb.ListPeersResponse(peers=[peer(), far])
    done = node.run("peers")
    first, second = done.stdout.splitlines()[1:]
    for cell in ("Billings Hospital", ID, "connected", "lan", "2 h ago"):
        assert cell in first
    for cell in ("unreachable", "never", "1.3", "5.0 MB/s", "refused", "its clock is ahead"):
        assert cell in second
    assert "These facilities claim" not in done.stdout
    assert "STRING" not in done.stdout


def test_list_fits_80_columns_with_problem_and_warning_below(node: AnsweringNode) -> None:
    long = peer(display_name="Hospital of the Sisters of Charity of Leavenworth")
    long.problem, long.warning = "no answer at that address " * 5, "its clock is ahead " * 6
    long.round_trip_milliseconds, long.bytes_a_second = 120.5, 5_000_000
    waiting = pb.BeginStringPairingResponse(short_string="K7QM-2XTA", display_name="Butte " * 9)
    node.answers[LIST] = pb.ListPeersResponse(peers=[long], waiting_pairings=[waiting])
    shown = node.run("peers", width=80).stdout
    assert widest(shown) <= 80
    for text in ("connected", "    problem: no answer at", "    warning: its clock is"):
        assert text in shown


def test_facility_that_claims_to_have_paired_is_shown_as_not_verified(node: AnsweringNode) -> None:
    asked = int(time.time()) - 2 * HOURS
    asking = pb.AskingFacility(facility_id=ID, display_name="Havre Clinic", asked_seconds=asked)
    node.answers[LIST] = pb.ListPeersResponse(asking_facilities=[asking])
    first, *lines = node.run("peers").stdout.splitlines()
    assert first == "No facility is paired yet: `emix peers pair --help`."
    said = " ".join(lines)
    assert "the claim is not verified" in said
    assert "compare the whole ID by telephone, then run `emix peers pair FACILITY-ID`" in said
    assert lines[-2:] == ["  'Havre Clinic', 2 h ago", f"    {ID}"]


def test_pairings_that_wait_are_listed_with_how_to_confirm(node: AnsweringNode) -> None:
    waiting = pb.BeginStringPairingResponse(short_string="K7QM-2XTA", display_name="Butte")
    node.answers[LIST] = pb.ListPeersResponse(peers=[peer()], waiting_pairings=[waiting])
    lines = node.run("peers").stdout.splitlines()
    assert lines[-2].split() == ["K7QM-2XTA", "Butte"]
    assert lines[-1].endswith("`emix peers confirm STRING`")


def test_list_in_json_has_every_part(node: AnsweringNode) -> None:
    shown = node.json("peers")
    assert [one["facility_id"] for one in shown["peers"]] == [ID]
    assert (shown["waiting_pairings"], shown["asking_facilities"]) == ([], [])


def test_pairing_by_id_asks_the_node_with_all_options(node: AnsweringNode) -> None:
    options = ("--at", "imaging.example.org:7411", "--endpoint", "[2001:db8::1]:7410")
    done = node.run("peers", "pair", ID, *options, "--restore-removed")
    assert done.exit_code == 0
    assert node.requests(PAIR) == [
        pb.PairPeerRequest(
            facility_id=ID,
            at="imaging.example.org:7411",
            endpoint="[2001:db8::1]:7410",
            restore_removed=True,
        )
    ]
    assert done.stdout.splitlines() == [
        "Paired with Billings Hospital.",
        f"Its Facility ID, to be compared by telephone: {ID}",
        "It has paired with this facility, too: connected (lan).",
    ]


@pytest.mark.parametrize("option", ["--file", None])
def test_pairing_by_file_sends_what_is_in_it(
    node: AnsweringNode, tmp_path: Path, option: str | None
) -> None:
    file = tmp_path / "billings.emix"
    file.write_bytes(b"statements")
    arguments = (str(file),) if option is None else (option, str(file))
    assert node.run("peers", "pair", *arguments).exit_code == 0
    assert node.requests(PAIR) == [pb.PairPeerRequest(statements=b"statements")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "name a Facility ID, a file, or an address with --at"),
        ((ID, "--file", "b.emix"), "name a Facility ID or a file, not both"),
        (("billings.emix",), "billings.emix is not a Facility ID; give a file with --file"),
        (("/nowhere/b.emix",), "/nowhere/b.emix does not exist"),
        ((ID, "--at", "example.org"), "--at must be HOST:PORT, such as imaging.example.org:7411"),
        ((ID, "--at", ":7411"), "--at must be HOST:PORT"),
        ((ID, "--endpoint", "example.org:"), "--endpoint must be HOST:PORT"),
    ],
)
def test_pairing_that_cannot_be_meant_is_not_sent(
    node: AnsweringNode, arguments: tuple[str, ...], text: str
) -> None:
    done = node.run("peers", "pair", *arguments)
    assert (done.exit_code, node.sent) == (2, [])
    assert text in done.stderr


def test_empty_file_and_folder_are_not_sent(node: AnsweringNode, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = node.run("peers", "pair", f"{tmp_path}/empty")
    assert (done.exit_code, node.sent) == (2, [])
    assert "is empty; ask the facility to export it again" in done.stderr
    assert node.run("peers", "pair", "--file", str(tmp_path)).exit_code != 0
    assert node.sent == []


def test_file_of_another_kind_is_wrong_usage(node: AnsweringNode, tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_bytes(b"something else")
    node.answers[PAIR] = DocumentError("no statement begins so")
    done = node.run("peers", "pair", f"{file}")
    assert done.exit_code == 2
    assert "the file is not what `emix id --export` writes, or damaged" in done.stderr
    assert "no statement begins so" in done.stderr
    assert node.run("peers", "pair", ID).exit_code == 14


def test_pairing_waits_until_it_is_clear_that_the_other_side_has_not_paired(
    node: AnsweringNode,
) -> None:
    not_yet = peer(state="connecting", problem="it is not paired with this facility")
    settling(node, [peer(state="connecting"), peer(state="connecting"), not_yet])
    done = node.run("peers", "pair", ID)
    assert node.names == [PAIR, LIST, LIST, LIST]
    assert done.stdout.splitlines()[-1] == (
        "It has not paired with this facility yet. Ask it to compare this facility's ID"
        " (`emix id` here, `emix peers` there) and to run `emix peers pair FACILITY-ID`."
    )


@pytest.mark.parametrize(("problem", "why"), [("", ""), ("no answer", " (no answer)")])
def test_facility_that_stays_away_is_tried_on_and_must_pair_too(
    node: AnsweringNode, problem: str, why: str
) -> None:
    settling(node, [peer(state="connecting", problem=problem)])
    last = node.run("peers", "pair", ID).stdout.splitlines()[-1]
    assert 1 < node.names.count(LIST) < 10
    assert last.startswith(f"It is not connected yet{why}; this node keeps trying.")
    assert "`emix id --export FILE`" in last


def test_pairing_in_json_has_the_settled_state(node: AnsweringNode) -> None:
    settling(node, [peer(state="connecting"), peer()])
    node.answers[PAIR] = pb.PairPeerResponse(peer=peer(state="connecting"), warnings=["alike"])
    shown = node.json("peers", "pair", ID)
    assert (shown["peer"]["state"], shown["warnings"]) == ("connected", ["alike"])


ALIKE = "'Bi1lings Hospital' looks like 'Billings Hospital', which is paired"


def wary(request: pb.PairPeerRequest) -> pb.PairPeerResponse | Conflict:
    """Pair as a node does that has a facility of a name that looks the same."""
    if request.refuse_alike:
        return Conflict(ALIKE)
    return pb.PairPeerResponse(peer=peer(), warnings=[ALIKE])


def test_name_that_looks_like_anothers_is_asked_about_at_a_terminal(node: AnsweringNode) -> None:
    node.answers[PAIR] = wary
    done = node.run("peers", "pair", ID, typed="y\n")
    assert done.exit_code == 0
    assert [request.refuse_alike for request in node.requests(PAIR)] == [True, False]
    assert done.stderr.count(f"WARNING  {ALIKE}") == 1
    assert "Pair with it all the same?" in done.output
    assert "Paired with Billings Hospital." in done.stdout


def test_name_that_looks_like_anothers_is_not_paired_if_declined(node: AnsweringNode) -> None:
    node.answers[PAIR] = wary
    done = node.run("peers", "pair", ID, typed="n\n")
    assert done.exit_code == 1
    assert [request.refuse_alike for request in node.requests(PAIR)] == [True]
    assert "Paired with" not in done.stdout


def test_name_that_looks_like_anothers_is_a_warning_where_nobody_is_asked(
    node: AnsweringNode,
) -> None:
    node.answers[PAIR] = wary
    done = node.run("peers", "pair", ID)
    assert done.exit_code == 0
    assert [request.refuse_alike for request in node.requests(PAIR)] == [False]
    assert done.stderr == f"WARNING  {ALIKE}\n"


def test_other_conflict_is_no_question(node: AnsweringNode) -> None:
    node.answers[PAIR] = Conflict("it was removed; pair with --restore-removed")
    done = node.run("peers", "pair", ID, typed="y\n")
    assert (done.exit_code, len(node.requests(PAIR))) == (5, 1)
    assert "--restore-removed" in done.stderr


def test_pairing_by_string_shows_the_string_and_the_next_step(node: AnsweringNode) -> None:
    node.answers[BEGIN] = pb.BeginStringPairingResponse(
        short_string="K7QM-2XTA", display_name="Butte"
    )
    done = node.run("peers", "pair", "--at", "imaging.example.org:7411")
    assert node.requests(BEGIN) == [pb.BeginStringPairingRequest(at="imaging.example.org:7411")]
    assert node.names == [BEGIN]
    assert "calls itself 'Butte' (not verified yet)" in done.stdout
    assert "Both sides now show:  K7QM-2XTA" in done.stdout
    assert done.stdout.splitlines()[-1] == "  emix peers confirm K7QM-2XTA"
    assert node.json("peers", "pair", "--at", "x:1")["short_string"] == "K7QM-2XTA"


def test_pairings_that_wait_are_listed_by_confirm_without_a_string(node: AnsweringNode) -> None:
    node.answers[WAITING] = pb.ListStringPairingsResponse()
    assert node.run("peers", "confirm").stdout == "No pairing waits for confirmation.\n"
    waiting = pb.BeginStringPairingResponse(short_string="K7QM-2XTA", display_name="Butte")
    node.answers[WAITING] = pb.ListStringPairingsResponse(pairings=[waiting])
    assert "K7QM-2XTA" in node.run("peers", "confirm").stdout
    assert node.json("peers", "confirm")["pairings"][0]["display_name"] == "Butte"
    assert CONFIRM not in node.names


@pytest.mark.parametrize(
    ("state", "last"),
    [
        ("connected", "It has paired with this facility, too: connected (lan)."),
        ("connecting", "The other side must confirm the string, too."),
    ],
)
def test_confirmed_string_pairs_and_says_what_the_other_side_has_to_do(
    node: AnsweringNode, state: str, last: str
) -> None:
    node.answers[CONFIRM] = pb.ConfirmStringPairingResponse(
        peer=peer(state="connecting"), warnings=[ALIKE]
    )
    settling(node, [peer(state=state)])
    done = node.run("peers", "confirm", "K7QM-2XTA")
    assert node.requests(CONFIRM) == [pb.ConfirmStringPairingRequest(short_string="K7QM-2XTA")]
    assert done.stdout.splitlines() == [f"Paired with Billings Hospital ({ID}).", last]
    assert done.stderr == f"WARNING  {ALIKE}\n"
    assert node.json("peers", "confirm", "K7QM-2XTA")["peer"]["facility_id"] == ID


def test_string_that_does_not_match_pairs_nobody(node: AnsweringNode) -> None:
    node.answers[CONFIRM] = NotFound("no pairing with that string waits")
    done = node.run("peers", "confirm", "AAAA-AAAA")
    assert (done.exit_code, done.stdout) == (4, "")


@pytest.mark.parametrize("named", ["Billings Hospital", "billings hospital", ID, ID[:18].lower()])
def test_facility_is_removed_by_its_whole_id_once_confirmed(
    node: AnsweringNode, named: str
) -> None:
    done = node.run("peers", "remove", named, typed="y\n")
    assert done.exit_code == 0
    assert f"Remove Billings Hospital, Facility ID {ID}?" in done.stderr
    assert node.requests(REMOVE) == [pb.RemovePeerRequest(facility=ID)]
    assert done.stdout == (
        "Removed Billings Hospital. It keeps the studies that it has received.\n"
    )


def test_declined_removal_removes_nobody(node: AnsweringNode) -> None:
    done = node.run("peers", "remove", ID, typed="n\n")
    assert (done.exit_code, "nothing was done" in done.stderr) == (1, True)
    assert REMOVE not in node.names


def test_removal_without_a_terminal_needs_yes(node: AnsweringNode) -> None:
    assert node.error("peers", "remove", ID)["exit_status"] == 2
    assert REMOVE not in node.names
    assert node.json("peers", "remove", ID, "--yes")["state"] == "removed"
    assert node.requests(REMOVE) == [pb.RemovePeerRequest(facility=ID)]


def test_removed_or_unknown_facility_is_not_removed_again(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListPeersResponse(
        peers=[peer(state="removed"), pb.Peer(facility_id="x", display_name="Havre")]
    )
    for name in ("Billings Hospital", "Havre"):
        done = node.run("peers", "remove", name, "--yes")
        assert (done.exit_code, "`emix peers` lists them" in done.stderr) == (4, True)
    assert REMOVE not in node.names
