"""Heads of audit logs: what is taken, what contradicts, what is kept."""

from dataclasses import replace

import pytest

from node.domain.audit import FIRST, entry_digest
from node.domain.heads import (
    MOST_DAYS,
    Head,
    Judgement,
    KeptHead,
    ReportedHead,
    contradicted,
    judge,
    thinned,
    witnesses,
)
from node.domain.ids import FacilityId, NodeId

FACILITY, NODE = FacilityId(b"f" * 32), NodeId(b"n" * 32)


def make_chain(size: int, word: bytes = b"a") -> tuple[list[Head], list[bytes]]:
    """Return the heads of a log, from the first entry on, and the links between them."""
    previous, heads, links = FIRST, [], []
    for n in range(1, size + 1):
        links.append((word * 32)[:28] + n.to_bytes(4, "big"))
        previous = entry_digest(previous, n, links[-1])
        heads.append(Head(FACILITY, NODE, n, previous, n * 1000))
    return heads, links


HEADS, LINKS = make_chain(20)
OTHERS, OTHER_LINKS = make_chain(20, b"b")


def proof(after: int, until: int, links: list[bytes] = LINKS) -> tuple[int, bytes]:
    return after, b"".join(links[after:until])


@pytest.mark.parametrize(
    ("kept", "shown", "given", "expected"),
    [
        ([], HEADS[4], (0, b""), Judgement.FIRST),
        ([HEADS[4]], HEADS[4], (0, b""), Judgement.KNOWN),
        ([HEADS[1], HEADS[4]], HEADS[1], (0, b""), Judgement.KNOWN),
        ([HEADS[1], HEADS[4]], HEADS[9], proof(5, 10), Judgement.GREW),
        ([HEADS[4]], HEADS[9], (0, b""), Judgement.UNPROVEN),
        ([HEADS[4]], HEADS[9], proof(4, 10), Judgement.UNPROVEN),
        ([HEADS[4]], HEADS[9], proof(5, 9), Judgement.UNPROVEN),
        ([HEADS[4]], HEADS[2], (0, b""), Judgement.UNPROVEN),
        ([HEADS[4]], OTHERS[4], (0, b""), Judgement.CONTRADICTS),
        ([HEADS[1], HEADS[4]], OTHERS[1], (0, b""), Judgement.CONTRADICTS),
        ([HEADS[4]], OTHERS[9], proof(5, 10, OTHER_LINKS), Judgement.CONTRADICTS),
        ([HEADS[4]], HEADS[9], proof(5, 10, OTHER_LINKS), Judgement.CONTRADICTS),
    ],
)
def test_head_is_judged(
    kept: list[Head], shown: Head, given: tuple[int, bytes], expected: Judgement
) -> None:
    assert judge(kept, shown, *given) is expected


def test_what_another_log_cannot_have_had_is_at_least_the_newest() -> None:
    kept = [HEADS[9], HEADS[5], HEADS[1]]
    assert contradicted(kept, OTHERS[15]) == [HEADS[9]]
    assert contradicted(kept, OTHERS[4]) == [HEADS[9], HEADS[5]]


def test_kept_are_the_first_the_newest_and_the_first_of_each_day() -> None:
    day = 86400
    kept = [
        KeptHead(replace(HEADS[0], sequence=n + 1), b"", n * day / 4, is_contradicted=False)
        for n in range(400)
    ]
    found = {head.sequence for head in thinned(kept)}
    assert {1, 400} < found
    assert len(found) == MOST_DAYS + 2
    # Nothing that comes later in a day pushes its first one out.
    assert all((n - 1) % 4 == 0 for n in found - {1, 400})


def test_witness_confirms_up_to_its_newest_head_and_one_that_differs_stands_out() -> None:
    a, b = FacilityId(b"a" * 32), FacilityId(b"b" * 32)
    told = [
        ReportedHead(a, 10, HEADS[9].digest, 1, 2),
        ReportedHead(a, 5, HEADS[4].digest, 0, 2),
        ReportedHead(b, 12, OTHERS[11].digest, 1, 2),
        ReportedHead(b, 3, HEADS[2].digest, 0, 2, is_heard=True),
    ]
    first, second = witnesses(told, {h.sequence: h.digest for h in HEADS})
    assert (first.facility, first.sequence, first.problem) == (a, 10, "")
    assert (second.facility, second.sequence) == (b, 3)
    assert "rewritten" in second.problem
    assert "truncated" in witnesses(told, {})[0].problem
