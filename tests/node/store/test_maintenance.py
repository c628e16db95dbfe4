"""What a kill left is completed, what is damaged is told and noted, and nothing else is deleted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from node.chunks.testing import MemoryChunkStorage
from node.crypto.digests import digest
from node.crypto.keys import DataKey
from node.domain.backups import Piece
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.packages import Package, PackageState
from node.domain.transfers import Direction, State
from node.domain.verdicts import Doubt, Verdict
from node.sql.database import Db
from node.store import audit_rows, findings, maintenance, package_rows, transfer_rows
from node.store.context import StoreContext
from node.store.lost import count_lost
from node.store.maintenance import Maintenance
from node.store.removal import remove_packages
from tests.node.store.test_arrivals import make_delivery, make_signer
from tests.support.attachments import REPORT, put_package
from tests.support.stores import new_store


@dataclass
class World:
    """A store whose chunks are in memory, and what its check told."""

    home: Path
    context: StoreContext
    storage: MemoryChunkStorage
    told: list[str] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)

    @property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.context, self.home)

    def states(self) -> list[str]:
        return self.context.database.read_sync(
            lambda db: [row["state"] for row in db.query("SELECT state FROM packages ORDER BY id")]
        )

    def write(self, work: Callable[[Db], object]) -> None:
        self.context.database.write_sync(work)

    async def check(self, *, read_data: bool = False) -> list[str]:
        """Return what a check tells of problems."""
        self.told.clear()

        async def tell(done: int, total: int, problem: str) -> None:
            await trio.lowlevel.checkpoint()
            self.counted.append((done, total))
            self.told.extend([problem] if problem else [])

        assert await self.maintenance.check(read_data=read_data, report=tell) == len(self.told)
        return self.told

    def chunks(self, package: Package) -> list[ChunkId]:
        found = self.context.database.read_sync(
            partial(package_rows.get_chunks, package=package.id)
        )
        return [entry.chunk_id for entry in found]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    for name in ("emix.toml", "keyring"):
        (tmp_path / name).write_bytes(b"content")
    storage = MemoryChunkStorage()
    context = new_store(tmp_path, storage)
    yield World(tmp_path, context, storage)
    context.close()


def add(world: World, state: PackageState, db: Db) -> Package:
    """Keep a package with a chunk of its own, which is here."""
    key, sealed = DataKey.new(), world.home.name.encode() + bytes([len(world.states())])
    chunk_id = ChunkId(digest(sealed))
    world.storage.put(chunk_id, sealed)
    row = package_rows.add_package(
        db,
        package_id=key.package_id,
        origin=world.context.facility,
        study_uid="1.2",
        state=state,
        epoch=1,
        wrapped_key=b"",
    )
    entry = ChunkEntry(0, chunk_id, 1, len(sealed), bytes(32))
    package_rows.add_chunks(db, row, 0, [entry], present=True)
    return package_rows.find_packages(db, "id = ?", (row,))[0]


def add_transfer(world: World, package: Package, state: State, db: Db) -> None:
    delivery, document = make_delivery(make_signer(), world.context.facility)
    number = transfer_rows.add_transfer(
        db, Direction.RECEIVE, delivery, document, b"", state, study_uid=""
    )
    db.execute(
        "UPDATE transfers SET origin = ?, package_id = ? WHERE id = ?",
        (package.origin.digest, package.package_id.digest, number),
    )


async def test_what_a_kill_left_goes_at_the_start_and_what_goes_on_stays(world: World) -> None:
    made = [
        world.context.database.write_sync(partial(add, world, state))
        for state in (
            PackageState.HELD,  # and the word why it is held
            PackageState.HELD,  # without it
            PackageState.ARRIVING,  # of a transfer that goes on
            PackageState.ARRIVING,  # of one that has ended
            PackageState.ARRIVING,  # of none
            PackageState.OPEN,
            PackageState.DELETING,
        )
    ]
    world.write(lambda db: findings.add(db, made[0].id, [Doubt(0, Verdict.HOLD, ("odd",))]))
    world.write(partial(add_transfer, world, made[2], State.CARRYING))
    world.write(partial(add_transfer, world, made[3], State.FAILED))
    (world.home / ".0123.tmp").write_bytes(b"half a copy")
    assert await world.maintenance.tidy_at_start() == 4
    assert world.states() == ["held", "arriving", "open"]
    left = {chunk_id for chunk_id, _ in world.storage.contents()}
    assert left == {c for n in (0, 2, 5) for c in world.chunks(made[n])}
    assert not list(world.home.glob("*.tmp"))


async def test_chunks_that_nothing_names_go_at_the_start(world: World) -> None:
    package = await put_package(world.context, 1, [])
    world.storage.put(ChunkId(digest(b"nobody's")), b"nobody's")
    assert await world.maintenance.tidy_at_start() == 1
    assert [chunk_id for chunk_id, _ in world.storage.contents()] == world.chunks(package)


async def test_nothing_is_swept_while_it_is_the_rows_that_are_missing(world: World) -> None:
    for count in (1, 2):
        await put_package(world.context, count, [])
        world.write(lambda db: db.execute("DELETE FROM packages"))
        assert await world.maintenance.tidy_at_start() == 0
        assert len(list(world.storage.contents())) == count
    (alarm,) = world.context.database.read_sync(lambda db: list(audit_rows.open_alarms(db)))
    assert (alarm.kind, alarm.body) == ("alarm.envelopes-without-rows", '{"envelopes": 1}')


async def test_counts_are_of_what_people_see(world: World) -> None:
    package = await put_package(world.context, 1, [])
    await put_package(world.context, 1, [("text/plain", REPORT, ())])
    await put_package(world.context, 2, [])
    world.write(partial(add, world, PackageState.OPEN))
    world.write(lambda db: findings.add(db, package.id, [Doubt(0, Verdict.HOLD, ("odd",))]))
    world.write(lambda db: db.execute("INSERT INTO imports VALUES (1, '', '', 0, '')"))
    world.write(lambda db: audit_rows.alarm(db, "alarm.test", {}))
    world.write(lambda db: db.execute("UPDATE chunks SET present = 0 WHERE package IN (1, 4)"))
    counts = await world.maintenance.counts()
    sealed = sum(size for _, size in world.storage.contents())
    assert counts.pop("free_bytes") == world.storage.free_bytes()
    assert counts == {
        "studies": 2,
        "instances": 6,
        "sealed_bytes": sealed,
        "held_instances": 1,
        "unfinished_imports": 1,
        "alarms": 1,
        "lost_chunks": 1,
        "unopened_chunks": 3,
    }


async def test_whole_store_has_no_problem(world: World) -> None:
    for study in (1, 2):
        await put_package(world.context, study, [("text/plain", REPORT, ())])
    world.write(partial(add, world, PackageState.OPEN))
    assert await world.check(read_data=True) == []
    chunks = len(list(world.storage.contents())) - 1
    assert world.counted[-1] == (chunks, chunks), "what is open is nobody's yet"


async def test_what_a_check_has_opened_counts_as_opened(world: World) -> None:
    for study in (1, 2):
        await put_package(world.context, study, [("text/plain", REPORT, ())])
    await world.check()
    assert (await world.maintenance.counts())["unopened_chunks"] == 4, "sizes say nothing"
    found: list[str] = []

    async def report(done: int, total: int, problem: str) -> None:
        found.append(f"{done} of {total} {problem}")

    uid = world.context.database.read_sync(
        lambda db: package_rows.find_packages(db, "id = 1", ())[0].study_uid
    )
    await world.maintenance.check(read_data=True, report=report, studies=[uid, "1.2.3.4"])
    assert found[-1] == "2 of 2 "
    assert (await world.maintenance.counts())["unopened_chunks"] == 2
    await world.check(read_data=True)
    assert (await world.maintenance.counts())["unopened_chunks"] == 0


async def test_each_problem_is_told_and_what_is_damaged_is_noted(world: World) -> None:
    packages = [await put_package(world.context, n, []) for n in (1, 2, 3)]
    (missing,), (damaged,), _ = map(world.chunks, packages)
    size = world.storage.size(damaged)
    assert size
    contents = {chunk_id: world.storage.get(chunk_id) for chunk_id in (missing, damaged)}
    world.storage.replace(missing, None)
    world.storage.replace(damaged, bytes(size))
    world.context.envelopes.remove(packages[2].origin, packages[2].package_id)
    no_envelope = f"package {packages[2].package_id.short()}: no envelope"
    is_missing = f"chunk {missing.short()}: it is missing or has another size"
    assert await world.check() == [is_missing, no_envelope], "sizes are believed"
    first, second, third = await world.check(read_data=True)
    assert (first, third) == (is_missing, no_envelope)
    assert damaged.short() in second
    assert world.context.database.read_sync(count_lost) == 2
    # What is noted is read by every check, and found again once somebody has put it back.
    assert len(await world.check()) == 3
    for chunk_id, content in contents.items():
        world.storage.replace(chunk_id, content)
    assert await world.check() == [no_envelope]
    assert world.context.database.read_sync(count_lost) == 0


async def test_chunks_that_are_to_be_here_are_yielded_once_over_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_PAGE", 2)
    packages = [world.context.database.write_sync(partial(add, world, s)) for s in PackageState]
    gone = packages[1].id
    world.write(lambda db: db.execute("UPDATE chunks SET present = 0 WHERE package = ?", (gone,)))
    found = list(world.maintenance.chunks_here())
    expected = [c for p in packages if p.id != gone for c in world.chunks(p)]
    assert found == sorted(expected, key=lambda chunk_id: chunk_id.digest)


def test_transfers_are_counted_by_direction_and_state(world: World) -> None:
    package = world.context.database.write_sync(partial(add, world, PackageState.OPEN))
    for state in (State.FAILED, State.HELD, State.FAILED):
        world.write(partial(add_transfer, world, package, state))
    assert world.maintenance.transfers_sync() == {("receive", "failed"): 2, ("receive", "held"): 1}


async def test_what_was_removed_while_a_backup_was_made_goes_after_it(world: World) -> None:
    kept = await put_package(world.context, 1, [])
    package = world.context.database.write_sync(partial(add, world, PackageState.OPEN))
    (chunk_id,) = world.chunks(package)
    pieces: list[str] = []

    async def tell(files: int, size: int) -> None:
        assert await trio.to_thread.run_sync(remove_packages, world.context, [package.id]) == 0

    async def send(piece: Piece) -> None:
        await trio.lowlevel.checkpoint()
        pieces.append(piece.name)
        assert world.storage.size(chunk_id)

    await world.maintenance.backup(tell, send)
    assert any(str(world.chunks(kept)[0]) in name for name in pieces)
    assert world.states() == ["closed"]
    assert world.storage.size(chunk_id) is None
    assert not list(world.home.glob(".*.tmp"))


async def test_backup_that_is_given_up_leaves_nothing_and_holds_nothing_back(world: World) -> None:
    await put_package(world.context, 1, [])
    package = world.context.database.write_sync(partial(add, world, PackageState.OPEN))

    async def tell(files: int, size: int) -> None:
        scope.cancel()
        await trio.lowlevel.checkpoint()

    async def send(piece: Piece) -> None:
        raise AssertionError(piece.name)

    with trio.CancelScope() as scope:
        await world.maintenance.backup(tell, send)
    assert scope.cancelled_caught
    assert not list(world.home.glob(".*"))
    assert await trio.to_thread.run_sync(remove_packages, world.context, [package.id]) == 1
