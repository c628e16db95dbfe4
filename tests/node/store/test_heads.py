"""Heads of audit logs in the store: what one node gives, another keeps, within bounds."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from node.documents.audit_head import open_head, sign_head
from node.domain.heads import MAX_LINKS, MOST_EVIDENCE, MOST_UNPROVEN, GivenHead, Head, KeptHead
from node.errors import BadSignature, DocumentError
from node.sql.database import Db
from node.store import audit_rows
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.heads import HeadStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor


class Side:
    """One node's log and what it keeps."""

    def __init__(self, context: StoreContext) -> None:
        self.context = context
        self.facility, self.node = context.facility, context.signer.node_id
        self.audit, self.heads = AuditStore(context), HeadStore(context)

    async def log(self, entries: int) -> None:
        for n in range(entries):
            await self.audit.append("test", {"n": n})

    def starts_again(self) -> None:
        self.heads = HeadStore(self.context)

    async def alarms(self) -> list[str]:
        return [entry.kind for entry in await self.audit.open_alarms()]


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncGenerator[tuple[Side, Side]]:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(Side(make_store(tmp_path / name)))
    yield made[0], made[1]
    for side in made:
        side.context.close()


Sides = tuple[Side, Side]


async def say_hello(a: Side, b: Side) -> None:
    """Give a's head to b, and tell a what b then has."""
    given = await a.heads.give(b.facility)
    await b.heads.take(open_head(given.encoded), given)
    await a.heads.note_reported(b.facility, await b.heads.kept(a.facility, a.node))


async def cut(side: Side, entries: int) -> None:
    sql = "DELETE FROM audit WHERE sequence > (SELECT MAX(sequence) FROM audit) - ?"
    await side.context.database.write(lambda db: db.execute(sql, (entries,)))
    side.starts_again()


async def test_log_that_grows_is_confirmed_step_by_step(sides: Sides) -> None:
    a, b = sides
    for entries in (3, 1, 0, 40):
        await a.log(entries)
        await say_hello(a, b)
        [told, *_] = await a.heads.reported()
        assert (told.witness, told.sequence) == (b.facility, (await a.audit.verify()).entries)
        confirmed = a.heads.confirmed_sync()
        assert (confirmed.entries, confirmed.witnesses) == (confirmed.sequence, 1)
        assert confirmed.unconfirmed_seconds(2**33) == 0
    await a.log(1)
    confirmed = a.heads.confirmed_sync()
    assert (confirmed.entries, confirmed.contradictions) == (confirmed.sequence + 1, 0)
    assert confirmed.unconfirmed_seconds(confirmed.unconfirmed_time + 60) == 60
    assert await a.alarms() == await b.alarms() == []


async def test_more_entries_than_one_proof_holds_take_several_hellos(sides: Sides) -> None:
    a, b = sides
    await a.log(1)
    await say_hello(a, b)
    await a.context.database.write(lambda db: add_rows(db, MAX_LINKS + 500))
    await say_hello(a, b)
    assert (await a.heads.reported())[0].sequence == MAX_LINKS + 1
    await say_hello(a, b)
    assert (await a.heads.reported())[0].sequence == MAX_LINKS + 501
    assert await b.alarms() == []


def add_rows(db: Db, count: int) -> None:
    for _ in range(count):
        audit_rows.append(db, "test", {})


@pytest.mark.parametrize("added", [0, 2, 5, 9])
async def test_log_that_was_cut_is_an_alarm_on_both_sides_however_long_it_is_then(
    sides: Sides, added: int
) -> None:
    a, b = sides
    await a.log(10)
    await say_hello(a, b)
    await cut(a, 5)
    await a.log(added)
    for _ in range(MOST_UNPROVEN + 3):
        await say_hello(a, b)
        await a.log(1)
    assert await a.alarms() == ["alarm.audit-log"]
    assert a.heads.confirmed_sync().contradictions == 1
    assert await b.alarms() == ["alarm.peer-audit-log"]
    evidence = [
        k.head.sequence for k in await b.heads.kept(a.facility, a.node) if k.is_contradicted
    ]
    assert evidence == [10]
    # The log goes on from what it is now, and b keeps what it has now.
    await say_hello(a, b)
    assert (await a.heads.reported())[0].sequence == (await a.audit.verify()).entries


async def test_peer_that_shows_new_logs_without_end_has_bounded_room(sides: Sides) -> None:
    a, b = sides
    signer = a.context.signer
    for n in range(200):
        head = Head(a.facility, a.node, 5, n.to_bytes(32, "big"), 0)
        encoded = sign_head(5, head.digest, 0, signer).encode()
        await b.heads.take(head, GivenHead(encoded))
    kept = await b.heads.kept(a.facility, a.node)
    assert len(kept) <= MOST_EVIDENCE + 2
    entries = await b.audit.entries()
    assert [entry.kind for entry in entries] == ["alarm.peer-audit-log"]


async def test_accepted_log_begins_anew(sides: Sides) -> None:
    a, b = sides
    await a.log(10)
    await say_hello(a, b)
    await cut(a, 5)
    assert await b.heads.settle(a.facility, actor("me")) == 1
    await say_hello(a, b)
    assert await b.alarms() == []
    assert [k.head.sequence for k in await b.heads.kept(a.facility, a.node)] == [5]


async def test_what_a_witness_tells_of_others_is_left_out(sides: Sides) -> None:
    a, b = sides
    await a.log(3)
    given = await b_head(b)
    await a.heads.note_reported(b.facility, [given])
    assert await a.heads.reported() == []
    assert await a.alarms() == []


async def b_head(b: Side) -> KeptHead:
    await b.log(9)
    encoded = await b.heads.own_head()
    return KeptHead(open_head(encoded), encoded, 1.0, is_contradicted=False)


async def test_head_is_its_own_nodes_word_or_nothing(sides: Sides) -> None:
    a, b = sides
    await a.log(1)
    mine = a.context.signer
    other = replace(mine, signer=b.context.signer.signer)
    with pytest.raises(BadSignature):
        open_head(sign_head(1, bytes(32), 0, other).encode())
    for encoded in (b"", b"noise", b"x" * 5000):
        with pytest.raises(DocumentError):
            open_head(encoded)
    for sequence, digest, moment in ((0, bytes(32), 0), (1, b"short", 0), (1, bytes(32), -1)):
        with pytest.raises(DocumentError):
            open_head(sign_head(sequence, digest, moment, mine).encode())
