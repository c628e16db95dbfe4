"""What people ask of the audit log: recorded before it is shown, searched by names, verified."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.crypto.signing import SigningKey
from node.documents.audit_head import sign_head
from node.documents.signed import DocumentSigner, certify_node
from node.domain.audit import AuditFilter, ChainWalk
from node.domain.heads import ReportedHead
from node.domain.ids import FacilityId
from node.domain.transfers import State
from node.errors import Conflict, NotFound, UsageError
from node.exchange.auditing import Auditing
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.actors import actor
from tests.support.recorded import Recorded, RecordedTrail

ALICE, OTHER = actor("alice"), FacilityId(b"o" * 32)
FACILITY, NODE = SigningKey.new(), SigningKey.new()
SIGNER = DocumentSigner(NODE, certify_node(FACILITY, NODE, 1.8e9))


class Log(RecordedTrail):
    """The log; its pages and its walk are the test's."""

    def __init__(self, pages: list[list[Any]], digests: dict[int, bytes]) -> None:
        super().__init__()
        self._pages, self._digests = pages, digests

    async def search(self, wanted: AuditFilter, limit: int = 0) -> AsyncGenerator[list[Any]]:
        self.calls.append(("search", (wanted, limit)))
        for page in self._pages:
            await trio.lowlevel.checkpoint()
            yield page

    async def verify(self, numbers: Any) -> ChainWalk:
        self.calls.append(("verify", (set(numbers),)))
        walk = ChainWalk(numbers)
        walk.digests = self._digests
        return walk

    async def open_alarms(self, limit: int = 0) -> list[str]:
        return ["alarm"][: limit or None]

    async def acknowledge(self, through: int, _: Any) -> int:
        return through


def make(
    *,
    log: Log | None = None,
    told: list[ReportedHead] | None = None,
    silent: dict[FacilityId, str] | None = None,
    receipts: Any = None,
) -> tuple[Any, Log]:
    used = log or Log([[1], [2]], {})

    async def ask() -> dict[FacilityId, str]:
        used.calls.append(("asked", ()))
        return silent or {}

    facilities: Any = SimpleNamespace(
        me=SIGNER.facility_id,
        named=Recorded(named=SimpleNamespace(name="Billings", facility_id=OTHER)).named,
    )
    heads: Any = Recorded(reported=told or [], own_head=b"head", settle=3)
    studies: Any = Recorded(uid_or_beginning=("1.2.3", True))
    return Auditing(used, heads, receipts, studies, facilities, ask), used  # type: ignore[arg-type]


async def collected(pages: AsyncGenerator[list[Any]]) -> list[Any]:
    return [entry async for page in pages for entry in page]


async def test_kind_of_entry_that_there_is_none_of_is_said_to_be_so() -> None:
    """Before, the answer was that the log has no such entry."""
    auditing, log = make()
    with pytest.raises(UsageError, match=r"perhaps study\.exported"):
        await collected(auditing.search(AuditFilter(kind="study.export3d"), "", "", 0))
    assert log.calls == []


async def test_names_of_studies_and_facilities_become_what_the_log_has() -> None:
    auditing, log = make()
    assert await collected(
        auditing.search(AuditFilter(kind="study."), "muller", "Billings", 7)
    ) == [
        1,
        2,
    ]
    [(_, (wanted, limit))] = log.calls
    assert (wanted.study, wanted.is_whole_study, wanted.peer) == ("1.2.3", True, str(OTHER))
    assert (wanted.kind, limit) == ("study.", 7)


async def test_what_is_not_asked_for_restricts_nothing() -> None:
    auditing, log = make()
    await collected(auditing.search(AuditFilter(), "", "", 0))
    assert log.calls == [("search", (AuditFilter(), 0))]


async def test_log_is_held_against_what_was_given_and_what_others_keep() -> None:
    told = [ReportedHead(OTHER, 5, b"other", 1.0, 2.0, is_heard=True)]
    auditing, log = make(log=Log([], {5: b"mine", 7: b"seven"}), told=told, silent={OTHER: "away"})
    found = await auditing.verify({7: b"seven"}, asks=True)
    assert log.calls == [("asked", ()), ("verify", ({5, 7},))]
    assert (found.given_problem, list(found.silent)) == ("", [OTHER])
    assert found.witnesses[0].problem
    assert (await auditing.verify({7: b"else"}, asks=False)).given_problem
    assert log.calls[-1] == ("verify", ({5, 7},))


def test_entry_that_a_person_gave_is_of_our_own_log() -> None:
    auditing, _ = make()
    head = sign_head(9, bytes(32), 1_800_000_000_000, SIGNER).encode()
    assert auditing.given(head, 0, b"") == {9: bytes(32)}
    assert auditing.given(b"", 4, b"d" * 32) == {4: b"d" * 32}
    assert auditing.given(b"", 0, b"") == {}
    facility, node = SigningKey.new(), SigningKey.new()
    stranger = DocumentSigner(node, certify_node(facility, node, 1.8e9))
    with pytest.raises(UsageError, match="another facility"):
        auditing.given(sign_head(9, bytes(32), 1, stranger).encode(), 0, b"")


class Receipts:
    """Transfers with receipts."""

    def __init__(self, row: Any, manifest: Any) -> None:
        self._row, self._manifest = row, manifest

    async def with_receipts(self, limit: int = 0) -> AsyncGenerator[list[Any]]:
        await trio.lowlevel.checkpoint()
        yield [self._row]

    async def get(self, _: str) -> Any:
        if self._row is None:
            raise NotFound("no such transfer")
        return self._row

    async def stored_manifest(self, _: Any) -> Any:
        return self._manifest


async def test_receipts_and_proofs_are_in_the_log_before_they_are_shown() -> None:
    row = make_row(receipt=b"r", state=State.DELIVERED)
    auditing, log = make(receipts=Receipts(row, "manifest"))
    shown = auditing.receipts(3, ALICE)
    assert await anext(shown) == [row]
    assert [kind for kind, _ in log.calls] == ["receipts.listed"]
    await shown.aclose()
    assert await auditing.proof("t1", ALICE) == (row, "manifest")
    assert [kind for kind, _ in log.calls] == ["receipts.listed", "receipt.exported"]


@pytest.mark.parametrize(("receipt", "manifest"), [(None, "manifest"), (b"r", None)])
async def test_transfer_without_a_receipt_has_no_proof(receipt: Any, manifest: Any) -> None:
    auditing, log = make(receipts=Receipts(make_row(receipt=receipt), manifest))
    with pytest.raises(Conflict, match="has no receipt"):
        await auditing.proof("t1", ALICE)
    assert not log.calls


async def test_alarms_heads_and_another_log_are_passed_on() -> None:
    auditing, _ = make()
    assert await auditing.open_alarms(1) == ["alarm"]
    assert await auditing.acknowledge(12, ALICE) == 12
    assert await auditing.own_head() == b"head"
    assert await auditing.settle("Billings", ALICE) == ("Billings", 3)
