"""On a disk that is full to its last byte, studies are deleted, and a node starts and stops."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from node.app.home import Home, unlock
from node.domain.ids import PackageId
from node.domain.packages import PackageState
from node.errors import StoreFull
from node.sql.database import Db
from node.store import package_rows
from node.store.audit import AuditStore
from node.store.ballast import Ballast
from node.store.context import StoreContext, open_store
from node.store.maintenance import Maintenance
from tests.support.backups import make_node
from tests.support.disks import as_root, fill, mounted

MIB = 1 << 20
BALLAST = 8 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "40m") as folder:
        yield folder


def opened(home: Home) -> StoreContext:
    keys = unlock(home, None)
    return open_store(
        home.root,
        keys.root_key,
        keys.secrets,
        keys.signer,
        reserve_bytes=MIB,
        ballast_bytes=BALLAST,
    )


def add_packages(context: StoreContext, count: int) -> list[int]:
    """Add packages that are about to be removed."""

    def work(db: Db) -> list[int]:
        return [
            package_rows.add_package(
                db,
                package_id=PackageId(n.to_bytes(32, "big")),
                origin=context.facility,
                study_uid=f"1.2.{n}",
                state=PackageState.DELETING,
                epoch=1,
                wrapped_key=bytes(1000),
            )
            for n in range(count)
        ]

    return context.database.write_sync(work)


def add_fact(number: int, db: Db) -> None:
    db.execute("INSERT INTO meta VALUES (?, ?)", (f"{number}", "x" * 3000))


@as_root
async def test_deleting_stopping_and_starting_work_on_a_full_disk(disk: Path) -> None:
    home, _ = make_node(disk)
    context = opened(home)
    rows = add_packages(context, 3)
    assert context.ballast.held_bytes() == BALLAST
    fill(disk)
    for n in range(2000):  # what is no need takes none of it
        add = partial(add_fact, n)
        with suppress(StoreFull):
            context.database.write_sync(add)
    with pytest.raises(StoreFull):
        context.database.write_sync(add)
    assert context.ballast.held_bytes() == BALLAST
    for _ in range(3):
        await AuditStore(context).append("node.stopped", {})
        context.close()
        context = opened(home)
        await AuditStore(context).note_start("emix/1")
    await Maintenance(context, home.root).tidy_at_start()
    left = context.database.read_sync(lambda db: package_rows.find_packages(db, "1", ()))
    assert [row.id for row in left if row.id in rows] == []
    assert context.ballast.held_bytes() > BALLAST // 2
    context.close()


@as_root
def test_log_and_index_of_the_database_are_made_in_the_ballasts_room(disk: Path) -> None:
    home, _ = make_node(disk)
    context = opened(home)
    context.close()
    assert not list(home.root.glob("metadata.db-*"))
    fill(disk)
    context = opened(home)
    context.close()


@as_root
def test_ballast_fills_with_what_is_there_and_again_later(disk: Path) -> None:
    ballast = Ballast(disk, 20 * MIB)
    fill(disk)
    ballast.fill()
    assert ballast.held_bytes() == 0
    (disk / "others").unlink()
    (disk / "others").write_bytes(bytes(30 * MIB))
    ballast.fill()
    assert 8 * MIB <= ballast.held_bytes() < 10 * MIB  # of the 10 that there are
    with ballast.in_need(), ballast.in_need():
        assert ballast.held_bytes() == 0
        ballast.fill()  # of another thread
        assert ballast.held_bytes() == 0
    assert ballast.held_bytes() > 8 * MIB
    (disk / "others").unlink()
    ballast.fill()
    assert ballast.held_bytes() == 20 * MIB
    Ballast(disk, MIB).fill()
    assert ballast.held_bytes() == MIB
    Ballast(disk, 0).fill()
    assert not (disk / "ballast").exists()


def test_ballast_is_real_where_nothing_is_allocated_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    ballast = Ballast(tmp_path, 3 * MIB)
    ballast.fill()
    assert ballast.held_bytes() >= 3 * MIB
