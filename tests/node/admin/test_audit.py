"""What AuditService answers: recorded first, in pages, with names, and every problem passed on."""

from collections.abc import Collection
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.admin.audit import AuditHandlers
from node.crypto.signing import SigningKey
from node.documents.audit_head import sign_head
from node.documents.receipt import Receipt, sign_receipt
from node.documents.signed import Document, DocumentSigner, certify_node
from node.domain.audit import AuditEntry, AuditFilter, ChainWalk
from node.domain.heads import ReportedHead
from node.domain.ids import FacilityId, PackageId, TransferId
from node.errors import BadReceipt, Conflict, NotFound, PeerUnreachable, StoreError, UsageError
from node.exchange.auditing import Auditing
from node.rpc.serving import Service
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.admin_services import (
    AdminCall,
    Log,
    answer,
    answers,
    facilities_of,
    paged,
    peer_of,
)
from tests.support.members import BILLINGS, HELENA, ME
from tests.support.recorded import Recorded, RecordedTrail

SIGNER = DocumentSigner(BILLINGS.node_key, BILLINGS.signer)
OWN = DocumentSigner(ME.node_key, ME.signer)
STRANGER = FacilityId(b"x" * 32)
PEER = peer_of(BILLINGS)


class Trail(RecordedTrail):
    """The audit log; what it holds is the test's."""

    def __init__(self, log: Log, pages: list[list[AuditEntry]], walk: ChainWalk) -> None:
        super().__init__(log)
        self.search = paged(log, "search", *pages)
        self._walk = walk

    async def open_alarms(self, limit: int = 0) -> list[AuditEntry]:
        self.calls.append(("open_alarms", (limit,)))
        return [entry(7, "alarm.clock")]

    async def acknowledge(self, through: int, actor: Any) -> int:
        self.calls.append(("acknowledge", (through, actor)))
        return 3

    async def verify(self, numbers: Collection[int] = ()) -> ChainWalk:
        self.calls.append(("verify", (sorted(numbers),)))
        return self._walk


def entry(number: int, kind: str = "study.shown", body: str = "{}") -> AuditEntry:
    return AuditEntry(number, number * 1000, kind, body, "uid 5 (bob)", b"salt", b"d" * 32)


def walked(entries: int = 9, problem: str = "", **digests: bytes) -> ChainWalk:
    walk = ChainWalk()
    walk.entries, walk.head, walk.problem = entries, b"h" * 32, problem
    walk.digests = {int(number.removeprefix("e")): digest for number, digest in digests.items()}
    return walk


def make(
    *pages: list[AuditEntry],
    walk: ChainWalk | None = None,
    receipts: Any = None,
    told: tuple[ReportedHead, ...] = (),
    silent: dict[FacilityId, str] | None = None,
) -> tuple[Service, Log]:
    log: Log = []

    async def ask() -> dict[FacilityId, str]:
        log.append(("asked", ()))
        return silent or {}

    heads: Any = Recorded(reported=list(told), own_head=sign_head(5, b"d" * 32, 9, OWN).encode())
    studies: Any = Recorded(uid_or_beginning=("1.2.3", True))
    facilities, trail = facilities_of(PEER), Trail(log, list(pages), walk or walked())
    auditing = Auditing(trail, heads, receipts, studies, facilities, ask)
    return AuditHandlers(auditing, facilities).service(), log


def receipt(signer: DocumentSigner = SIGNER) -> bytes:
    stated = Receipt(
        transfer_id=TransferId(bytes(16)),
        delivery_digest=b"d" * 32,
        manifest_digest=b"m" * 32,
        package_id=PackageId(bytes(32)),
        receiver=BILLINGS.facility,
        instances=12,
        plaintext_bytes=3456,
        received_time=5000.75,
        reissued=True,
    )
    return sign_receipt(stated, signer).encode()


class Receipts:
    """Transfers with receipts."""

    def __init__(self, *pages: list[Any], manifest: Document | None = None) -> None:
        self.calls: Log = []
        self.with_receipts = paged(self.calls, "with_receipts", *pages)
        self._row, self._manifest = pages[0][0], manifest

    async def get(self, name: str) -> Any:
        self.calls.append(("get", (name,)))
        return self._row

    async def stored_manifest(self, _: Any) -> Document | None:
        return self._manifest


# -- receipts -------------------------------------------------------------------------------------


async def test_receipt_is_listed_as_its_receiver_signed_it() -> None:
    """Not as this node's own row counts."""
    row = make_row(
        id=4,
        peer=BILLINGS.facility,
        receipt=receipt(),
        instances=99,
        plaintext_bytes=99,
        received_time=99.0,
        deleted_time=6000.9,
    )
    service, _ = make(receipts=Receipts([row]))
    page = await answer(service, "ListReceipts", AdminCall(pb.ListReceiptsRequest()))
    (found,) = page.receipts
    assert (found.number, found.transfer_id, found.direction) == (4, "0" * 32, "send")
    assert (found.peer, found.peer_name) == (str(BILLINGS.facility), "Billings Hospital")
    assert (found.instances, found.plaintext_bytes, found.received_seconds) == (12, 3456, 5000)
    assert (found.reissued, found.deleted_seconds) == (True, 6000)


