"""`emix audit`: entries by filter, alarms, heads that leave the machine, and verification."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.documents.audit_head import head_file, open_head, read_head_file, sign_head
from node.errors import DocumentError, NotFound, UsageError
from tests.node.documents.test_documents import A
from tests.support.answering import AnsweringNode, run_emix, widest

LIST, ACKNOWLEDGE = "AuditService.ListAudit", "AuditService.AcknowledgeAlarms"
VERIFY, HEAD = "AuditService.VerifyAudit", "AuditService.GetAuditHead"
ACCEPT = "AuditService.AcceptPeerLog"
DIGEST = bytes(range(32))
ENCODED = sign_head(4711, DIGEST, 1_800_000_000_000, A).encode()
ENTRIES = [
    pb.AuditEntry(
        sequence=7,
        time_milliseconds=1_800_000_000_000,
        kind="alarm.peer",
        operator="node",
        body='{"peer": "abc"}',
    ),
    pb.AuditEntry(
        sequence=12,
        time_milliseconds=1_800_000_060_000,
        kind="study.exported",
        operator="uid 1000 (alice), says: bob",
        body='{"study": "1.2.826.0.1.3680043.10.1338.7.20261126.4711.12", "files": 240}',
    ),
]


@pytest.fixture(autouse=True)
def denver() -> Iterator[None]:
    """Have local time be seven hours behind in winter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "MST7MDT")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            LIST: pb.ListAuditResponse(entries=ENTRIES),
            ACKNOWLEDGE: pb.AcknowledgeAlarmsResponse(alarms=2),
            VERIFY: verified(),
            HEAD: pb.GetAuditHeadResponse(
                head=ENCODED,
                sequence=4711,
                digest=DIGEST,
                time_milliseconds=1_800_000_000_000,
                facility_id=str(A.facility_id),
            ),
            ACCEPT: pb.AcceptPeerLogResponse(display_name="Great Falls Clinic", heads=3),
        },
    )


def verified(*witnesses: pb.AuditWitness, problem: str = "") -> pb.VerifyAuditResponse:
    return pb.VerifyAuditResponse(entries=4711, head=DIGEST, witnesses=witnesses, problem=problem)


def witness(*, heard: bool = True, problem: str = "") -> pb.AuditWitness:
    now = int(time.time())
    return pb.AuditWitness(
        facility_id="b",
        display_name="Billings Hospital",
        sequence=4700,
        taken_seconds=now - 20,
        reported_seconds=now - 5,
        heard=heard,
        problem=problem,
    )


def test_list_shows_who_did_what_in_local_time(node: AnsweringNode) -> None:
    done = node.run("audit")
    assert done.exit_code == 0
    heading, alarm, exported = done.stdout.splitlines()
    assert heading.split() == ["NO", "TIME", "WHAT", "BY", "FACTS"]
    assert alarm.split()[:5] == ["7", "2027-01-15", "01:00", "alarm.peer", "node"]
    assert "uid 1000 (alice), says: bob" in exported
    assert exported.endswith(ENTRIES[1].body)


def test_list_fits_eighty_columns_with_the_facts_below(node: AnsweringNode) -> None:
    done = node.run("audit", width=80)
    assert widest(done.stdout) <= 80
    assert '    facts: {"peer": "abc"}' in done.stdout.splitlines()


def test_latest_fifty_are_asked_for_without_options(node: AnsweringNode) -> None:
    node.run("audit")
    assert node.requests(LIST) == [pb.ListAuditRequest(limit=50)]


def test_every_filter_is_sent_and_times_are_local(node: AnsweringNode) -> None:
    options = "--limit 0 --study s12 --peer Billings --operator alice --action study."
    times = ("--since", "2027-01-15", "--until", "2027-01-15 01:00:01")
    entries = node.json("audit", *options.split(), *times)["entries"]
    assert [(entry["sequence"], entry["kind"]) for entry in entries] == [
        (7, "alarm.peer"),
        (12, "study.exported"),
    ]
    (request,) = node.requests(LIST)
    assert request == pb.ListAuditRequest(
        limit=0,
        study="s12",
        peer="Billings",
        operator="alice",
        kind="study.",
        since_milliseconds=1_800_000_000_000 - 3_600_000,
        until_milliseconds=1_800_000_001_000,
    )


