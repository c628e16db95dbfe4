"""Word of deletions waits for its peer; a peer's word counts for its own receipts only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.domain.deletions import MOST_AT_ONCE, Deletion
from node.domain.ids import FacilityId, TransferId
from node.domain.transfers import Direction
from node.sql.database import Db
from node.store.context import StoreContext
from node.store.deletions import DeletionStore
from node.store.studies import StudyStore
from node.store.transfers import TransferStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.history import History, fill, study_of

PEER, OTHER = FacilityId(digest(b"peer")), FacilityId(digest(b"other"))
SENT, RECEIVED = 3, MOST_AT_ONCE + 6


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path)
    fill(context, History(PEER, SENT, RECEIVED))
    yield context
    context.close()


async def test_word_of_a_deletion_waits_until_its_peer_confirms_it(context: StoreContext) -> None:
    studies, deletions = StudyStore(context), DeletionStore(context)
    assert await deletions.unreported(PEER) == []
    for number in range(SENT, SENT + RECEIVED):
        await studies.delete(study_of(number), "", actor("somebody"))
    first = await deletions.unreported(PEER)
    assert len(first) == MOST_AT_ONCE
    assert await deletions.unreported(OTHER) == []
    ids = [deletion.transfer_id for deletion in first]
    await deletions.confirmed(OTHER, ids)
    assert await deletions.unreported(PEER) == first, "nobody confirms for another"
    await deletions.confirmed(PEER, ids)
    rest = await deletions.unreported(PEER)
    assert len(rest) == RECEIVED - MOST_AT_ONCE
    assert not {deletion.transfer_id for deletion in rest} & set(ids)


async def test_own_studies_are_deleted_without_a_word(context: StoreContext) -> None:
    await StudyStore(context).delete(study_of(0), "", actor("somebody"))
    assert await DeletionStore(context).unreported(PEER) == []


async def test_word_goes_with_a_transfer_that_is_forgotten(context: StoreContext) -> None:
    await StudyStore(context).delete(study_of(SENT), "", actor("somebody"))
    assert len(await DeletionStore(context).unreported(PEER)) == 1
    assert await TransferStore(context).forget_old(1) == 1
    assert await DeletionStore(context).unreported(PEER) == []


async def test_word_counts_once_and_only_of_what_its_peer_gave_a_receipt_for(
    context: StoreContext,
) -> None:
    transfers, told = TransferStore(context), list[int]()
    deletions = DeletionStore(context, lambda row: told.append(row.id))
    rows = (await transfers.find())[::-1]
    sent = [row for row in rows if row.direction is Direction.SEND]
    came = next(row for row in rows if row.direction is Direction.RECEIVE)
    mine = Deletion(sent[0].transfer_id, sent[0].created_time + 5)
    await deletions.take(OTHER, [mine])
    await deletions.take(PEER, [Deletion(came.transfer_id, 1.0), Deletion(TransferId.new(), 1.0)])
    assert not told
    await deletions.take(PEER, [mine])
    await deletions.take(PEER, [Deletion(sent[0].transfer_id, sent[0].created_time + 9)])
    assert told == [sent[0].id]
    assert (await transfers.by_number(sent[0].id)).deleted_time == mine.time


@pytest.mark.parametrize("said", [0.0, 2.0**40])
async def test_time_that_a_peer_says_is_between_the_delivery_and_now(
    said: float, context: StoreContext
) -> None:
    transfers, deletions = TransferStore(context), DeletionStore(context)
    (row,) = await transfers.find("direction = 'send'", limit=1)
    await deletions.take(PEER, [Deletion(row.transfer_id, said)])
    kept = (await transfers.by_number(row.id)).deleted_time
    assert row.created_time <= kept < row.created_time + 10 * 365 * 86400


async def test_study_is_deleted_there_once_all_its_packages_are(context: StoreContext) -> None:
    transfers, studies = TransferStore(context), StudyStore(context)
    (row,) = await transfers.find("direction = 'send'", limit=1)

    async def deleted() -> float:
        (source,) = await studies.sources([(row.study_uid, row.origin)])
        return source.sent_to[0].deleted_time

    assert await deleted() == 0
    await DeletionStore(context).take(PEER, [Deletion(row.transfer_id, row.created_time + 5)])
    assert await deleted() == row.created_time + 5


async def test_what_was_added_after_a_delivery_is_not_called_sent(context: StoreContext) -> None:
    studies = StudyStore(context)
    (row,) = await TransferStore(context).find("direction = 'send'", limit=1)

    def add(db: Db) -> None:
        where = (row.study_uid,)
        db.execute("CREATE TEMP TABLE more AS SELECT * FROM packages WHERE study_uid = ?", where)
        db.execute("UPDATE more SET id = 9999, package_id = randomblob(32)")
        db.execute("INSERT INTO packages SELECT * FROM more")
        db.execute("DROP TABLE more")
        db.execute("INSERT INTO chunks VALUES (9999, 0, 0, randomblob(32), 1, 1, x'', 1, 0)")
        db.execute(
            "INSERT INTO instances (package, position, sop_instance_uid, sop_class_uid, series_uid,"
            " transfer_syntax_uid, size_bytes, digest, extents)"
            " VALUES (9999, 0, '1.2', '1.2', '1.3', '1.2', 1, x'02', x'')"
        )

    async def sent() -> list[int]:
        (source,) = await studies.sources([(row.study_uid, row.origin)])
        return [source.sent_to[0].instances, sum(int(str(p["instances"])) for p in source.packages)]

    assert await sent() == [1, 1]
    await context.database.write(add)
    assert await sent() == [1, 2]