async def test_list_of_receipts_is_recorded_before_any_is_shown() -> None:
    rows = [make_row(id=n, receipt=receipt()) for n in (2, 1)]
    receipts = Receipts(rows[:1], rows[1:])
    service, log = make(receipts=receipts)
    call = AdminCall(pb.ListReceiptsRequest(limit=7), log=log)
    (page,) = await answers(service, "ListReceipts", call)
    assert [one.number for one in page.receipts] == [2, 1]
    assert log[0] == ("receipts.listed", ({"limit": 7}, call.actor))
    assert [name for name, _ in log] == ["receipts.listed", "written"]
    assert receipts.calls[0] == ("with_receipts", (7,))


async def test_receipt_that_its_receiver_did_not_sign_is_not_shown_as_one() -> None:
    row = make_row(receipt=receipt(OWN))
    service, _ = make(receipts=Receipts([row]))
    call = AdminCall(pb.ListReceiptsRequest())
    with pytest.raises(BadReceipt, match="another facility than its receiver"):
        await answers(service, "ListReceipts", call)
    assert call.got == []


async def test_exported_receipt_comes_with_its_whole_manifest_in_pieces() -> None:
    manifest = SIGNER.sign("manifest", bytes(range(256)) * 2500)
    row = make_row(id=4, delivery=b"delivery", receipt=b"receipt")
    receipts = Receipts([row], manifest=manifest)
    service, log = make(receipts=receipts)
    call = AdminCall(pb.ExportReceiptRequest(transfer="t4"), log=log)
    got = await answers(service, "ExportReceipt", call)
    assert [(m.delivery, m.receipt) for m in got] == [(b"delivery", b"receipt"), *[(b"", b"")] * 2]
    assert b"".join(m.manifest_piece for m in got) == manifest.encode()
    assert max(len(m.manifest_piece) for m in got) <= 256 * 1024
    assert receipts.calls == [("get", ("t4",))]
    assert [name for name, _ in log] == ["receipt.exported", *["written"] * 3]
    assert log[0][1][1] == call.actor


async def test_transfer_without_a_receipt_says_how_far_it_is() -> None:
    service, log = make(receipts=Receipts([make_row(id=4)]))
    with pytest.raises(Conflict, match="transfer t4 has no receipt; it is held"):
        await answers(service, "ExportReceipt", AdminCall(pb.ExportReceiptRequest(transfer="t4")))
    assert log == []


# -- the log --------------------------------------------------------------------------------------


async def test_entries_are_searched_by_what_the_person_gave() -> None:
    service, log = make([entry(2), entry(3)])
    request = pb.ListAuditRequest(
        limit=5,
        study="s1",
        peer="BILLINGS hospital",
        operator="bob",
        kind="study.",
        since_milliseconds=1000,
        until_milliseconds=3000,
    )
    page = await answer(service, "ListAudit", AdminCall(request))
    wanted = AuditFilter("1.2.3", True, str(BILLINGS.facility), "bob", "study.", 1000, 3000)
    assert log[0] == ("search", (wanted, 5))
    found = page.entries[0]
    assert (found.sequence, found.time_milliseconds, found.kind) == (2, 2000, "study.shown")
    assert (found.body, found.operator, found.digest) == ("{}", "uid 5 (bob)", b"d" * 32)


async def test_long_log_comes_in_pages_and_nothing_more_is_read_when_the_caller_leaves() -> None:
    pages = [[entry(n, body="x" * 300_000)] for n in (1, 2, 3)]
    service, log = make(*pages)
    got = await answers(service, "ListAudit", AdminCall(pb.ListAuditRequest()))
    assert [[e.sequence for e in page.entries] for page in got] == [[1], [2], [3]]
    log.clear()
    call = AdminCall(pb.ListAuditRequest(), leaves_after=1)
    with pytest.raises(PeerUnreachable):
        await answers(service, "ListAudit", call)
    assert [name for name, _ in log] == ["search", "search ended"]


async def test_open_alarms_are_listed_whatever_else_is_asked_for() -> None:
    service, log = make([entry(1)])
    request = pb.ListAuditRequest(open_alarms=True, limit=8, kind="study.", peer="nobody")
    page = await answer(service, "ListAudit", AdminCall(request))
    assert [(e.sequence, e.kind) for e in page.entries] == [(7, "alarm.clock")]
    assert log == [("open_alarms", (8,))]


async def test_filter_that_fits_nothing_there_is_answers_with_the_reason() -> None:
    service, _ = make([entry(1)])
    for request, error in (
        (pb.ListAuditRequest(kind="study.export3d"), UsageError),
        (pb.ListAuditRequest(peer="nobody"), NotFound),
    ):
        call = AdminCall(request)
        with pytest.raises(error):
            await answers(service, "ListAudit", call)
        assert call.got == []


async def test_log_without_entries_answers_with_an_empty_page() -> None:
    service, _ = make()
    page = await answer(service, "ListAudit", AdminCall(pb.ListAuditRequest()))
    assert list(page.entries) == []


