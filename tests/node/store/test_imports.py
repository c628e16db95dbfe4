"""What import needs of the store: what is known already, what closes, and what a person decides."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from node.chunks.testing import MemoryChunkStorage
from node.crypto.digests import digest
from node.dicom.examiner import open_examiner
from node.documents.manifest import open_manifest
from node.documents.signed import Document
from node.domain.ids import ChunkId, FacilityId
from node.domain.packages import PackageState
from node.domain.verdicts import Doubt, Examined, Verdict
from node.domain.versions import Namesake
from node.errors import Conflict, NotFound, StoreError
from node.sql.database import Db
from node.store import audit_rows, findings, package_rows
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.package_writer import PackageWriter
from tests.node.store.test_import_resumes import Cut, CutImportStore, make_store, run_import
from tests.support.actors import actor
from tests.support.dicom_files import write_study
from tests.support.stores import new_store

ALICE = actor("alice")
FOUND = Examined(
    Verdict.CARRY,
    (),
    "1.2",
    "1.2.1",
    "1.2.1.1",
    "1.2.840",
    "1.2.840.1",
    None,
    {"PatientName": "Brown^Bob", "PatientID": "P1"},
)
ODD = replace(FOUND, verdict=Verdict.HOLD, reasons=("it begins as a program does",))


@pytest.fixture
def storage() -> MemoryChunkStorage:
    return MemoryChunkStorage()


@pytest.fixture
def context(tmp_path: Path, storage: MemoryChunkStorage) -> Iterator[StoreContext]:
    context = new_store(tmp_path / "home", storage)
    yield context
    context.close()


@pytest.fixture
def store(context: StoreContext) -> ImportStore:
    return ImportStore(context)


async def fill(
    store: ImportStore,
    contents: Sequence[bytes],
    *,
    number: int | None = None,
    state: PackageState = PackageState.OPEN,
    found: Examined = FOUND,
) -> PackageWriter:
    """Open a package and record instances of these contents in it."""
    async with trio.open_nursery() as nursery:
        writer = await store.open_package("1.2", nursery, import_id=number, state=state)
        for content in contents:
            await writer.add(found, digest(content), content)
        await writer.flush()
    return writer


async def close(store: ImportStore, *writers: PackageWriter) -> list[int]:
    return list(await store.close_packages([writer.row_id for writer in writers], ALICE))


async def hold(store: ImportStore, content: bytes) -> int:
    writer = await fill(store, [content], state=PackageState.HELD, found=ODD)
    return await store.hold(writer.row_id, ODD, "cd/IM\udcff1")


def states(context: StoreContext) -> list[str]:
    return context.database.read_sync(
        lambda db: [row["state"] for row in db.query("SELECT state FROM packages ORDER BY id")]
    )


def kinds(context: StoreContext) -> list[str]:
    return context.database.read_sync(lambda db: [e.kind for e in audit_rows.entries(db)])


def chunks(context: StoreContext, writer: PackageWriter) -> list[ChunkId]:
    of_it = partial(package_rows.get_chunks, package=writer.row_id)
    return [entry.chunk_id for entry in context.database.read_sync(of_it)]


async def test_import_that_ends_well_leaves_no_row_and_none_of_its_empty_packages(
    context: StoreContext, store: ImportStore
) -> None:
    number = await store.begin_import(["/cd\udcff"], ALICE)
    await fill(store, [], number=number)
    filled = await fill(store, [b"a"], number=number)
    [(one, is_running)] = await store.list_imports()
    assert (one.id, is_running) == (number, True)
    assert one.sources[0].encode(), "whatever the disk calls it"
    await close(store, filled)
    store.release_packages([1])
    await store.end_import(number)
    assert await store.list_imports() == []
    assert states(context) == ["closed"]


async def test_empty_package_that_is_being_filled_stays_with_its_import(
    context: StoreContext, store: ImportStore
) -> None:
    number = await store.begin_import(["/cd"], ALICE)
    await fill(store, [], number=number)
    await store.end_import(number)
    assert states(context) == ["open"]
    assert [one.id for one, _ in await store.list_imports()] == [number]


async def test_import_that_fails_can_be_discarded_when_it_has_ended(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    number = await store.begin_import(["/cd"], ALICE)
    await fill(store, [b"a"], number=number)
    with pytest.raises(NotFound, match="is running"):
        await store.discard_import(number, ALICE)
    await store.end_import(number, "the disk was full")
    [(one, is_running)] = await store.list_imports()
    assert (one.problem, is_running) == ("the disk was full", False)
    assert await store.unfinished_of("1.2", context.facility) == [number]
    assert await store.discard_import(number, ALICE) == 1
    assert (await store.list_imports(), list(storage.contents())) == ([], [])
    assert kinds(context) == ["import.discarded"]


async def test_package_of_a_study_is_the_imports_own_or_a_new_one(store: ImportStore) -> None:
    await fill(store, [b"anothers"])
    first = await fill(store, [b"a"])
    async with trio.open_nursery() as nursery:
        again = await store.open_package("1.2", nursery, mine={first.row_id})
        other_study = await store.open_package("1.3", nursery, mine={first.row_id})
        anothers = await store.open_package("1.2", nursery)
        assert again.row_id == first.row_id
        assert again.package_id == first.package_id
        assert len({first.row_id, other_study.row_id, anothers.row_id}) == 3
        await again.add(FOUND, digest(b"b"), b"b")
        await again.flush()
    assert await close(store, first) == [first.row_id]


async def test_what_an_import_left_is_taken_over_once_and_by_its_own_only(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    whole, damaged = await fill(store, [b"a"], number=None), await fill(store, [b"b"])
    other = await fill(store, [b"c"])
    number, others = [await store.begin_import([path], ALICE) for path in ("/a", "/b")]
    context.database.write_sync(
        lambda db: db.execute(
            "UPDATE packages SET import_id = CASE id WHEN ? THEN ? ELSE ? END",
            (other.row_id, others, number),
        )
    )
    storage.replace(chunks(context, damaged)[0], b"damaged")
    killed = ImportStore(context)
    assert await killed.adopt_packages(number) == {whole.row_id: "1.2"}
    assert await killed.adopt_packages(number) == {}, "it is in use"
    killed.release_packages([whole.row_id])
    assert await killed.adopt_packages(number) == {whole.row_id: "1.2"}
    assert states(context) == ["open", "open"], "the damaged one is sealed anew"


async def test_what_is_known_is_what_is_closed_held_or_the_imports_own(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    closed, lost = await fill(store, [b"closed"]), await fill(store, [b"lost"])
    await close(store, closed, lost)
    await hold(store, b"held")
    mine, another = await fill(store, [b"mine"]), await fill(store, [b"another"])
    number = await store.begin_import(["/cd"], ALICE)
    left = await fill(store, [b"left"], number=number)
    store.release_packages([left.row_id, another.row_id])
    storage.replace(chunks(context, lost)[0], b"damaged")
    asked = [b"closed", b"lost", b"held", b"mine", b"another", b"left", b"never seen"]
    found = await store.find_known([digest(c) for c in asked], [mine.row_id], number)
    assert found == {
        digest(b"closed"): None,
        digest(b"held"): None,
        digest(b"mine"): None,
        digest(b"left"): left.row_id,
    }
    assert {left.row_id, another.row_id} & store._in_use == {left.row_id}, "the caller's now"
    assert await store.is_held(digest(b"held"))
    assert not await store.is_held(digest(b"closed"))


async def test_more_digests_than_sqlite_takes_are_looked_up(
    store: ImportStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.store.imports._SQL_VARIABLES", 2)
    contents = [bytes([n]) for n in range(5)]
    await close(store, await fill(store, contents))
    assert len(await store.find_known([digest(c) for c in contents], (), 0)) == 5
    assert len((await store.find_versions(["1", "2", "1.2.1.1"], ()))["1.2.1.1"]) == 5


async def test_versions_are_those_that_are_closed_or_the_imports_own(store: ImportStore) -> None:
    await close(store, await fill(store, [b"closed"]))
    mine = await fill(store, [b"mine"])
    await fill(store, [b"another's"])
    found = await store.find_versions(["1.2.1.1", "9"], [mine.row_id])
    assert found == {
        "1.2.1.1": {
            Namesake("1.2.1", digest(b"closed"), False),
            Namesake("1.2.1", digest(b"mine"), True),
        }
    }


async def test_patient_is_whom_a_closed_package_or_the_same_import_names(
    context: StoreContext, store: ImportStore
) -> None:
    number = await store.begin_import(["/cd"], ALICE)
    await fill(store, [b"a"], number=number)
    assert await store.find_patient("1.2", number + 1) is None
    patient = await store.find_patient("1.2", number)
    assert patient is not None
    assert (patient.name, patient.patient_id) == ("Brown^Bob", "P1")
    await close(store, await fill(store, [b"b"]))
    assert await store.find_patient("1.2", 0) == patient
    assert await store.find_patient("1.3", 0) is None


async def test_closed_package_has_an_envelope_with_the_manifest_that_is_kept(
    context: StoreContext, store: ImportStore
) -> None:
    writers = [await fill(store, [bytes([n]), b"more"]) for n in range(3)]
    empty = await fill(store, [])
    closed = await store.close_packages([w.row_id for w in (*writers, empty)], ALICE)
    assert list(closed) == [writer.row_id for writer in writers]
    assert states(context) == ["closed"] * 3, "the empty one is gone"
    envelopes = [context.envelopes.read(path) for path in context.envelopes.paths()]
    assert {e.package_id for e in envelopes} == {w.package_id for w in writers}
    for package in closed.values():
        (envelope,) = [e for e in envelopes if e.package_id == package.package_id]
        kept = context.database.read_sync(
            partial(package_rows.manifest_document, package=package.id)
        )
        manifest = open_manifest(Document.decode(kept))
        assert envelope.manifest == kept
        assert (manifest.package_id, len(manifest.instances)) == (package.package_id, 2)
        assert context.data_key(package).package_id == package.package_id
    assert await store.close_packages([writers[0].row_id], ALICE) == {}, "it is closed already"


async def test_package_that_is_damaged_stays_open_and_the_others_are_closed(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    writers = [await fill(store, [bytes([n])]) for n in range(3)]
    storage.replace(chunks(context, writers[1])[0], None)
    with pytest.raises(StoreError, match="import the same files again"):
        await close(store, *writers)
    assert states(context) == ["closed", "open", "closed"]


async def test_same_files_again_mend_a_study_and_leave_nothing_twice(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    first = await fill(store, [b"a"])
    await close(store, first)
    (lost,) = chunks(context, first)
    storage.replace(lost, None)
    assert await store.find_known([digest(b"a")], (), 0) == {}
    assert await close(store, await fill(store, [b"a"])) == []
    assert [chunk_id for chunk_id, _ in storage.contents()] == [lost]
    assert states(context) == ["closed"]
    assert kinds(context) == ["package.closed", "package.mended"]


async def test_imported_instance_that_is_released_is_a_package_of_its_own(
    context: StoreContext, store: ImportStore
) -> None:
    number = await hold(store, b"odd")
    (held,) = await store.list_held()
    assert (held.id, held.reasons, held.received_from) == (number, ODD.reasons, None)
    assert held.label.startswith("cd/IM")
    assert await store.held_of("1.2", context.facility) == [held]
    assert await store.decide_held(number, release=True, actor=ALICE) is not None
    assert (await store.list_held(), states(context)) == ([], ["closed"])
    assert kinds(context) == ["instance.held", "package.closed", "held.released"]
    with pytest.raises(NotFound, match=f"no held instance has number {number}"):
        await store.decide_held(number, release=True, actor=ALICE)


async def test_imported_instance_that_is_discarded_is_gone(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    number = await hold(store, b"odd")
    assert await store.decide_held(number, release=False, actor=ALICE) is None
    assert (states(context), list(storage.contents())) == ([], [])
    assert kinds(context) == ["instance.held", "held.discarded"]


async def test_instance_that_arrived_is_released_where_it_is_and_never_discarded(
    context: StoreContext, store: ImportStore
) -> None:
    writer = await fill(store, [b"a", b"b"])
    await close(store, writer)
    peer = FacilityId(bytes(32))

    def arrive(db: Db) -> None:
        db.execute("UPDATE packages SET received_from = ?", (peer.digest,))
        findings.add(db, writer.row_id, [Doubt(1, Verdict.HOLD, ("odd",))])

    context.database.write_sync(arrive)
    (held,) = await store.list_held()
    with pytest.raises(Conflict, match="must stay whole"):
        await store.decide_held(held.id, release=False, actor=ALICE)
    assert await store.list_held() == [held]
    package = await store.decide_held(held.id, release=True, actor=ALICE)
    assert (package, await store.list_held()) == (writer.package_id, [])
    assert kinds(context) == ["package.closed", "held.released"]


async def test_chunks_that_were_given_up_go_and_those_of_packages_stay(
    context: StoreContext, store: ImportStore, storage: MemoryChunkStorage
) -> None:
    kept = chunks(context, await fill(store, [b"a"]))
    written = ChunkId(digest(b"given up"))
    storage.put(written, b"given up")
    await store.forget_chunks({written, *kept})
    assert [chunk_id for chunk_id, _ in storage.contents()] == kept


class Watched(set[Any]):
    """A set that notes which threads look into it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def __contains__(self, value: object) -> bool:
        self.threads.add(threading.get_ident())
        return super().__contains__(value)


async def test_packages_in_use_are_looked_up_in_one_thread(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        folder = write_study(tmp_path / "s", 1, 3)
        async with open_examiner(parsers=1) as examiner:
            with suppress(Cut):
                await run_import(CutImportStore(context), examiner, folder)
            store, watched = ImportStore(context), Watched()
            store._in_use = watched
            write_study(folder, 1, 5)
            await run_import(store, examiner, folder)
        assert watched.threads == {threading.get_ident()}
    finally:
        context.close()
