"""A store opens with what belongs to it, or says what is wrong and changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.chunks.testing import MemoryChunkStorage
from node.crypto.digests import digest
from node.crypto.keyring import RootKey
from node.crypto.keys import DataKey
from node.domain.ids import ChunkId, FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.packages import Package, PackageState
from node.errors import BadDataKey, DatabaseDamaged, StoreError
from node.store.ballast import NAME
from node.store.clock_notes import ClockNotes
from node.store.context import Removals, StoreContext, marks, open_store
from node.store.envelopes import Envelope
from node.system import clock
from tests.support.stores import ROOT_KEY, new_store

DAY = 86400.0


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = new_store(tmp_path)
    yield context
    context.close()


def reopen(
    home: Path, before: StoreContext, key: RootKey = ROOT_KEY, *, may_be_lost: bool = False
) -> StoreContext:
    secrets, signer = before.secrets, before.signer
    return open_store(home, key, secrets, signer, reserve_bytes=0, may_be_lost=may_be_lost)


def package_of(context: StoreContext, key: DataKey) -> Package:
    epoch, wrapped = context.wrap(key, context.facility)
    return Package(
        1, key.package_id, context.facility, StudyInstanceUID("1.2"), PackageState.OPEN, epoch,
        wrapped, 0, 0.0, None, None,
    )  # fmt: skip


def test_data_key_opens_for_the_package_that_it_was_wrapped_for(context: StoreContext) -> None:
    key = DataKey.new()
    package = package_of(context, key)
    assert context.data_key(package).package_id == key.package_id
    for changed in (
        replace(package, package_id=DataKey.new().package_id),
        replace(package, origin=FacilityId(bytes(32))),
        replace(package, wrapped_key=package.wrapped_key[:-1] + b"\0"),
        replace(package, wrapped_key=b""),
    ):
        with pytest.raises(BadDataKey):
            context.data_key(changed)


@pytest.mark.parametrize("is_empty", [False, True])
def test_lost_database_is_not_made_anew_beside_its_envelopes(
    context: StoreContext, tmp_path: Path, is_empty: bool
) -> None:
    """An empty one would have all chunks swept away."""
    name = DataKey.new().package_id
    context.envelopes.put(Envelope(name, context.facility, 1, b"w", b"m", b""))
    context.close()
    path = tmp_path / "metadata.db"
    path.unlink()
    if is_empty:
        path.touch()
    with pytest.raises(StoreError, match="emix store repair"):
        reopen(tmp_path, context)
    assert path.exists() == is_empty
    again = reopen(tmp_path, context, may_be_lost=True)
    assert again.database.read_sync(lambda db: list(db.query("SELECT * FROM packages"))) == []
    again.close()


def test_new_home_has_no_database_to_lose(context: StoreContext, tmp_path: Path) -> None:
    home = tmp_path / "new"
    home.mkdir()
    reopen(home, context).close()
    assert (home / "metadata.db").stat().st_size
    assert not (home / NAME).exists(), "no ballast, where none is wanted"


def test_database_of_another_key_is_left_as_it_was(context: StoreContext, tmp_path: Path) -> None:
    context.close()
    before = (tmp_path / "metadata.db").read_bytes()
    with pytest.raises(DatabaseDamaged, match=r"move metadata\.db\* away and rebuild it"):
        reopen(tmp_path, context, RootKey.new())
    assert (tmp_path / "metadata.db").read_bytes() == before
    reopen(tmp_path, context).close()


def test_chunks_are_where_they_are_said_to_be(context: StoreContext, tmp_path: Path) -> None:
    chunk_id = ChunkId(digest(b"sealed"))
    context.storage.put(chunk_id, b"sealed")
    assert list((tmp_path / "chunks").rglob(str(chunk_id)))
    storage = MemoryChunkStorage()
    other = new_store(tmp_path / "other", storage)
    other.storage.put(chunk_id, b"sealed")
    assert storage.size(chunk_id) == 6
    assert not (tmp_path / "other" / "chunks").exists()
    other.close()


async def test_clock_is_judged_by_what_was_believed_here_last(
    context: StoreContext, tmp_path: Path
) -> None:
    await ClockNotes(context.database).note()
    context.database.write_sync(
        lambda db: db.execute(
            "UPDATE meta SET value = ? WHERE key = 'believed_time'", (clock.now() - 30 * DAY,)
        )
    )
    context.close()
    try:
        reopen(tmp_path, context).close()
        assert clock.CLOCK.doubt
        assert clock.now() < clock.CLOCK.wall() - 29 * DAY
    finally:
        clock.CLOCK.begin(0.0)


def test_removals_wait_for_the_last_of_several_copies() -> None:
    removals, allowed = Removals(), list[bool]()

    def ask() -> None:
        with removals.allowed() as is_allowed:
            allowed.append(is_allowed)

    ask()
    with removals.held_back():
        ask()
        with pytest.raises(StoreError), removals.held_back():
            raise StoreError("the copy failed")
        ask()
    ask()
    assert allowed == [True, False, False, True]


def test_list_in_sql_has_a_mark_for_each_value() -> None:
    assert [marks([0] * count) for count in range(3)] == ["", "?", "?, ?"]
