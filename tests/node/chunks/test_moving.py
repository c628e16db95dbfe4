"""The contract on a storage that moves, a step between any two calls."""

import threading

import pytest

from node.chunks.moving import MovingChunkStorage
from node.chunks.testing import MemoryChunkStorage
from node.domain.ids import ChunkId
from node.errors import ChunkNotFound, StoreError
from tests.node.chunks.contract import ChunkStorageContract, chunk

NAME, CONTENT = chunk(b"one")


class MovingHarness:
    def __init__(self) -> None:
        self.to, self.before = MemoryChunkStorage(), MemoryChunkStorage()

    def open(self) -> MovingChunkStorage:
        self.to, self.before = self.to.crashed(), self.before.crashed()
        self._storage = MovingChunkStorage(self.to, self.before)
        return self._storage

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        self.to.replace(chunk_id, None)
        self.before.replace(chunk_id, content)  # it has not moved yet

    def tear(self, chunk_id: ChunkId, content: bytes) -> None:
        """A kill while it moves: it is in both places, and durable in one only."""
        if self.before.size(chunk_id) is not None:
            self.to.put(chunk_id, self.before.get(chunk_id))

    def fill(self, storage: MovingChunkStorage) -> None:
        storage.use_reserve(2**60)

    def settle(self) -> None:
        self._storage.move_some()


class TestMovingChunkStorage(ChunkStorageContract):
    @pytest.fixture
    def harness(self) -> MovingHarness:
        return MovingHarness()


class TestUnmovedChunkStorage(ChunkStorageContract):
    @pytest.fixture
    def harness(self) -> MovingHarness:
        class Waiting(MovingHarness):
            def settle(self) -> None:
                """Nothing moves meanwhile."""

        return Waiting()


@pytest.fixture
def harness() -> MovingHarness:
    harness = MovingHarness()
    harness.before.put(NAME, CONTENT)
    harness.before.sync([NAME])
    return harness


def test_all_move_and_then_it_is_done(harness: MovingHarness) -> None:
    storage = harness.open()
    names = [chunk(bytes([n]))[0] for n in range(40)]
    for n, name in enumerate(names):
        harness.before.put(name, bytes([n]))
    while storage.move_some():
        assert len(dict(storage.contents())) == 41
    assert not storage.is_done
    storage.move_left_out([])
    assert storage.is_done
    assert storage.moved == 41
    assert list(harness.before.contents()) == []
    assert {name for name, _ in harness.to.crashed().contents()} == {NAME, *names}


def test_what_no_listing_shows_moves_all_the_same(harness: MovingHarness) -> None:
    storage = harness.open()
    late, lost = chunk(b"late"), chunk(b"lost")
    assert storage.move_some() == 1
    harness.before.lags = True
    harness.before.put(*late)
    assert storage.move_some() == 0
    assert harness.to.size(late[0]) is None
    storage.move_left_out([NAME, late[0], lost[0]])
    assert harness.to.crashed().get(late[0]) == late[1]
    assert (harness.before.size(late[0]), storage.is_done) == (None, True)
    with pytest.raises(ChunkNotFound):
        storage.get(lost[0])


def test_place_that_fails_loses_nothing_and_moving_goes_on(harness: MovingHarness) -> None:
    storage = harness.open()
    harness.to.problem = "it is away"
    with pytest.raises(StoreError, match="is away"):
        storage.move_some()
    assert harness.before.get(NAME) == CONTENT
    harness.to.problem = ""
    assert storage.move_some() == 1
    assert storage.get(NAME) == CONTENT


def test_chunk_that_moves_between_two_looks_is_found(harness: MovingHarness) -> None:
    storage = harness.open()
    get = harness.before.get

    def moved(chunk_id: ChunkId) -> bytes:
        harness.before.get = get  # type: ignore[method-assign]
        storage.move_some()
        return get(chunk_id)

    harness.before.get = moved  # type: ignore[method-assign]
    assert storage.get(NAME) == CONTENT


def test_chunk_that_is_deleted_while_it_moves_does_not_come_back(harness: MovingHarness) -> None:
    storage = harness.open()
    put, deleting = harness.to.put, threading.Thread(target=storage.delete, args=([NAME],))

    def put_slowly(chunk_id: ChunkId, sealed: bytes) -> None:
        deleting.start()
        put(chunk_id, sealed)

    harness.to.put = put_slowly  # type: ignore[method-assign]
    storage.move_some()
    deleting.join(20)
    with pytest.raises(ChunkNotFound):
        storage.get(NAME)
    assert list(storage.contents()) == []


def test_what_was_put_since_is_not_overwritten_by_what_was_before(harness: MovingHarness) -> None:
    storage = harness.open()
    harness.before.replace(NAME, b"eno")  # damaged
    storage.put(NAME, CONTENT)
    storage.sync([NAME])
    storage.move_some()
    assert storage.get(NAME) == CONTENT
    assert list(harness.before.contents()) == []


def test_whole_chunk_is_not_given_up_for_a_damaged_one_where_it_moves_to(
    harness: MovingHarness,
) -> None:
    storage = harness.open()
    harness.to.put(NAME, CONTENT)
    harness.to.replace(NAME, b"x" * len(CONTENT))  # cut off after the copy, and damaged there since
    while storage.move_some():
        pass
    assert storage.get(NAME) == CONTENT
    assert harness.before.size(NAME) is None
