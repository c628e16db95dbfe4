"""What several people decide at once happens once, and a state is left only from where it was."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from node.dicom.examiner import open_examiner
from node.errors import NodeError
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.removal import remove_packages
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store, run_import
from tests.support.actors import actor
from tests.support.dicom_files import make_instance, study_uid, write_study

FIRST_HELD = 1


def audited(context: StoreContext, kind: str) -> int:
    sql = "SELECT COUNT(*) FROM audit WHERE kind = ?"
    return context.database.read_sync(lambda db: int(db.execute(sql, (kind,)).fetchone()[0]))


def documents(context: StoreContext) -> list[tuple[str, bytes]]:
    """Return the state of each package and its manifest."""
    return context.database.read_sync(
        lambda db: [tuple(row) for row in db.execute("SELECT state, manifest FROM packages")]
    )


async def at_once(times: int, work: Callable[[], Awaitable[object]]) -> int:
    """Do something several times at once; return how often it was done."""
    done = 0

    async def one() -> None:
        nonlocal done
        try:
            await work()
        except NodeError:
            return
        done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(one)
    return done


async def hold_one(context: StoreContext, folder: Path) -> ImportStore:
    folder.mkdir()
    (folder / "x.dcm").write_bytes(b"MZ" + make_instance(1, 1)[2:])
    store = ImportStore(context)
    async with open_examiner(parsers=1) as examiner:
        summary = await run_import(store, examiner, folder)
    assert summary.held == 1
    return store


async def test_held_instance_is_released_once_however_many_release_it(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        store = await hold_one(context, tmp_path / "s")

        async def release() -> None:
            package = await store.decide_held(FIRST_HELD, release=True, actor=actor("somebody"))
            assert package is not None

        assert await at_once(6, release) == 1
        assert audited(context, "held.released") == audited(context, "package.closed") == 1
        # The manifest beside the chunks is the one that was kept: a repair finds the same.
        (path,) = context.envelopes.paths()
        assert [("closed", context.envelopes.read(path).manifest)] == documents(context)
    finally:
        context.close()


async def test_of_release_and_discard_at_once_one_happens(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        store = await hold_one(context, tmp_path / "s")
        releases = iter([True, False] * 3)

        async def decide() -> None:
            await store.decide_held(FIRST_HELD, release=next(releases), actor=actor("somebody"))

        assert await at_once(6, decide) == 1
        assert audited(context, "held.released") + audited(context, "held.discarded") == 1
        assert len(documents(context)) == audited(context, "held.released")
    finally:
        context.close()


async def test_study_is_deleted_once_however_many_delete_it(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        async with open_examiner(parsers=1) as examiner:
            await run_import(ImportStore(context), examiner, write_study(tmp_path / "s", 2, 3))
        studies = StudyStore(context)
        deleted = []

        async def delete() -> None:
            deleted.append(await studies.delete(study_uid(2), "", actor("somebody")))

        await at_once(6, delete)
        assert sum(one.instances for one in deleted) == 3
        assert audited(context, "package.deleted") == 1
    finally:
        context.close()


async def test_package_that_was_closed_meanwhile_is_not_discarded(tmp_path: Path) -> None:
    """An arrival or an import gives up what somebody else has completed in the same moment."""
    context = make_store(tmp_path)
    try:
        async with open_examiner(parsers=1) as examiner:
            await run_import(ImportStore(context), examiner, write_study(tmp_path / "s", 3, 1))
        rows = context.database.read_sync(
            lambda db: [row[0] for row in db.execute("SELECT id FROM packages")]
        )
        await trio.to_thread.run_sync(remove_packages, context, rows)
        assert [state for state, _ in documents(context)] == ["closed"]
    finally:
        context.close()
