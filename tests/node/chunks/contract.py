"""What every chunk storage must do, and a harness for what happens to it from outside."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from node.chunks.storage import ChunkStorage
from node.crypto.digests import digest
from node.domain.ids import ChunkId
from node.errors import ChunkNotFound, StoreFull


def chunk(content: bytes) -> tuple[ChunkId, bytes]:
    return ChunkId(digest(content)), content


class Harness(Protocol):
    """A place of its own for chunks, and what may happen to it."""

    def open(self) -> ChunkStorage:
        """Open the storage, anew after a crash: what was put and not synced may be gone."""

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        """Change what is kept behind the storage's back; None takes it away."""

    def tear(self, chunk_id: ChunkId, content: bytes) -> None:
        """Leave what a put of this chunk leaves that is killed midway, or do nothing."""

    def fill(self, storage: ChunkStorage) -> None:
        """Leave no room for another chunk."""

    def settle(self) -> None:
        """Wait until listings show what is there."""


_CONTENTS = (b"", b"a", b"b" * 3000, b"c" * 70_000, b"d")


def _chunk(number: int) -> tuple[ChunkId, bytes]:
    return chunk(_CONTENTS[number])


class Machine(RuleBasedStateMachine):
    """Puts, deletes, damage and crashes in any order, beside a dictionary that tells the truth."""

    harness: Harness
    contents = st.integers(0, len(_CONTENTS) - 1)

    @initialize()
    def begin(self) -> None:
        self.storage = self.harness.open()
        for chunk_id, _ in list(self.storage.contents()):
            self.storage.delete([chunk_id])
        self.truth: dict[ChunkId, bytes] = {}

    @rule(number=contents)
    def put(self, number: int) -> None:
        name, content = _chunk(number)
        self.storage.put(name, content)
        self.storage.sync([name])
        self.truth[name] = content

    @rule(some=st.lists(contents, max_size=3))
    def delete(self, some: list[int]) -> None:
        self.storage.delete([_chunk(number)[0] for number in some])
        for number in some:
            self.truth.pop(_chunk(number)[0], None)

    @rule(number=contents, other=st.none() | st.binary(max_size=5))
    def replace(self, number: int, other: bytes | None) -> None:
        name, _ = _chunk(number)
        self.harness.replace(name, other)
        self.truth.pop(name, None)
        if other is not None:
            self.truth[name] = other

    @rule(number=contents)
    def crash_while_putting(self, number: int) -> None:
        self.harness.tear(*_chunk(number))
        self.storage = self.harness.open()

    @rule(number=contents)
    def look(self, number: int) -> None:
        name, _ = _chunk(number)
        expected = self.truth.get(name)
        assert self.storage.size(name) == (None if expected is None else len(expected))
        if expected is None:
            with pytest.raises(ChunkNotFound):
                self.storage.get(name)
        else:
            assert self.storage.get(name) == expected

    @invariant()
    def listing_is_the_truth(self) -> None:
        if hasattr(self, "truth"):
            self.harness.settle()
            found = list(self.storage.contents())
            assert dict(found) == {name: len(content) for name, content in self.truth.items()}
            assert len(found) == len(self.truth)
            assert sorted(self.storage.ids()) == sorted(self.truth)


class ChunkStorageContract:
    """Inherit, and provide a fixture `harness`."""

    examples = 60

    @pytest.fixture
    def storage(self, harness: Harness) -> ChunkStorage:
        return harness.open()

    def test_any_order_of_calls_damage_and_crashes(self, harness: Harness) -> None:
        machine = type("Machine", (Machine,), {"harness": harness})
        quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=quiet,
            ),
        )

    def test_what_was_put_comes_back(self, storage: ChunkStorage) -> None:
        name, content = chunk(b"one")
        storage.put(name, content)
        storage.sync([name])
        assert storage.get(name) == content
        assert storage.size(name) == 3

    def test_putting_again_changes_nothing(self, harness: Harness, storage: ChunkStorage) -> None:
        name, content = chunk(b"one")
        storage.put(name, content)
        storage.put(name, content)
        harness.settle()
        assert list(storage.contents()) == [(name, 3)]

    @pytest.mark.parametrize("other", [b"eno", b"longer", b""])
    def test_putting_again_mends_what_was_damaged(
        self, harness: Harness, storage: ChunkStorage, other: bytes
    ) -> None:
        name, content = chunk(b"one")
        storage.put(name, content)
        harness.replace(name, other)
        assert storage.get(name) == other  # whoever gets it checks it
        storage.put(name, content)
        assert storage.get(name) == content

    def test_chunk_that_is_not_there_is_not_found(self, storage: ChunkStorage) -> None:
        name, _ = chunk(b"one")
        assert storage.size(name) is None
        with pytest.raises(ChunkNotFound):
            storage.get(name)

    def test_deleted_chunks_are_gone_and_others_stay(
        self, harness: Harness, storage: ChunkStorage
    ) -> None:
        (one, a), (two, b) = chunk(b"one"), chunk(b"two")
        storage.put(one, a)
        storage.put(two, b)
        storage.delete([one, ChunkId(bytes(32))])
        storage.delete([])
        harness.settle()
        assert [name for name, _ in storage.contents()] == [two]
        assert storage.size(one) is None

    def test_many_are_deleted_and_listed(self, harness: Harness, storage: ChunkStorage) -> None:
        names = [chunk(bytes([n]))[0] for n in range(40)]
        for n, name in enumerate(names):
            storage.put(name, bytes([n]))
        harness.settle()
        assert {name for name, _ in storage.contents()} == set(names)
        storage.delete(names)
        harness.settle()
        assert list(storage.contents()) == []

    def test_what_was_synced_is_there_after_a_crash(
        self, harness: Harness, storage: ChunkStorage
    ) -> None:
        name, content = chunk(b"one" * 1000)
        storage.put(name, content)
        storage.sync([name])
        assert harness.open().get(name) == content

    def test_largest_chunk_is_kept(self, storage: ChunkStorage) -> None:
        name, content = chunk(bytes(range(256)) * (4 << 12) + b"sealed")
        storage.put(name, content)
        assert storage.get(name) == content

    def test_threads_put_and_get_at_once(self, storage: ChunkStorage) -> None:
        names = [chunk(bytes([n % 4]) * 5000) for n in range(16)]
        begun = threading.Barrier(4)

        def work(n: int) -> bool:
            begun.wait(20)
            name, content = names[n]
            storage.put(name, content)
            return storage.get(name) == content

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(16)))

    def test_no_room_is_said_and_nothing_is_kept(
        self, harness: Harness, storage: ChunkStorage
    ) -> None:
        name, content = chunk(b"one")
        harness.fill(storage)
        with pytest.raises(StoreFull):
            storage.put(name, content)
        assert storage.size(name) is None

    def test_usable_storage_passes_its_check(self, storage: ChunkStorage) -> None:
        storage.check()
        assert storage.free_bytes() > 0
