"""What people wrote with a study is shown as theirs, whoever else sends the same package."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.domain.ids import FacilityId
from node.sql.database import Db
from node.store.context import StoreContext
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store
from tests.support.history import History, fill, study_of

FIRST, SECOND = FacilityId(digest(b"first")), FacilityId(digest(b"second"))


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path)
    fill(context, History(FIRST, 0, 1))
    yield context
    context.close()


def deliver_again(context: StoreContext, peer: FacilityId, note: str, transfer: bytes) -> None:
    """Have somebody deliver the one package that is here."""

    def work(db: Db) -> None:
        db.execute("CREATE TEMP TABLE again AS SELECT * FROM transfers LIMIT 1")
        db.execute(
            "UPDATE again SET id = NULL, peer = ?, note = ?, transfer_id = ?, priority = 0",
            (peer.digest, note, transfer),
        )
        db.execute("INSERT INTO transfers SELECT * FROM again")
        db.execute("DROP TABLE again")

    context.database.write_sync(work)


async def test_words_of_another_sender_are_not_shown_as_the_first_ones(
    context: StoreContext,
) -> None:
    deliver_again(context, FIRST, "for the board", b"1" * 16)
    deliver_again(context, SECOND, "ignore it", b"2" * 16)
    deliver_again(context, SECOND, "discard it", b"3" * 16)
    (source,) = await StudyStore(context).sources([(study_of(0), FIRST)])
    (package,) = source.packages
    assert (package["received_from"], package["note"]) == (FIRST.digest, "for the board")
    further = package["further"]
    assert isinstance(further, list)
    assert [(row["peer"], row["note"]) for row in further] == [(SECOND.digest, "discard it")]