async def test_alarms_are_acknowledged_for_who_asked() -> None:
    service, log = make()
    call = AdminCall(pb.AcknowledgeAlarmsRequest(through_sequence=41))
    assert (await answer(service, "AcknowledgeAlarms", call)).alarms == 3
    assert log == [("acknowledge", (41, call.actor))]


# -- verifying ------------------------------------------------------------------------------------


async def test_verified_log_names_who_confirms_it_and_who_was_silent() -> None:
    told = (
        ReportedHead(BILLINGS.facility, 4, b"4" * 32, 1000.5, 2000.5, is_heard=True),
        ReportedHead(HELENA.facility, 8, b"8" * 32, 3000.5, 4000.5),
    )
    silent = {STRANGER: "no answer", BILLINGS.facility: ""}
    service, log = make(walk=walked(e4=b"4" * 32, e8=b"?" * 32), told=told, silent=silent)
    request = pb.VerifyAuditRequest(ask_witnesses=True)
    found = await answer(service, "VerifyAudit", AdminCall(request))
    assert (found.entries, found.head, found.problem) == (9, b"h" * 32, "")
    good, bad = found.witnesses
    assert (good.facility_id, good.display_name) == (str(BILLINGS.facility), "Billings Hospital")
    assert (good.sequence, good.taken_seconds, good.reported_seconds) == (4, 1000, 2000)
    assert (good.heard, good.problem) == (True, "")
    assert (bad.display_name, bad.sequence, bad.heard) == (HELENA.facility.short(), 0, False)
    assert "entry 8 was confirmed, but this log has a different one" in bad.problem
    assert list(found.silent) == [STRANGER.short()]
    assert [name for name, _ in log] == ["asked", "verify"]
    assert found.given_sequence == 0


async def test_damage_in_the_log_is_answered_and_witnesses_are_asked_only_on_request() -> None:
    service, log = make(walk=walked(2, "entry 3 was changed"))
    found = await answer(service, "VerifyAudit", AdminCall(pb.VerifyAuditRequest()))
    assert (found.entries, found.problem) == (2, "entry 3 was changed")
    assert log == [("verify", ([],))]


@pytest.mark.parametrize("is_signed", [True, False])
async def test_entry_that_a_person_kept_is_held_against_the_log(is_signed: bool) -> None:
    request = pb.VerifyAuditRequest(sequence=6, digest=b"6" * 32)
    if is_signed:
        request = pb.VerifyAuditRequest(head=sign_head(6, b"6" * 32, 9, OWN).encode())
    service, log = make(walk=walked(e6=b"6" * 32))
    found = await answer(service, "VerifyAudit", AdminCall(request))
    assert (found.given_sequence, found.given_problem) == (6, "")
    assert log == [("verify", ([6],))]
    service, _ = make(walk=walked(5))
    found = await answer(service, "VerifyAudit", AdminCall(request))
    assert found.given_sequence == 6
    assert "entry 6 was confirmed, but this log ends before it" in found.given_problem


async def test_head_of_another_log_is_no_proof_of_this_one() -> None:
    other = SigningKey.new()
    signer = DocumentSigner(other, certify_node(SigningKey.new(), other, 1.8e9))
    request = pb.VerifyAuditRequest(head=sign_head(6, b"6" * 32, 9, signer).encode())
    service, log = make()
    with pytest.raises(UsageError, match="another facility's audit log"):
        await answers(service, "VerifyAudit", AdminCall(request))
    assert log == []


async def test_head_to_keep_is_the_signed_one_with_what_it_states() -> None:
    service, _ = make()
    found = await answer(service, "GetAuditHead", AdminCall(pb.GetAuditHeadRequest()))
    assert found.head == sign_head(5, b"d" * 32, 9, OWN).encode()
    assert (found.sequence, found.digest, found.time_milliseconds) == (5, b"d" * 32, 9)
    assert found.facility_id == str(ME.facility)


async def test_log_of_a_facility_is_accepted_by_the_name_that_a_person_types() -> None:
    facilities = facilities_of(PEER)
    heads: Any = Recorded(settle=2)
    auditing = Auditing(None, heads, None, None, facilities, None)  # type: ignore[arg-type]
    service = AuditHandlers(auditing, facilities).service()
    call = AdminCall(pb.AcceptPeerLogRequest(facility="BILLINGS hospital"))
    found = await answer(service, "AcceptPeerLog", call)
    assert (found.display_name, found.heads) == ("Billings Hospital", 2)
    assert heads.calls == [("settle", (BILLINGS.facility, call.actor))]


async def test_list_that_cannot_be_recorded_is_not_shown() -> None:
    auditing: Any = type("Auditing", (), {"receipts": staticmethod(_fails)})
    service = AuditHandlers(auditing, facilities_of()).service()
    call = AdminCall(pb.ListReceiptsRequest())
    with pytest.raises(StoreError):
        await answers(service, "ListReceipts", call)
    assert call.got == []


async def _fails(*_: Any) -> Any:
    raise StoreError("full")
    yield
