"""The report of `emix audit verify`: who confirms the log, up to where, and what contradicts it."""

import time

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.cli.verifying import VerifyReport

NOW = 1_800_000_000.0
HOURS = 3600


def witness(name: str, through: int, *, heard_ago: int = -1, problem: str = "") -> pb.AuditWitness:
    """Return a facility that keeps a head, heard so many seconds ago; negative for never."""
    return pb.AuditWitness(
        display_name=name,
        sequence=through,
        taken_seconds=int(time.time()) - 2 * HOURS,
        heard=heard_ago >= 0,
        reported_seconds=int(NOW) - max(heard_ago, 0),
        problem=problem,
    )


def answer(*witnesses: pb.AuditWitness, problem: str = "") -> pb.VerifyAuditResponse:
    """Return what a node found about a log of 40 entries."""
    return pb.VerifyAuditResponse(
        entries=40, head=b"\xab\xcd", problem=problem, witnesses=witnesses
    )


def report(found: pb.VerifyAuditResponse, *, is_asked: bool = False) -> tuple[int, list[str]]:
    made = VerifyReport(found, is_asked=is_asked, now=NOW)
    return made.status, list(made.lines())


def test_log_that_nobody_else_keeps_is_intact_but_not_confirmed() -> None:
    assert report(answer()) == (
        0,
        [
            "40 entries, head abcd",
            "The chain of 40 entries is intact.",
            "Nobody confirms it: anyone with this machine's keys could have written it.",
        ],
    )


def test_broken_chain_is_reported_instead_of_an_intact_one() -> None:
    status, lines = report(answer(problem="entry 7 does not follow entry 6"))
    assert status == 1
    assert "BROKEN: entry 7 does not follow entry 6" in lines
    assert not any("intact" in line for line in lines)


def test_confirmed_part_and_the_rest_are_counted() -> None:
    found = answer(witness("Billings", 38), witness("Havre", 30))
    status, lines = report(found)
    assert status == 0
    assert lines[2:] == [
        "Entries up to 38 are confirmed: 2 facilities keep heads of this log"
        " (the newest: Billings, taken 2 h ago).",
        "No facility has confirmed the last 2 yet.",
        "These heads were read from this machine, whose keys suffice to change them."
        " To ask the facilities themselves: emix audit verify --witnesses",
    ]


def test_newest_head_is_of_the_facility_that_took_it_last() -> None:
    early, late = witness("Billings", 40), witness("Havre", 40)
    early.taken_seconds -= HOURS
    _, lines = report(answer(early, late))
    assert "(the newest: Havre, taken 2 h ago)." in lines[2]
    assert not any("has confirmed the last" in line for line in lines)


def test_one_facility_is_counted_in_the_singular() -> None:
    _, lines = report(answer(witness("Billings", 40)))
    assert lines[2].startswith("Entries up to 40 are confirmed: 1 facility keeps heads of this log")


@pytest.mark.parametrize("is_asked", [False, True])
def test_contradiction_fails_even_if_others_confirm(is_asked: bool) -> None:
    other = witness("Havre", 30, problem="entry 30 was another one there")
    status, lines = report(answer(witness("Billings", 38, heard_ago=1), other), is_asked=is_asked)
    assert status == 1
    assert "CONTRADICTED by Havre: entry 30 was another one there." in lines
    assert any("1 facility keeps heads" in line for line in lines)


def test_contradiction_is_no_confirmation() -> None:
    _, lines = report(answer(witness("Havre", 40, problem="another entry")))
    assert lines[-1].startswith("Nobody confirms it")


def test_asked_facility_that_was_just_heard_confirms_without_a_doubt_about_this_machine() -> None:
    status, lines = report(answer(witness("Billings", 40, heard_ago=59)), is_asked=True)
    assert status == 0
    assert lines[-1].startswith("Entries up to 40 are confirmed")


@pytest.mark.parametrize("heard_ago", [-1, 60, 5 * HOURS])
def test_what_was_heard_earlier_proves_nothing_when_facilities_are_asked(heard_ago: int) -> None:
    found = answer(witness("Billings", 40, heard_ago=heard_ago))
    found.silent.append("Billings")
    status, lines = report(found, is_asked=True)
    assert status == 20
    assert lines[-2:] == [
        "Billings did not answer.",
        "NOT PROVEN: no connected facility keeps heads of this log.",
    ]
    assert report(found)[0] == 0


def test_facility_that_answers_without_a_head_confirms_nothing() -> None:
    status, lines = report(answer(witness("Billings", 0, heard_ago=1)), is_asked=True)
    assert status == 0
    assert lines[-1].startswith("Nobody confirms it")


def test_broken_chain_outweighs_that_nobody_answered() -> None:
    assert report(answer(problem="entry 7 is missing"), is_asked=True)[0] == 1


def test_given_head_that_matches_says_up_to_which_entry() -> None:
    found = answer()
    found.given_sequence = 25
    status, lines = report(found)
    assert (status, lines[2]) == (0, "Entries up to 25 match the given head.")


def test_given_head_that_does_not_match_fails() -> None:
    found = answer()
    found.given_sequence, found.given_problem = 25, "entry 25 has another digest here"
    status, lines = report(found)
    assert status == 1
    assert lines[2] == (
        "CONTRADICTED by the given head or entry: entry 25 has another digest here."
    )
    assert not any("match the given head" in line for line in lines)
