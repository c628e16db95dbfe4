"""What is removed goes with what only it names; killed anywhere, the rest of it goes later."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.chunks.testing import MemoryChunkStorage
from node.crypto.digests import digest
from node.crypto.keys import DataKey
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.packages import Package, PackageState
from node.errors import StoreError
from node.sql.database import Db
from node.store import package_rows, removal
from node.store.context import StoreContext
from node.store.envelopes import Envelope
from node.store.removal import delete_unnamed, finish_removals, remove_packages, sweep
from tests.support.stores import new_store


def name(content: bytes) -> ChunkId:
    return ChunkId(digest(content))


@dataclass
class World:
    """A store whose chunks are in memory, each named by its content."""

    context: StoreContext
    storage: MemoryChunkStorage

    def put(self, *contents: bytes) -> None:
        for content in contents:
            self.storage.put(name(content), content)

    def add(self, state: PackageState, *contents: bytes) -> Package:
        """Keep a package of some chunks, with its envelope."""
        key = DataKey.new()

        def work(db: Db) -> Package:
            row = package_rows.add_package(
                db,
                package_id=key.package_id,
                origin=self.context.facility,
                study_uid="1.2",
                state=state,
                epoch=1,
                wrapped_key=b"",
            )
            entries = [
                ChunkEntry(n, name(content), 1, len(content), bytes(32))
                for n, content in enumerate(contents)
            ]
            package_rows.add_chunks(db, row, 0, entries, present=True)
            return package_rows.find_packages(db, "id = ?", (row,))[0]

        self.put(*contents)
        package = self.context.database.write_sync(work)
        self.context.envelopes.put(
            Envelope(package.package_id, package.origin, 1, b"", b"manifest", b"")
        )
        return package

    def left(self) -> tuple[set[int], set[bytes], int]:
        """Return which packages and chunks are left, and how many envelopes."""
        packages = self.context.database.read_sync(
            lambda db: {p.id for p in package_rows.find_packages(db, "1", ())}
        )
        contents = {self.storage.get(chunk_id) for chunk_id, _ in self.storage.contents()}
        return packages, contents, len(list(self.context.envelopes.paths()))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    storage = MemoryChunkStorage()
    context = new_store(tmp_path, storage)
    yield World(context, storage)
    context.close()


def test_what_was_never_closed_goes_with_the_chunks_that_only_it_names(world: World) -> None:
    stays = world.add(PackageState.CLOSED, b"a", b"b")
    goes = [
        world.add(PackageState.OPEN, b"b", b"c"),
        world.add(PackageState.HELD, b"c", b"d"),
        world.add(PackageState.ARRIVING, b"e"),
    ]
    other = world.add(PackageState.OPEN, b"f")
    assert remove_packages(world.context, [stays.id, *(p.id for p in goes), 99]) == 3
    assert world.left() == ({stays.id, other.id}, {b"a", b"b", b"f"}, 2)


def test_nothing_is_removed_while_a_copy_is_made(world: World) -> None:
    package = world.add(PackageState.OPEN, b"a")
    with world.context.removals.held_back():
        assert remove_packages(world.context, [package.id]) == 0
        assert world.left() == ({package.id}, {b"a"}, 1)
    assert finish_removals(world.context) == 1
    assert world.left() == (set(), set(), 0)


@pytest.mark.parametrize("has_envelope", [False, True])
def test_removal_that_was_cut_off_is_completed(world: World, has_envelope: bool) -> None:
    package, other = world.add(PackageState.DELETING, b"a"), world.add(PackageState.CLOSED, b"b")
    if not has_envelope:
        world.context.envelopes.remove(package.origin, package.package_id)
    assert finish_removals(world.context) == 1
    assert world.left() == ({other.id}, {b"b"}, 1)
    assert finish_removals(world.context) == 0


def test_chunks_that_could_not_be_deleted_are_swept_later(world: World) -> None:
    package = world.add(PackageState.OPEN, b"a")
    world.storage.problem = "the server is away"
    with pytest.raises(StoreError):
        remove_packages(world.context, [package.id])
    world.storage.problem = ""
    assert world.left() == (set(), {b"a"}, 0), "and no envelope brings it back"
    assert sweep(world.context) == 1
    assert world.left() == (set(), set(), 0)


def test_sweep_deletes_what_no_package_names_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_SLICE", 2)
    named = [bytes([n]) for n in range(len(PackageState))]
    world.put(*(bytes([100 + n]) for n in range(5)))
    packages = {world.add(state, named[n]).id for n, state in enumerate(PackageState)}
    assert sweep(world.context) == 5
    assert world.left() == (packages, set(named), len(named))


def test_chunks_that_are_given_up_go_unless_something_names_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_SLICE", 2)
    world.put(b"1", b"2", b"3", b"4")
    package = world.add(PackageState.OPEN, b"2")
    given_up = [name(content) for content in (b"1", b"2", b"3")]
    assert delete_unnamed(world.context, given_up) == 2
    assert delete_unnamed(world.context, []) == 0
    assert world.left() == ({package.id}, {b"2", b"4"}, 1)
