"""What NodeService answers: the state with what needs a person, and a backup that ends in time."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin import node as node_module
from node.admin.node import About, NodeHandlers
from node.domain.audit import AuditEntry
from node.domain.backups import Piece
from node.domain.findings import Finding
from node.domain.ids import ChunkId, FacilityId, NodeId, PackageId
from node.domain.retention import Aged, Step
from node.domain.transfers import Direction, State, Transfer
from node.errors import Conflict, PeerTimeout, StoreError
from node.exchange.keeping import Keeping
from node.exchange.membership.pairing import StringPairing
from node.exchange.membership.strangers import Strangers
from node.rpc.serving import Service
from node.system import clock
from node.version import SOFTWARE
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.admin_services import (
    AdminCall,
    Log,
    answer,
    answers,
    facilities_of,
    peer_of,
)
from tests.support.members import BILLINGS, HELENA, ME
from tests.support.recorded import Recorded, RecordedTrail

COUNTS = {
    "studies": 1,
    "instances": 2,
    "sealed_bytes": 3,
    "free_bytes": 4,
    "held_instances": 5,
    "alarms": 0,
    "unopened_chunks": 7,
}
ABOUT = About(
    ME.facility,
    NodeId(b"n" * 32),
    "Great Falls",
    1000.9,
    lambda: b"statements",
    lambda: ("h:1", "h:2"),
)


class Store(Recorded):
    """The store as a whole, with a backup of these pieces."""

    chunk_place = "s3://bucket"

    def __init__(self, log: Log, pieces: tuple[Piece, ...], **answered: Any) -> None:
        super().__init__(**({"counts": COUNTS} | answered))
        self.calls, self._pieces = log, pieces

    async def check(self, *, read_data: bool, report: Any, studies: Any) -> int:
        self.calls.append(("check", (read_data, studies)))
        await report(1, 2, "")
        await report(2, 2, "chunk abc is damaged")
        return 1

    async def backup(self, report: Any, send: Any, had: Any = frozenset()) -> None:
        self.calls.append(("backup", (set(had),)))
        await report(len(self._pieces), 99)
        for piece in self._pieces:
            await send(piece)


class Retention(Recorded):
    """The policy, with some old packages, two at once."""

    days = 30

    def __init__(self, log: Log, aged: tuple[Aged, ...], step: Any) -> None:
        super().__init__(step=step)
        self.calls, self._aged = log, aged

    async def page(self, after: int) -> list[Aged]:
        self.calls.append(("page", (after,)))
        return [one for one in self._aged if one.number > after][:2]


class Node:
    """The service of a node that has this to say."""

    def __init__(
        self,
        *,
        pieces: tuple[Piece, ...] = (),
        aged: tuple[Aged, ...] = (),
        alarms: tuple[AuditEntry, ...] = (),
        findings: tuple[Finding, ...] = (),
        transfers: tuple[Transfer, ...] = (),
        pending: int = 0,
        step: Any = None,
        audit: Any = None,
    ) -> None:
        self.log: Log = []
        counts = COUNTS | {"alarms": len(alarms)}
        store: Any = Store(self.log, pieces, counts=counts)
        retention: Any = Retention(self.log, aged, step)
        self.notes: Any = Recorded(confirmed=None)
        keeping = Keeping(store, retention, self.notes, audit or RecordedTrail(self.log))
        auditing: Any = SimpleNamespace(open_alarms=self._latest)
        strangers = Strangers(lambda: 0.0)
        strangers.note(HELENA.record().identity)
        waits = StringPairing("a1", "ABCD", HELENA.record().identity, 0.0)
        pairing: Any = SimpleNamespace(pending=lambda: [waits] * pending, strangers=strangers)
        lists: Any = Recorded(open_ones=list(transfers))
        imports: Any = Recorded(count_unfinished=6)
        facilities = facilities_of(peer_of(BILLINGS))
        self._alarms, self._findings = alarms, findings
        self.service: Service = NodeHandlers(
            ABOUT, keeping, auditing, facilities, pairing, lists, imports, self._diagnose
        ).service()

    async def _latest(self, limit: int = 0) -> list[AuditEntry]:
        self.log.append(("open_alarms", (limit,)))
        return list(self._alarms[-limit:])

    async def _diagnose(self, *, is_quick: bool) -> list[Finding]:
        self.log.append(("diagnose", (is_quick,)))
        return list(self._findings)

    async def status(self) -> pb.GetStatusResponse:
        found: pb.GetStatusResponse = await answer(
            self.service, "GetStatus", AdminCall(pb.GetStatusRequest())
        )
        return found


# -- status ---------------------------------------------------------------------------------------


async def test_status_has_what_the_node_is_and_holds() -> None:
    found = await Node(pending=2).status()
    assert (found.facility_id, found.node_id) == (str(ME.facility), str(NodeId(b"n" * 32)))
    assert (found.display_name, found.software) == ("Great Falls", SOFTWARE)
    assert (found.peer_endpoint, found.introduction_endpoint) == ("h:1", "h:2")
    assert (found.studies, found.instances, found.sealed_bytes, found.free_bytes) == (1, 2, 3, 4)
    assert (found.held_instances, found.chunk_place) == (5, "s3://bucket")
    assert (found.started_seconds, found.unfinished_imports) == (1000, 6)
    assert (found.waiting_pairings, found.asking_facilities) == (2, 1)


async def test_status_counts_only_offers_that_a_person_here_has_to_decide() -> None:
    received = {"direction": Direction.RECEIVE, "state": State.HELD}
    rows = (
        make_row(id=1, **received),
        make_row(id=2, **received, accepted=True),
        make_row(id=3, direction=Direction.SEND, state=State.HELD),
        make_row(id=4, direction=Direction.RECEIVE, state=State.CARRYING),
        make_row(id=5, **received),
    )
    found = await Node(transfers=rows).status()
    assert (found.open_transfers, found.held_offers) == (5, 2)


async def test_node_that_is_well_has_no_alarms_and_reads_none() -> None:
    findings = Finding("clock", "ok", "agrees"), Finding("disk", "warning", "70 % full")
    node = Node(findings=findings)
    assert list((await node.status()).alarms) == []
    assert ("diagnose", (True,)) in node.log
    assert "open_alarms" not in dict(node.log)


def alarm(number: int, problem: str, kind: str = "alarm.peer") -> AuditEntry:
    body = json.dumps({"problem": problem})
    return AuditEntry(number, number * 60_000, kind, body, "node", b"", b"")


async def test_problems_come_before_recorded_alarms_and_each_alarm_once_at_its_last_time() -> None:
    """As the store lists them: oldest first."""
    entries = alarm(1, "forged"), alarm(2, "other log"), alarm(3, "forged")
    findings = (Finding("disk", "problem", "full", "remove something"),)
    found = await Node(alarms=entries, findings=findings).status()
    assert list(found.alarms) == [
        "disk: full",
        "peer: other log (1970-01-01 00:02:00 UTC)",
        "peer: forged (1970-01-01 00:03:00 UTC)",
        "3 alarms in the audit log; `emix audit --alarms` shows them all,"
        " `emix audit acknowledge` clears them",
    ]


async def test_of_very_many_alarms_the_last_five_are_shown_and_all_are_counted() -> None:
    node = Node(alarms=tuple(alarm(n, f"problem {n}") for n in range(1, 301)))
    shown = list((await node.status()).alarms)
    assert [text.partition(" (")[0] for text in shown[:-1]] == [
        f"peer: problem {n}" for n in range(296, 301)
    ]
    assert shown[-1].startswith("300 alarms in the audit log")
    assert ("open_alarms", (100,)) in node.log


async def test_identity_to_give_away_is_the_signed_statements() -> None:
    found = await answer(Node().service, "GetIdentity", AdminCall(pb.GetIdentityRequest()))
    assert (found.facility_id, found.statements) == (str(ME.facility), b"statements")


async def test_diagnosis_on_request_makes_connections_and_has_all_findings() -> None:
    findings = Finding("clock", "ok", "agrees"), Finding("disk", "problem", "full", "remove")
    node = Node(findings=findings)
    found = await answer(node.service, "Diagnose", AdminCall(pb.DiagnoseRequest()))
    assert [(f.subject, f.level, f.text, f.advice) for f in found.findings] == [
        ("clock", "ok", "agrees", ""),
        ("disk", "problem", "full", "remove"),
    ]
    assert node.log == [("diagnose", (False,))]


@pytest.mark.parametrize("read_data", [True, False])
async def test_check_of_the_store_answers_with_each_problem_as_it_is_found(
    read_data: bool,
) -> None:
    node = Node()
    got = await answers(
        node.service,
        "CheckStore",
        AdminCall(pb.CheckStoreRequest(read_data=read_data, study_instance_uids=["1.2", "1.3"])),
    )
    *found, last = got
    assert [(m.chunks_done, m.chunks_total, m.problem) for m in found] == [
        (1, 2, ""),
        (2, 2, "chunk abc is damaged"),
    ]
    assert last == pb.CheckStoreResponse(chunks_unopened=7)
    assert [call for call in node.log if call[0] == "check"] == [
        ("check", (read_data, ("1.2", "1.3")))
    ]


# -- backup ---------------------------------------------------------------------------------------


def had(number: int) -> Piece:
    return Piece("", b"", had=ChunkId(number.to_bytes(32, "big")))


def backup(*requests: pb.BackupRequest, **more: Any) -> AdminCall:
    return AdminCall(*(requests or (pb.BackupRequest(destination="/media/usb"),)), **more)


async def test_backup_is_recorded_before_its_first_event_and_ends_with_a_count() -> None:
    node = Node(pieces=(Piece("a", b"1"), Piece("", b"2"), Piece("b", b"")))
    call = backup(log=node.log)
    size, *pieces, end = await answers(node.service, "Backup", call)
    assert node.log[0] == ("node.backed-up", ({"destination": "/media/usb"}, call.actor))
    assert [name for name, _ in node.log] == ["node.backed-up", "backup", *["written"] * 5]
    assert (size.size.files, size.size.bytes) == (3, 99)
    sent = [(m.piece.name, m.piece.data) for m in pieces]
    assert sent == [("a", b"1"), ("", b"2"), ("b", b"")]
    assert end.end.files == 2


async def test_backup_that_cannot_be_recorded_sends_nothing() -> None:
    node = Node(pieces=(Piece("a", b"1"),), audit=Recorded(append=StoreError("full")))
    call = backup()
    with pytest.raises(StoreError):
        await answers(node.service, "Backup", call)
    assert call.got == []


async def test_large_piece_is_sent_in_parts_of_which_the_first_has_the_name() -> None:
    data = bytes(range(256)) * 20_000
    node = Node(pieces=(Piece("a", data),))
    _, *parts, end = await answers(node.service, "Backup", backup())
    assert [m.piece.name for m in parts] == ["a", "", ""]
    assert b"".join(m.piece.data for m in parts) == data
    assert max(m.ByteSize() for m in parts) < 4 * 2**20
    assert end.end.files == 1


async def test_file_that_cannot_be_read_is_named_and_not_counted() -> None:
    node = Node(pieces=(Piece("bad", b"", "input/output error"), Piece("a", b"1")))
    _, bad, good, end = await answers(node.service, "Backup", backup())
    assert (bad.unreadable.name, bad.unreadable.reason) == ("bad", "input/output error")
    assert (good.piece.name, end.end.files) == ("a", 1)


async def test_chunks_that_the_caller_has_are_named_a_thousand_at_once() -> None:
    pieces = (*map(had, range(1, 1002)), Piece("a", b"1"), had(2000))
    node = Node(pieces=pieces)
    requests = (
        pb.BackupRequest(destination="/media/usb", had_chunks=[b"x", b"y"]),
        pb.BackupRequest(destination="/elsewhere", had_chunks=[b"y", b"z"]),
    )
    _, *events, end = await answers(node.service, "Backup", backup(*requests))
    named = [len(m.had.chunks) for m in events if m.HasField("had")]
    assert named == [1000, 2]
    digests = [chunk for m in events for chunk in m.had.chunks]
    assert digests == [piece.had.digest for piece in pieces if piece.had]
    assert end.end.files == 1003
    assert node.log[0][1][0] == {"destination": "/media/usb"}
    assert node.log[1] == ("backup", ({b"x", b"y", b"z"},))


async def test_caller_that_has_very_many_chunks_is_believed_so_many_and_sent_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_module, "_MOST_HAD", 4)
    requests = [
        pb.BackupRequest(destination="/x", had_chunks=[bytes([n]), bytes([n + 1])])
        for n in range(0, 20, 2)
    ]
    node = Node()
    await answers(node.service, "Backup", backup(*requests))
    (found,) = node.log[1][1]
    assert found == {bytes([n]) for n in range(4)}


async def test_backup_ends_when_its_caller_reads_nothing_for_ten_minutes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Stalled(AdminCall):
        async def write(self, message: Any) -> None:
            if self.got:
                await trio.sleep_forever()
            await super().write(message)

    node = Node(pieces=(Piece("a", b"1"),))
    call = Stalled(pb.BackupRequest(destination="/x"))
    with pytest.raises(PeerTimeout, match="read nothing for ten minutes"):
        await answers(node.service, "Backup", call)
    assert trio.current_time() == pytest.approx(600, abs=1)
    assert len(call.got) == 1


# -- clock and retention --------------------------------------------------------------------------


class Clock:
    """The machine's clock, as far as it is doubted."""

    def __init__(self, jump: float, doubt: str = "") -> None:
        self.jump, self.doubt = jump, doubt

    def confirm(self) -> None:
        self.jump = 0.0


