"""The audit log, the heads of it that others keep, and receipts: search, acknowledge, verify."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from node.documents.audit_head import open_head
from node.documents.signed import Document
from node.domain.actors import Actor
from node.domain.audit import AuditEntry, AuditFilter, ChainWalk
from node.domain.audit_kinds import check_beginning
from node.domain.heads import ReportedHead, Witness, own_problem, witnesses
from node.domain.ids import FacilityId
from node.domain.transfers import Transfer, transfer_facts
from node.errors import Conflict, UsageError
from node.exchange.membership.facilities import Facilities
from node.exchange.ports import AuditTrail


class AuditLog(AuditTrail, Protocol):
    """The log, as the store has it."""

    async def open_alarms(self, limit: int = 0) -> list[AuditEntry]:
        """Return the latest alarms (0 for all) that nobody has acknowledged, oldest first."""

    def search(self, wanted: AuditFilter, limit: int = 0) -> AsyncGenerator[list[AuditEntry]]:
        """Yield the latest `limit` entries (0 for all) that fit, oldest first, in pages."""

    async def acknowledge(self, through: int, actor: Actor) -> int:
        """Acknowledge alarms up to an entry; return how many."""

    async def verify(self, numbers: Collection[int] = ()) -> ChainWalk:
        """Walk the whole log."""


class Heads(Protocol):
    """Signed heads of logs, as the store has them."""

    async def reported(self) -> list[ReportedHead]:
        """Return the heads of our log that other facilities have reported to keep."""

    async def own_head(self) -> bytes:
        """Return the newest head of our own log, signed."""

    async def settle(self, facility: FacilityId, actor: Actor) -> int:
        """Accept a facility's log as it now is: the heads kept of it so far count no longer."""


class Receipts(Protocol):
    """Transfers with receipts, as the store has them."""

    def with_receipts(self, limit: int = 0) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers that have a receipt, newest first, some at a time."""

    async def get(self, name: str) -> Transfer:
        """Return the one transfer that a person named."""

    async def stored_manifest(self, row: Transfer) -> Document | None:
        """Return the manifest kept for a transfer's package, if there is one."""


class Naming(Protocol):
    """Resolves what a person typed to a study, deleted ones included."""

    async def uid_or_beginning(self, text: str) -> tuple[str, bool]:
        """Return a study's UID, or the beginning of some, and whether it is whole."""


@dataclass(frozen=True)
class Verified:
    """What a walk over the whole log found.

    Attributes:
        walk: The walk itself.
        witnesses: What others keep of it, and whether it agrees.
        silent: Who was asked and did not answer.
        given_problem: How the entry that a person gave contradicts the log, or empty.
    """

    walk: ChainWalk
    witnesses: Sequence[Witness]
    silent: Sequence[FacilityId]
    given_problem: str = ""


class Auditing:
    """The use cases of the audit log and of receipts."""

    def __init__(
        self,
        log: AuditLog,
        heads: Heads,
        receipts: Receipts,
        studies: Naming,
        facilities: Facilities,
        ask_witnesses: Callable[[], Awaitable[Mapping[FacilityId, str]]],
    ) -> None:
        """Prepare.

        Args:
            log: The log.
            heads: Signed heads of it, and of others'.
            receipts: Transfers with receipts.
            studies: Finds those that a person names.
            facilities: Finds those that a person names.
            ask_witnesses: Asks peers for the heads that they keep; returns, for each peer, why it
                did not answer, or an empty text.
        """
        self._log = log
        self._heads = heads
        self._receipts = receipts
        self._studies = studies
        self._facilities = facilities
        self._ask_witnesses = ask_witnesses

    # -- receipts ---------------------------------------------------------------------------------

    async def receipts(self, limit: int, actor: Actor) -> AsyncGenerator[list[Transfer]]:
        """Yield transfers with receipts, newest first; the audit log has it before the first."""
        await self._log.note_list("receipts.listed", {"limit": limit}, actor)
        rows = self._receipts.with_receipts(limit)
        async with aclosing(rows):
            async for some in rows:
                yield some

    async def proof(self, name: str, actor: Actor) -> tuple[Transfer, Document]:
        """Return a transfer that has a receipt, and its manifest; the audit log has it first.

        Raises:
            NotFound, Conflict: no such transfer, or it has no receipt.
        """
        row = await self._receipts.get(name)
        manifest = await self._receipts.stored_manifest(row)
        if row.receipt is None or manifest is None:
            raise Conflict(f"transfer {row.name} has no receipt; it is {row.state}")
        await self._log.append("receipt.exported", transfer_facts(row), actor)
        return row, manifest

    # -- the log ----------------------------------------------------------------------------------

    async def open_alarms(self, limit: int = 0) -> list[AuditEntry]:
        """Return the latest alarms (0 for all) that nobody has acknowledged, oldest first."""
        return await self._log.open_alarms(limit)

    async def acknowledge(self, through: int, actor: Actor) -> int:
        """Acknowledge alarms up to an entry, durably; return how many."""
        return await self._log.acknowledge(through, actor)

    async def search(
        self, wanted: AuditFilter, study: str, peer: str, limit: int
    ) -> AsyncGenerator[list[AuditEntry]]:
        """Yield the latest entries that fit, oldest first, in pages.

        Args:
            wanted: Which; study and peer are filled in.
            study: A study as a person names it, one that is gone too; empty for any.
            peer: A facility as a person names it; empty for any.
            limit: At most so many; 0 for all.

        Raises:
            NotFound, Conflict: a name matches nothing, or more than one study or facility.
            UsageError: there is no such kind of entry.
        """
        check_beginning(wanted.kind)
        uid, is_whole = await self._studies.uid_or_beginning(study) if study else ("", False)
        with_whom = str((await self._facilities.named(peer)).facility_id) if peer else ""
        found = self._log.search(
            replace(wanted, study=uid, is_whole_study=is_whole, peer=with_whom), limit
        )
        async with aclosing(found):
            async for some in found:
                yield some

    async def verify(self, given: Mapping[int, bytes], *, asks: bool) -> Verified:
        """Verify the whole log, and compare it with the heads that others keep.

        Args:
            given: At most one entry that a person has kept: its number and digest.
            asks: Ask all peers first what they keep now.
        """
        answers = await self._ask_witnesses() if asks else {}
        reported = await self._heads.reported()
        walk = await self._log.verify({*(t.sequence for t in reported), *given})
        problem = ""
        for sequence, digest in given.items():
            problem = own_problem(sequence, digest, walk.digests.get(sequence))
        silent = [facility for facility, why in answers.items() if why]
        return Verified(walk, witnesses(reported, walk.digests), silent, problem)

    def given(self, head: bytes, sequence: int, digest: bytes) -> dict[int, bytes]:
        """Return the entry that a person gave: a signed head, or its number and digest.

        Raises:
            DocumentError: it is no head.
            UsageError: it is of another facility's log.
        """
        if head:
            opened = open_head(head)
            if opened.facility != self._facilities.me:
                raise UsageError("that is the head of another facility's audit log")
            return {opened.sequence: opened.digest}
        return {sequence: digest} if sequence else {}

    async def own_head(self) -> bytes:
        """Return the newest head of our own log, signed."""
        return await self._heads.own_head()

    async def settle(self, facility: str, actor: Actor) -> tuple[str, int]:
        """Take a facility's log as it now is; durable once this returns.

        Returns:
            The facility's name here, and the number of heads that were settled.

        Raises:
            NotFound, Conflict: the text matches no facility, or several.
        """
        peer = await self._facilities.named(facility)
        return peer.name, await self._heads.settle(peer.facility_id, actor)
