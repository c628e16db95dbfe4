"""The audit log's hash chain, as pure functions.

entry digest = SHA-256(previous digest, sequence, body digest), where the body digest covers all
that the entry says, and is salted. So body digests can be shown to others, who then can check that
a log has only grown, and learn nothing of what is in it.
"""

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from node.domain.display_text import printable

DIGEST_BYTES = 32
FIRST = bytes(DIGEST_BYTES)
"""What stands before the first entry."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One fact: what happened, when, and at whose request."""

    sequence: int
    time_milliseconds: int
    kind: str
    body: str
    operator: str
    salt: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for; empty values ask for all.

    Attributes:
        study: Study Instance UID that entries are about, or its beginning.
        is_whole_study: Whether that is a whole UID.
        peer: A Facility ID that entries are about.
        operator: A user's number or name, as the door knew it; or what a client said it was.
        kind: What happened, or the beginning of it, such as `study.`.
        since_milliseconds: Not earlier than this.
        until_milliseconds: Earlier than this; 0 for no end.
    """

    study: str = ""
    is_whole_study: bool = False
    peer: str = ""
    operator: str = ""
    kind: str = ""
    since_milliseconds: int = 0
    until_milliseconds: int = 0


def alarm_text(entry: AuditEntry) -> str:
    """Return what an alarm says, for people: its kind, and what it is about."""
    facts = json.loads(entry.body)
    what = facts.get("problem") or ", ".join(f"{k} {str(v)[:20]}" for k, v in facts.items())
    return f"{entry.kind.removeprefix('alarm.')}: {printable(str(what))}"


def body_digest(time_milliseconds: int, kind: str, body: str, operator: str, salt: bytes) -> bytes:
    """Return the digest of what an entry says."""
    parts = (salt, kind.encode(), body.encode(), operator.encode())
    lengths = struct.pack(f"<q{len(parts)}Q", time_milliseconds, *map(len, parts))
    return hashlib.sha256(b"emix/audit-body/v1\0" + lengths + b"".join(parts)).digest()


def entry_digest(previous: bytes, sequence: int, body: bytes) -> bytes:
    """Return the digest that chains one entry, by its body digest, to the one before."""
    head = previous + struct.pack("<Q", sequence) + body
    return hashlib.sha256(b"emix/audit/v1\0" + head).digest()


def link(entry: AuditEntry) -> bytes:
    """Return an entry's body digest."""
    return body_digest(entry.time_milliseconds, entry.kind, entry.body, entry.operator, entry.salt)


def follow(previous: bytes, sequence: int, links: bytes) -> bytes:
    """Return the digest of the last entry of a run, from the entry before it and the run's links.

    Args:
        previous: The digest of the entry before the run.
        sequence: The number of that entry.
        links: The run's body digests, 32 bytes each.
    """
    for n, at in enumerate(range(0, len(links), DIGEST_BYTES), 1):
        previous = entry_digest(previous, sequence + n, links[at : at + DIGEST_BYTES])
    return previous


class ChainWalk:
    """Walks a chain from its first entry, as entries are fed to it.

    Attributes:
        entries: How many were good.
        head: The digest of the last good one.
        problem: What is wrong with the next; empty while nothing is.
        digests: Of the entries that were asked for, by number, as far as the walk has come.
    """

    def __init__(self, wanted: Iterable[int] = ()) -> None:
        self.entries = 0
        self.head = FIRST
        self.problem = ""
        self.digests: dict[int, bytes] = {}
        self._wanted = frozenset(wanted)

    def feed(self, entries: Iterable[AuditEntry]) -> None:
        """Check the next entries against the chain; after a problem nothing more is looked at."""
        for entry in entries:
            if self.problem:
                return
            expected = self.entries + 1
            if entry.sequence != expected:
                self.problem = f"entry {expected} is missing"
            elif entry_digest(self.head, expected, link(entry)) != entry.digest:
                self.problem = f"entry {expected} was changed"
            else:
                self.entries, self.head = expected, entry.digest
                if expected in self._wanted:
                    self.digests[expected] = entry.digest
