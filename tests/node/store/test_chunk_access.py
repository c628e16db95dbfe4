"""Chunks of a transfer: kept only if they are what the manifest names, and lost only if seen so."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node.chunks.format import Piece, seal_chunk
from node.chunks.testing import MemoryChunkStorage
from node.crypto.digests import digest
from node.crypto.keys import DataKey
from node.dicom.examine import examine_bytes
from node.documents.arrivals import Arrival
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.packages import PackageState
from node.errors import BadManifest, ChunkDamaged, ChunkNotFound
from node.sql.database import Db
from node.store import chunk_access, package_rows
from node.store.chunk_access import ChunkAccess
from node.store.context import StoreContext
from node.store.lost import lost_positions
from tests.support.dicom_files import make_noisy_instance
from tests.support.examining import LocalExpander
from tests.support.stores import new_store


@dataclass
class World:
    """A store in which a package arrives; its chunks are sealed, and none is here yet."""

    context: StoreContext
    storage: MemoryChunkStorage
    arrival: Arrival
    entries: list[ChunkEntry]
    sealed: list[bytes]

    @property
    def chunks(self) -> ChunkAccess:
        return ChunkAccess(self.context)

    def lost(self) -> frozenset[int]:
        package = self.arrival.package.id
        return self.context.database.read_sync(lambda db: lost_positions(db, package))


def add_package(context: StoreContext, key: DataKey, entries: list[ChunkEntry]) -> Arrival:
    def work(db: Db) -> Arrival:
        row = package_rows.add_package(
            db,
            package_id=key.package_id,
            origin=context.facility,
            study_uid="1.2",
            state=PackageState.ARRIVING,
            epoch=1,
            wrapped_key=b"",
        )
        package_rows.add_chunks(db, row, 0, entries, present=True)
        return Arrival(package_rows.find_packages(db, "id = ?", (row,))[0], key, frozenset())

    return context.database.write_sync(work)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    storage, key = MemoryChunkStorage(), DataKey.new()
    context = new_store(tmp_path, storage)
    made = [
        seal_chunk(
            key.sealing_keys(),
            key.package_id,
            n,
            [Piece(bytes([n]) * 500, digest(bytes([n]) * 500))],
        )
        for n in range(5)
    ]
    entries = [entry for entry, _ in made]
    arrival = add_package(context, key, entries)
    yield World(context, storage, arrival, entries, [sealed for _, sealed in made])
    context.close()


def test_chunk_that_came_is_decrypted_and_kept(world: World) -> None:
    chunk = world.chunks.put_sealed(world.arrival, world.entries[2], world.sealed[2])
    assert LocalExpander().expand(chunk) == bytes([2]) * 500
    world.chunks.sync([world.entries[2].chunk_id])
    assert world.storage.crashed().get(world.entries[2].chunk_id) == world.sealed[2]
    assert world.chunks.get_sealed(world.entries[2]) == world.sealed[2]
    assert world.chunks.unseal_stored(world.arrival, world.entries[2]) == chunk


def test_what_is_not_the_named_chunk_or_cannot_be_decrypted_is_not_kept(world: World) -> None:
    entry, sealed = world.entries[0], world.sealed[0]
    other = replace(world.arrival, data_key=DataKey.new())
    for arrival, content in (
        (world.arrival, world.sealed[1]),
        (world.arrival, sealed + b"x"),
        (world.arrival, b""),
        (other, sealed),
    ):
        with pytest.raises(ChunkDamaged):
            world.chunks.put_sealed(arrival, entry, content)
    assert list(world.storage.contents()) == []


def test_jpeg_ls_comes_only_where_the_manifest_says_so(world: World) -> None:
    """Else the home would not say that opening it takes a library."""
    arrival, image = world.arrival, make_noisy_instance(1, 1)
    keys, name = arrival.data_key.sealing_keys(), arrival.package.package_id
    piece = Piece(image, digest(image), examine_bytes(image).pixels)
    entry, sealed = seal_chunk(keys, name, 0, [piece], is_small=True)
    with pytest.raises(BadManifest, match="JPEG-LS"):
        world.chunks.put_sealed(arrival, entry, sealed)
    stating = replace(arrival, package=replace(arrival.package, needs=("jpeg-ls",)))
    assert LocalExpander().expand(world.chunks.put_sealed(stating, entry, sealed)) == image


@pytest.mark.parametrize(("content", "error"), [(None, ChunkNotFound), (b"damaged", ChunkDamaged)])
def test_chunk_that_is_read_and_is_not_as_it_was_is_noted(
    world: World, content: bytes | None, error: type[Exception]
) -> None:
    for entry, sealed in zip(world.entries, world.sealed, strict=True):
        world.storage.put(entry.chunk_id, sealed)
    world.storage.replace(world.entries[3].chunk_id, content)
    assert world.chunks.get_sealed(world.entries[1]) == world.sealed[1]
    with pytest.raises(error):
        world.chunks.get_sealed(world.entries[3])
    assert world.lost() == {3}


def test_damage_of_our_disk_is_not_called_the_manifests_fault(world: World) -> None:
    entry = world.entries[0]
    with pytest.raises(ChunkNotFound):
        world.chunks.unseal_stored(world.arrival, entry)
    world.storage.put(entry.chunk_id, world.sealed[0])
    for wrong in (
        replace(entry, number=9),
        replace(entry, plaintext_bytes=499),
    ):
        with pytest.raises(BadManifest):
            world.chunks.unseal_stored(world.arrival, wrong)
    world.storage.replace(entry.chunk_id, b"damaged")
    with pytest.raises(ChunkDamaged):
        world.chunks.unseal_stored(world.arrival, entry)


def test_chunks_that_a_kill_left_are_found_and_made_durable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_access, "_SLICE", 2)
    storage, entries = world.storage, world.entries
    for n in (0, 1, 2, 4):
        storage.put(entries[n].chunk_id, world.sealed[n])
    storage.replace(entries[2].chunk_id, b"half")
    recorded = replace(world.arrival, present=frozenset({1}))
    assert world.chunks.find_unrecorded(recorded, entries) == [0, 4]
    crashed = storage.crashed()
    assert [crashed.size(entries[n].chunk_id) is not None for n in range(5)] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_peer_does_not_learn_what_other_packages_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a chunk of another study in its manifest, and sees whether it is asked for it."""
    monkeypatch.setattr(chunk_access, "_SLICE", 1)
    for n in (0, 3):
        world.storage.put(world.entries[n].chunk_id, world.sealed[n])
    add_package(world.context, DataKey.new(), [world.entries[0]])
    assert world.chunks.find_unrecorded(world.arrival, world.entries) == [3]


def test_only_a_damaged_chunk_is_deleted(world: World) -> None:
    good, bad = world.entries[0].chunk_id, world.entries[1].chunk_id
    world.storage.put(good, world.sealed[0])
    world.storage.put(bad, world.sealed[0])
    for chunk_id in (good, bad, ChunkId(bytes(32))):
        world.chunks.delete_damaged(chunk_id)
    assert [chunk_id for chunk_id, _ in world.storage.contents()] == [good]