@pytest.mark.parametrize(("jump", "seconds"), [(3600.4, 3600), (-7200.6, -7201), (0.0, 0)])
async def test_confirmed_clock_says_by_how_much_it_was_ahead(
    monkeypatch: pytest.MonkeyPatch, jump: float, seconds: int
) -> None:
    monkeypatch.setattr(clock, "CLOCK", Clock(jump))
    node, call = Node(), AdminCall(pb.ConfirmClockRequest())
    assert (await answer(node.service, "ConfirmClock", call)).was_ahead_seconds == seconds
    noted = [("confirmed", ("a person", call.actor))] if jump else []
    assert node.notes.calls == noted


def aged(number: int, *, sender: FacilityId = BILLINGS.facility, **changes: Any) -> Aged:
    known: dict[str, Any] = {"is_looked_at": True, "is_sending": False, "expiring_time": None}
    return Aged(
        number,
        f"1.2.{number}",
        number.to_bytes(32, "big"),
        HELENA.facility.digest,
        sender.digest,
        100.9,
        **(known | changes),
    )


async def test_preview_has_what_becomes_of_each_old_package_and_is_recorded_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    monkeypatch.setattr(clock, "CLOCK", Clock(0.0, "the clock is 3 days ahead"))
    old = (
        aged(1, is_looked_at=False),
        aged(2, is_sending=True),
        aged(3),
        aged(4, expiring_time=1500.9),
        aged(5, expiring_time=900.0, sender=HELENA.facility),
    )
    node = Node(aged=old)
    call = AdminCall(pb.PreviewRetentionRequest(), log=node.log)
    page = await answer(node.service, "PreviewRetention", call)
    assert (page.days, page.suspended) == (30, "the clock is 3 days ahead")
    fates = [(one.number, one.fate, one.expiring_seconds) for one in page.entries]
    assert fates == [
        (1, "unseen", 0),
        (2, "sending", 0),
        (3, "due", 0),
        (4, "announced", 1500),
        (5, "deleted", 900),
    ]
    first, *_, last = page.entries
    assert (first.study_instance_uid, first.received_seconds) == ("1.2.1", 100)
    assert first.package_id == str(PackageId((1).to_bytes(32, "big")))
    assert (first.origin, first.received_from) == (str(HELENA.facility), "Billings Hospital")
    assert last.received_from == str(HELENA.facility)
    assert node.log[0] == ("retention.listed", ({}, call.actor))
    assert node.log[-1][0] == "written"


