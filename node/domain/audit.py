"""The audit log's hash chain, as pure functions.

entry digest = SHA-256(previous digest, sequence, time, body digest), where the body digest is
salted, so that an entry's digest shown elsewhere reveals nothing of its body.
"""

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from node.domain.texts import shown

FIRST = bytes(32)
"""What stands before the first entry."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One fact: what happened, when, at whose word."""

    sequence: int
    time_milliseconds: int
    kind: str
    body: str
    operator: str
    salt: bytes
    digest: bytes


def alarm_text(entry: AuditEntry) -> str:
    """Return what an alarm says, for people: its kind, and what it is about."""
    facts = json.loads(entry.body)
    what = facts.get("problem") or ", ".join(f"{k} {str(v)[:20]}" for k, v in facts.items())
    return f"{entry.kind.removeprefix('alarm.')}: {shown(str(what))}"


def entry_digest(
    previous: bytes,
    sequence: int,
    time_milliseconds: int,
    kind: str,
    body: str,
    operator: str,
    salt: bytes,
) -> bytes:
    """Return the digest that chains one entry to the one before."""
    parts = (salt, kind.encode(), body.encode(), operator.encode())
    lengths = struct.pack(f"<{len(parts)}Q", *map(len, parts))
    body_digest = hashlib.sha256(b"emix/audit-body/v1\0" + lengths + b"".join(parts)).digest()
    head = previous + struct.pack("<Qq", sequence, time_milliseconds) + body_digest
    return hashlib.sha256(b"emix/audit/v1\0" + head).digest()


def find_break(entries: Iterable[AuditEntry]) -> tuple[int, bytes, str]:
    """Walk a chain from its first entry.

    Returns:
        How many entries were good, the digest of the last good one, and what is wrong with
        the next (empty when nothing is).
    """
    previous, expected = FIRST, 1
    for entry in entries:
        if entry.sequence != expected:
            return expected - 1, previous, f"entry {expected} is missing"
        digest = entry_digest(
            previous,
            entry.sequence,
            entry.time_milliseconds,
            entry.kind,
            entry.body,
            entry.operator,
            entry.salt,
        )
        if digest != entry.digest:
            return expected - 1, previous, f"entry {expected} was changed"
        previous, expected = digest, expected + 1
    return expected - 1, previous, ""