@pytest.mark.parametrize(
    "options", [("--limit", "-1"), ("--since", "yesterday"), ("--until", "15.1.2027")]
)
def test_wrong_option_is_not_sent(node: AnsweringNode, options: tuple[str, str]) -> None:
    done = node.run("audit", *options)
    assert done.exit_code == 2
    assert options[0] in done.stderr
    assert node.sent == []


def test_empty_list_says_whether_alarms_were_asked_for(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListAuditResponse()
    assert node.run("audit").stdout == "The audit log has no such entry.\n"
    assert node.run("audit", "--alarms").stdout == "No alarm is open.\n"
    assert [request.open_alarms for request in node.requests(LIST)] == [False, True]


def test_unknown_study_is_the_nodes_error(node: AnsweringNode) -> None:
    node.answers[LIST] = NotFound("no study is s99")
    done = node.run("audit", "--study", "s99")
    assert done.exit_code == NotFound.exit_code
    assert done.stderr == "emix: no study is s99\n"


def test_kinds_are_listed_without_a_node(tmp_path: Path) -> None:
    done = run_emix(tmp_path, "audit", "kinds", width=80)
    assert done.exit_code == 0
    assert widest(done.stdout) <= 80
    assert "study.exported" in done.stdout
    kinds = json.loads(run_emix(tmp_path, "audit", "kinds", "--json").stdout)["kinds"]
    assert kinds["alarm.clock"] == "the clock jumped and is not trusted"


def test_alarms_are_acknowledged_up_to_the_last_that_was_shown(node: AnsweringNode) -> None:
    done = node.run("audit", "acknowledge")
    assert done.exit_code == 0
    assert "alarm.peer" in done.stdout
    assert done.stdout.endswith("2 alarms acknowledged.\n")
    assert node.requests(LIST) == [pb.ListAuditRequest(open_alarms=True)]
    assert node.requests(ACKNOWLEDGE) == [pb.AcknowledgeAlarmsRequest(through_sequence=12)]


def test_nothing_is_acknowledged_if_no_alarm_is_open(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListAuditResponse()
    assert node.run("audit", "acknowledge").stdout == "No alarm is open.\n"
    assert node.json("audit", "acknowledge") == {"entries": [], "alarms": 0}
    assert node.names == [LIST, LIST]


def test_acknowledged_alarms_in_json_are_listed_with_their_number(node: AnsweringNode) -> None:
    shown = node.json("audit", "acknowledge")
    assert [entry["sequence"] for entry in shown["entries"]] == [7, 12]
    assert shown["alarms"] == 2


def test_intact_chain_that_nobody_confirms_is_not_called_proven(node: AnsweringNode) -> None:
    done = node.run("audit", "verify")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"4711 entries, head {DIGEST.hex()}",
        "The chain of 4711 entries is intact.",
        "Nobody confirms it: anyone with this machine's keys could have written it.",
    ]
    assert node.requests(VERIFY) == [pb.VerifyAuditRequest()]


def test_facilities_are_asked_if_wanted_and_what_they_confirm_is_shown(
    node: AnsweringNode,
) -> None:
    node.answers[VERIFY] = verified(witness())
    done = node.run("audit", "verify", "--witnesses")
    assert done.exit_code == 0
    assert "Entries up to 4700 are confirmed: 1 facility keeps heads" in done.stdout
    assert "No facility has confirmed the last 11 yet." in done.stdout
    assert node.requests(VERIFY) == [pb.VerifyAuditRequest(ask_witnesses=True)]


def test_exit_status_says_broken_contradicted_or_nobody_asked(node: AnsweringNode) -> None:
    for answer, options, status, text in (
        (verified(problem="entry 9 is missing"), [], 1, "BROKEN: entry 9 is missing"),
        (verified(witness(problem="entry 4700 differs")), [], 1, "CONTRADICTED by Billings"),
        (verified(witness(heard=False)), ["--witnesses"], 20, "NOT PROVEN"),
    ):
        node.answers[VERIFY] = answer
        done = node.run("audit", "verify", *options)
        assert (done.exit_code, text in done.stdout) == (status, True), done.output
        shown = node.json("audit", "verify", *options, status=status)
        assert shown["problem"] == answer.problem


def test_head_in_a_file_is_compared_as_it_was_exported(node: AnsweringNode, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    done = node.run("audit", "head", "--export", str(file))
    assert done.exit_code == 0
    assert done.stdout == f"Wrote {file}; later: emix audit verify --head {file}\n"
    assert open_head(read_head_file(file.read_bytes())).sequence == 4711
    given = verified()
    given.given_sequence, given.given_problem = 4711, "entry 4711 has another digest"
    node.answers[VERIFY] = given
    done = node.run("audit", "verify", "--head", str(file))
    assert done.exit_code == 1
    assert "CONTRADICTED by the given head or entry: entry 4711" in done.stdout
    assert node.requests(VERIFY) == [pb.VerifyAuditRequest(head=ENCODED)]


def test_entry_that_was_written_down_is_compared(node: AnsweringNode) -> None:
    done = node.run("audit", "head")
    assert widest(done.stdout.rpartition("Later:")[0]) <= 80
    assert f"facility  {A.facility_id}" in done.stdout
    assert "entry  4711, 2027-01-15 01:00" in done.stdout
    command = done.stdout.splitlines()[-1].removeprefix("Later: emix ").split()
    given = verified()
    given.given_sequence = 4711
    node.answers[VERIFY] = given
    done = node.run(*command)
    assert done.exit_code == 0
    assert "Entries up to 4711 match the given head." in done.stdout
    assert node.requests(VERIFY) == [pb.VerifyAuditRequest(sequence=4711, digest=DIGEST)]


@pytest.mark.parametrize(
    "entry",
    [
        "4711",
        "4711:",
        "x:" + DIGEST.hex(),
        "0:" + DIGEST.hex(),
        "-1:" + DIGEST.hex(),
        f"{2**53}:" + DIGEST.hex(),
        "4711:" + DIGEST.hex()[2:],
        "4711:" + "zz" * 32,
        "",
    ],
)
def test_entry_that_cannot_be_is_not_sent(node: AnsweringNode, entry: str) -> None:
    done = node.run("audit", "verify", "--entry", entry)
    assert done.exit_code == UsageError.exit_code
    assert "--entry is NUMBER:DIGEST, as `emix audit head` shows it" in done.stderr
    assert node.sent == []


def test_file_that_holds_no_head_is_not_sent(node: AnsweringNode, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    done = node.run("audit", "verify", "--head", str(file))
    assert done.exit_code == UsageError.exit_code
    assert f"{file} cannot be read (No such file or directory)" in done.stderr
    assert node.run("audit", "verify", "--head", "").exit_code == UsageError.exit_code
    file.write_bytes(b"{}")
    assert node.run("audit", "verify", "--head", str(file)).exit_code == DocumentError.exit_code
    file.write_bytes(head_file(ENCODED))
    entry = f"4711:{DIGEST.hex()}"
    done = node.run("audit", "verify", "--head", str(file), "--entry", entry)
    assert (done.exit_code, "not both" in done.stderr) == (UsageError.exit_code, True)
    assert node.sent == []


def test_head_in_json_is_the_nodes_answer_and_written_too(
    node: AnsweringNode, tmp_path: Path
) -> None:
    file = tmp_path / "head.json"
    shown = node.json("audit", "head", "--export", str(file))
    assert (shown["sequence"], shown["facility_id"]) == (4711, str(A.facility_id))
    assert read_head_file(file.read_bytes()) == ENCODED


def test_accepted_log_is_named_with_the_heads_that_count_no_longer(node: AnsweringNode) -> None:
    done = node.run("audit", "accept", "Great Falls")
    assert done.stdout == (
        "The audit log of Great Falls Clinic may begin anew; 3 heads count no longer.\n"
    )
    assert node.requests(ACCEPT) == [pb.AcceptPeerLogRequest(facility="Great Falls")]
    assert node.json("audit", "accept", "Great Falls") == {
        "display_name": "Great Falls Clinic",
        "heads": 3,
    }
