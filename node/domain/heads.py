"""Heads of audit logs, as facilities keep them for each other.

A head states the number of entries of a log and the digest of the newest. Each digest covers all
entries before it. A witness, which keeps a head, accepts a later head only with a proof that the
log has only grown in between. So a facility cannot show two different logs to a witness unnoticed,
and need not reveal the content of its log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from node.domain.audit import DIGEST_BYTES, follow
from node.domain.ids import FacilityId, NodeId

MAX_SEQUENCE = 2**53
MAX_LINKS = 1000
"""Links in one proof: 32 kB, within the bound of a Hello."""

MOST_UNPROVEN = 3
MOST_DAYS = 14
MOST_EVIDENCE = 4
MOST_NODES = 3
"""Nodes of one facility whose heads are kept; there are several if its node was replaced."""

MOST_REPORTED = 8
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Head:
    """What a node said of its audit log.

    Attributes:
        facility: The facility whose log it is.
        node: Its node that keeps the log.
        sequence: The newest entry's number.
        digest: The newest entry's digest.
        time_milliseconds: When the newest entry was made, by that node's clock.
    """

    facility: FacilityId
    node: NodeId
    sequence: int
    digest: bytes
    time_milliseconds: int


@dataclass(frozen=True, slots=True)
class GivenHead:
    """A head as it is given away: the signed document, and the proof that it goes on from another.

    Attributes:
        encoded: The document.
        after: The entry from which the proof goes on; 0 without one.
        links: See `node.domain.audit.follow`.
    """

    encoded: bytes
    after: int = 0
    links: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A head as a witness keeps it.

    Attributes:
        head: What was said.
        encoded: The signed document.
        taken_time: When the witness took it, by its clock.
        is_contradicted: Whether its node has later shown a log that does not go on from it.
    """

    head: Head
    encoded: bytes
    taken_time: float
    is_contradicted: bool


@dataclass(frozen=True, slots=True)
class ReportedHead:
    """A head of our own log that a witness reported it keeps, and when it reported it.

    `is_heard`: it was reported since this process began. Earlier reports were read from this
    machine and may have been changed together with the log.
    """

    witness: FacilityId
    sequence: int
    digest: bytes
    taken_time: float
    reported_time: float
    is_heard: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """What one facility confirms about our log.

    Attributes:
        facility: The witness.
        sequence: The newest entry that it confirms; 0 for none.
        taken_time: When it accepted that head, by its clock.
        reported_time: When it last reported to us.
        is_heard: Whether it reported since this process began.
        problem: How what it keeps contradicts our log; empty if it does not.
    """

    facility: FacilityId
    sequence: int
    taken_time: float
    reported_time: float
    is_heard: bool
    problem: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """How far witnesses confirm our log, by their last reports.

    Attributes:
        entries: How many entries the log has.
        sequence: The newest entry that a witness confirms; 0 for none.
        unconfirmed_time: When the entry after that was made; 0 if all are confirmed.
        witnesses: How many facilities keep heads.
        contradictions: How many of those heads contradict the log.
    """

    entries: int
    sequence: int
    unconfirmed_time: float
    witnesses: int
    contradictions: int

    def unconfirmed_seconds(self, now: float) -> float:
        """Return for how long there has been an entry that nobody confirms."""
        return max(0.0, now - self.unconfirmed_time) if self.unconfirmed_time else 0.0


class Judgement(Enum):
    """How a head that is shown relates to the kept heads of the same log."""

    FIRST = "the first"
    KNOWN = "known"
    GREW = "the log has grown to it"
    UNPROVEN = "not shown to go on from the newest"
    CONTRADICTS = "of another log"


def judge(kept: Sequence[Head], shown: Head, after: int, links: bytes) -> Judgement:
    """Check a head against those of the same log that are kept.

    A head is unproven if it is outdated, or if its node does not know yet which head is kept here.
    That is no contradiction: the node is told which head is kept, and sends the proof next time.
    """
    if not kept:
        return Judgement.FIRST
    same = {head.digest for head in kept if head.sequence == shown.sequence}
    if same:
        return Judgement.KNOWN if same == {shown.digest} else Judgement.CONTRADICTS
    newest = max(kept, key=lambda head: head.sequence)
    is_proof = after == newest.sequence and shown.sequence == after + len(links) // DIGEST_BYTES
    if not is_proof or shown.sequence < newest.sequence:
        return Judgement.UNPROVEN
    if follow(newest.digest, after, links) == shown.digest:
        return Judgement.GREW
    return Judgement.CONTRADICTS


def contradicted(kept: Sequence[Head], shown: Head) -> list[Head]:
    """Return the kept heads that `shown` contradicts, if it is no continuation of them.

    These are the newest, and every head with as many entries as `shown`, or more.
    """
    newest = max(kept, key=lambda head: head.sequence)
    return [head for head in kept if head is newest or head.sequence >= shown.sequence]


def thinned(kept: Sequence[KeptHead]) -> set[Head]:
    """Return which heads of one log to go on keeping: the first, the newest, and one a day.

    Days are those of the witness, and of each its first head stays: nothing that comes later in a
    day can push it out.
    """
    ordered = sorted(kept, key=lambda found: found.head.sequence)
    first_of_day: dict[int, Head] = {}
    for found in ordered:
        first_of_day.setdefault(int(found.taken_time // _DAY_SECONDS), found.head)
    days = sorted(first_of_day)[-MOST_DAYS:]
    return {ordered[0].head, ordered[-1].head, *(first_of_day[day] for day in days)}


def own_problem(sequence: int, digest: bytes, found: bytes | None) -> str:
    """Return how a head that a witness keeps of a log contradicts that log; empty if it does not.

    Args:
        sequence: The head's entry.
        digest: The head's digest.
        found: The digest of that entry in the log; None where the log ends before it.
    """
    if found is None:
        return (
            f"entry {sequence} was confirmed, but this log ends before it: it was truncated, or"
            " an old copy of the home was restored"
        )
    if found != digest:
        return (
            f"entry {sequence} was confirmed, but this log has a different one: the log was"
            " rewritten, or continued from an old copy of the home"
        )
    return ""


def witnesses(reported: Sequence[ReportedHead], digests: Mapping[int, bytes]) -> list[Witness]:
    """Return what each facility confirms about a log, the one that confirms most first.

    Args:
        reported: Their reports.
        digests: The digests of those entries named in the reports that the log has.
    """
    found: dict[FacilityId, Witness] = {}
    for head in sorted(reported, key=lambda head: head.sequence):
        now = found.get(head.witness)
        problem = own_problem(head.sequence, head.digest, digests.get(head.sequence))
        if problem or now is None:
            sequence, taken = (now.sequence, now.taken_time) if now else (0, 0.0)
            now = Witness(head.witness, sequence, taken, head.reported_time, head.is_heard, problem)
        if not problem:
            now = replace(now, sequence=head.sequence, taken_time=head.taken_time)
        found[head.witness] = now
    return sorted(found.values(), key=lambda witness: -witness.sequence)
