"""What a peer tells of deletions is bounded, and confirmed with the next word to it."""

from collections.abc import Sequence

import pytest
from emix.exchange.v1 import exchange_pb2 as pb

from node.domain.deletions import MOST_AT_ONCE, Deletion
from node.domain.ids import FacilityId, TransferId
from node.errors import RemoteProtocolError
from node.federation.connections.deletions import DeletionReports

PEER = FacilityId(b"p" * 32)


class Book:
    """Keeps them in memory."""

    def __init__(self) -> None:
        self.waiting = [Deletion(TransferId.new(), 1.5)]
        self.taken: list[Deletion] = []

    async def unreported(self, peer: FacilityId) -> Sequence[Deletion]:
        return list(self.waiting)

    async def confirmed(self, peer: FacilityId, transfers: Sequence[TransferId]) -> None:
        self.waiting = [d for d in self.waiting if d.transfer_id not in transfers]

    async def take(self, peer: FacilityId, told: Sequence[Deletion]) -> None:
        self.taken += told


async def test_what_is_told_is_told_again_until_it_is_confirmed() -> None:
    ours, theirs = Book(), Book()
    mine, other = (DeletionReports(book, lambda: True) for book in (ours, theirs))
    for _ in range(2):  # the first answer is lost
        confirmed = await other.accept(PEER, await mine.give(PEER), mine.confirmations(PEER))
    assert len(theirs.taken) == 2
    assert len(ours.waiting) == 1
    await mine.answered(PEER, await other.give(PEER), confirmed)
    assert not ours.waiting
    assert len(theirs.waiting) == 1
    await other.accept(PEER, await mine.give(PEER), mine.confirmations(PEER))
    assert not theirs.waiting
    assert mine.confirmations(PEER) == []


async def test_nobody_is_told_where_policy_says_so() -> None:
    book, is_reported = Book(), False
    news = DeletionReports(book, lambda: is_reported)
    assert await news.give(PEER) == []
    is_reported = True
    (told,) = await news.give(PEER)
    assert told.deleted_milliseconds == 1500


async def test_of_many_only_some_are_read() -> None:
    book = Book()
    told = [pb.Deletion(transfer_id=bytes(16)) for _ in range(10 * MOST_AT_ONCE)]
    confirmed = await DeletionReports(book, lambda: True).accept(PEER, told, [])
    assert len(confirmed) == len(book.taken) == MOST_AT_ONCE


@pytest.mark.parametrize("name", [b"", bytes(15), bytes(17), bytes(1000)])
async def test_what_is_no_transfer_is_refused(name: bytes) -> None:
    news = DeletionReports(Book(), lambda: True)
    with pytest.raises(RemoteProtocolError):
        await news.accept(PEER, [pb.Deletion(transfer_id=name)], [])
    with pytest.raises(RemoteProtocolError):
        await news.accept(PEER, [], [name])
