"""The audit log's chain: whatever is changed is found, by the chain or by a head kept elsewhere."""

import random
from dataclasses import replace

from node.domain.audit import FIRST, AuditEntry, ChainWalk, body_digest, entry_digest, follow, link
from node.domain.heads import own_problem

ENTRIES, MUTATIONS = 20_000, 10_000


def chained(entries: list[AuditEntry], previous: bytes = FIRST) -> list[AuditEntry]:
    """Return entries with digests that follow from what they say."""
    made = []
    for entry in entries:
        previous = entry_digest(previous, entry.sequence, link(entry))
        made.append(replace(entry, digest=previous))
    return made


def make_log(size: int) -> list[AuditEntry]:
    dice = random.Random(17)
    return chained(
        [
            AuditEntry(
                sequence=n + 1,
                time_milliseconds=1_700_000_000_000 + n,
                kind=dice.choice(("study.exported", "peer.pinned", "package.closed")),
                body=f'{{"study": "1.2.{dice.randrange(1000)}"}}',
                operator=f"uid {dice.randrange(5)}",
                salt=dice.randbytes(16),
                digest=b"",
            )
            for n in range(size)
        ]
    )


def changed(entry: AuditEntry, dice: random.Random) -> AuditEntry:
    """Return an entry with one value changed a little."""
    match dice.choice(("sequence", "time_milliseconds", "kind", "body", "operator", "salt")):
        case "sequence":
            return replace(entry, sequence=entry.sequence + dice.choice((-1, 1, 2**40)))
        case "time_milliseconds":
            return replace(
                entry, time_milliseconds=entry.time_milliseconds ^ 1 << dice.randrange(40)
            )
        case "salt":
            at = dice.randrange(len(entry.salt))
            flipped = bytes([entry.salt[at] ^ 1 << dice.randrange(8)])
            return replace(entry, salt=entry.salt[:at] + flipped + entry.salt[at + 1 :])
        case name:
            text = getattr(entry, name)
            at = dice.randrange(len(text))
            return replace(entry, **{name: text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]})


def mutated(log: list[AuditEntry], at: int, dice: random.Random) -> list[AuditEntry]:
    """Return what of a log comes from an entry on, after somebody was at it."""
    rest = log[at : at + 3]
    previous = log[at - 1].digest if at else FIRST
    match dice.choice(("value", "digest", "gone", "swapped", "twice", "cut", "rewritten", "added")):
        case "value":
            return [changed(rest[0], dice), *rest[1:]]
        case "digest":
            return [replace(rest[0], digest=dice.randbytes(32)), *rest[1:]]
        case "gone":
            return rest[1:]
        case "swapped":
            return [rest[1], rest[0], *rest[2:]] if len(rest) > 1 else []
        case "twice":
            return [rest[0], *rest]
        case "cut":
            return []
        case "rewritten":  # with right digests to the end of the log
            new = [replace(rest[0], operator="nobody"), *log[at + 1 :]]
            return chained(new[:3], previous)
        case _:  # one more, and all that follow moved on by one
            new = [replace(rest[0], salt=bytes(16)), *rest]
            numbered = [replace(e, sequence=at + 1 + n) for n, e in enumerate(new)]
            return chained(numbered, previous)


def test_ten_thousand_changes_of_a_large_log_are_all_found() -> None:
    """By the chain alone, or else by the head that was kept of the log before it was changed."""
    log, dice = make_log(ENTRIES), random.Random(18)
    by_head = 0
    for n in range(MUTATIONS):
        at = dice.randrange(len(log))
        walk = ChainWalk()
        if n % 1000:  # what comes before is as it was; now and then it is walked all the same
            walk.entries, walk.head = at, log[at - 1].digest if at else FIRST
        else:
            walk.feed(log[:at])
        rest = mutated(log, at, dice)
        kept = log[min(at + dice.randrange(3), len(log) - 1)]
        walk = _continue(walk, rest, kept.sequence)
        problem = own_problem(kept.sequence, kept.digest, walk.digests.get(kept.sequence))
        assert walk.problem or problem, (at, rest)
        by_head += not walk.problem
    assert MUTATIONS / 8 < by_head < MUTATIONS


def _continue(walk: ChainWalk, rest: list[AuditEntry], wanted: int) -> ChainWalk:
    going_on = ChainWalk([wanted])
    going_on.entries, going_on.head = walk.entries, walk.head
    going_on.feed(rest)
    return going_on


def test_untouched_log_is_intact_and_its_heads_follow_from_each_other() -> None:
    log = make_log(3000)
    walk = ChainWalk([7, 2999, 5000])
    for i in range(0, len(log), 700):
        walk.feed(log[i : i + 700])
    assert (walk.entries, walk.head, walk.problem) == (3000, log[-1].digest, "")
    assert walk.digests == {7: log[6].digest, 2999: log[2998].digest}
    links = b"".join(link(entry) for entry in log[1000:2000])
    assert follow(log[999].digest, 1000, links) == log[1999].digest
    assert follow(log[999].digest, 1000, links[:-1] + b"\0") != log[1999].digest


def test_links_show_nothing_of_an_entry_that_could_be_guessed() -> None:
    entry = make_log(1)[0]
    again = body_digest(entry.time_milliseconds, entry.kind, entry.body, entry.operator, bytes(16))
    assert link(entry) != again