async def test_preview_of_very_many_comes_in_pages_of_which_the_first_has_the_policy() -> None:
    node = Node(aged=tuple(aged(n) for n in range(1, 2001)))
    got = await answers(node.service, "PreviewRetention", AdminCall(pb.PreviewRetentionRequest()))
    assert [page.days for page in got] == [30] + [0] * (len(got) - 1)
    assert len(got) > 1
    assert [one.number for page in got for one in page.entries] == list(range(1, 2001))
    assert max(page.ByteSize() for page in got) < 2**20


async def test_preview_that_cannot_be_recorded_shows_nothing() -> None:
    node = Node(aged=(aged(1),), audit=Recorded(note_list=StoreError("full")))
    call = AdminCall(pb.PreviewRetentionRequest())
    with pytest.raises(StoreError):
        await answers(node.service, "PreviewRetention", call)
    assert call.got == []


async def test_step_of_retention_answers_with_what_it_did() -> None:
    node, call = Node(step=Step(4, 5)), AdminCall(pb.ApplyRetentionRequest())
    found = await answer(node.service, "ApplyRetention", call)
    assert (found.announced, found.deleted) == (4, 5)
    assert node.log == [("step", (call.actor,))]


async def test_step_of_retention_under_a_doubted_clock_is_refused_with_the_reason() -> None:
    node = Node(step=Conflict("the clock is 3 days ahead"))
    with pytest.raises(Conflict, match="3 days ahead"):
        await answer(node.service, "ApplyRetention", AdminCall(pb.ApplyRetentionRequest()))
