"""The audit log in the store: written with the fact, asked by what entries are about."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from node.domain.actors import NODE, Visitor
from node.domain.audit import AuditEntry, AuditFilter
from node.store import audit
from node.store.audit import AuditStore
from tests.node.store.test_import_resumes import make_store

ALICE = Visitor(1000, "alice", 1).actor("bob")
BOB = Visitor(1001, "bob", 1).actor("")
NAMELESS = Visitor(1002, "", 1).actor("(alice)")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncGenerator[AuditStore]:
    context = make_store(tmp_path)
    yield AuditStore(context)
    context.close()


async def found(log: AuditStore, limit: int = 0, **wanted: object) -> list[AuditEntry]:
    pages = log.search(AuditFilter(**wanted), limit)  # type: ignore[arg-type]
    return [entry async for page in pages for entry in page]


async def numbers(log: AuditStore, limit: int = 0, **wanted: object) -> list[int]:
    return [json.loads(entry.body)["n"] for entry in await found(log, limit, **wanted)]


async def test_entries_are_found_by_study_peer_operator_kind_and_time(log: AuditStore) -> None:
    for n, (kind, facts, who) in enumerate(
        [
            ("study.exported", {"study": "1.2.3", "destination": "/media/stick"}, ALICE),
            ("study.shown", {"study": "1.2.34"}, BOB),
            ("transfer.offered", {"study": "1.2.3", "peer": "AAAA"}, NAMELESS),
            ("peer.pinned", {"facility": "AAAA"}, ALICE),
            ("node.started", {}, NODE),
        ]
    ):
        await log.append(kind, {**facts, "n": n}, who)
    assert await numbers(log) == [0, 1, 2, 3, 4]
    assert await numbers(log, study="1.2.3") == [0, 1, 2]
    assert await numbers(log, study="1.2.34") == [1]
    assert await numbers(log, study="1.2.3", is_whole_study=True) == [0, 2]
    assert await numbers(log, study="1.2.2") == []
    assert await numbers(log, peer="AAAA") == [2, 3]
    assert await numbers(log, operator="1000") == [0, 3]
    assert await numbers(log, operator="alice") == [0, 3]
    assert await numbers(log, operator="bob") == [0, 1, 3]  # as the door knew him, or said
    assert await numbers(log, operator="node") == [4]
    assert await numbers(log, kind="study.") == [0, 1]
    assert await numbers(log, kind="study.exported", study="1.2") == [0]
    assert await numbers(log, 2) == [3, 4]
    assert await numbers(log, 1, operator="alice") == [3]
    last = (await found(log, 1))[0].time_milliseconds
    assert await numbers(log, until_milliseconds=1) == []
    assert len(await numbers(log, since_milliseconds=1, until_milliseconds=last + 1)) == 5


async def test_long_log_is_read_in_pages_and_its_latest_entries_begin_where_they_should(
    log: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE_ENTRIES", 7)
    monkeypatch.setattr(audit, "_STRETCH_ENTRIES", 20)
    for n in range(100):
        await log.append("even" if n % 2 == 0 else "odd", {"n": n})
    assert await numbers(log) == list(range(100))
    assert await numbers(log, kind="odd") == list(range(1, 100, 2))
    for limit in (1, 6, 7, 8, 14, 15, 50, 60):
        assert await numbers(log, limit, kind="odd") == list(range(1, 100, 2))[-limit:]
    pages = [len(page) async for page in log.search(AuditFilter())]
    assert max(pages) == 7
    assert (await log.verify()).entries == 100


async def test_list_that_is_shown_again_and_again_is_one_entry_until_it_changes(
    log: AuditStore,
) -> None:
    for _ in range(50):
        await log.note_list("studies.listed", {"query": "", "studies": 3}, ALICE)
    await log.note_list("studies.listed", {"query": "", "studies": 4}, ALICE)
    await log.note_list("studies.listed", {"query": "", "studies": 4}, BOB)
    assert [(e.operator, json.loads(e.body)["studies"]) for e in await found(log)] == [
        (ALICE.text, 3),
        (ALICE.text, 4),
        (BOB.text, 4),
    ]
