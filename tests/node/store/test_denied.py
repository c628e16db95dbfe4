"""What keeps a node from its files is named with its owner; only damage is called damage."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Migrations

from node.errors import (
    ConfigError,
    DatabaseDamaged,
    NodeError,
    StoreDenied,
    StoreError,
    StoreFull,
)
from node.sql.database import open_database, opens
from node.store.context import StoreContext, open_store
from node.store.lost import find_lost
from node.system import safe_paths, sync_failure
from node.system.locks import locked
from tests.integration.attacks.users import USER, folder_of_user
from tests.node.sql.test_database import KEY, add, steps, words
from tests.node.store.test_import_resumes import make_store

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user for a while")


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_of_user() as folder:
        yield folder


@contextmanager
def as_user(*, gives: Path | None = None) -> Iterator[None]:
    """Be an ordinary user for the time of the block, who owns all of a folder."""
    if gives is not None:
        for path in (gives, *gives.rglob("*")):
            os.chown(path, USER, USER)
    os.seteuid(USER)
    try:
        yield
    finally:
        os.seteuid(0)


def error_of(path: Path) -> NodeError:
    with pytest.raises(StoreError) as caught:
        open_database(path, KEY, steps()).close()
    return caught.value


@as_root
@pytest.mark.parametrize("side", ["", "-wal", "-shm"])
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o444])
def test_database_that_another_user_owns_is_not_called_damaged(
    home: Path, side: str, mode: int
) -> None:
    path = home / "metadata.db"
    open_database(path, KEY, steps()).close()
    theirs = home / f"metadata.db{side}"
    with as_user(gives=home):
        theirs.touch()
    os.chown(theirs, 0, 0)
    theirs.chmod(mode)
    with as_user():
        error = error_of(path)
        assert isinstance(error, StoreDenied), error
        assert f"{theirs} belongs to root (uid 0) with mode {mode:04o}" in str(error)
        assert f"this runs as uid {USER}" in str(error)
        assert f"chown {USER} {theirs}" in str(error)
        with pytest.raises(StoreDenied):
            opens(path, KEY)  # it is not known whether it does


@as_root
def test_folder_that_may_not_be_written_is_named(home: Path) -> None:
    path = home / "metadata.db"
    open_database(path, KEY, steps()).close()
    with as_user(gives=home):
        home.chmod(0o500)
        error = error_of(path)
        home.chmod(0o700)
    assert isinstance(error, StoreDenied)
    assert f"{home} has mode 0500. Run: chmod u+rwX {home}" in str(error)


def test_full_disk_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        failing.execute("PRAGMA max_page_count = 1")
        failing.execute("CREATE TABLE large (x)")

    database = open_database(tmp_path / "db", KEY, steps())
    failing = database._connection
    monkeypatch.setattr(Migrations, "apply", full)
    with pytest.raises(StoreFull):
        open_database(tmp_path / "db", KEY, steps())
    database.close()
    assert not sync_failure.has_failed()


@pytest.mark.parametrize("at", [50, 5000])
def test_what_sqlite_calls_damage_is_damage(tmp_path: Path, at: int) -> None:
    path = tmp_path / "db"
    database = open_database(path, KEY, steps())
    database.write_sync(add("word"))  # type: ignore[arg-type]
    database.close()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatabaseDamaged):
        open_database(path, KEY, steps()).read_sync(words)
    assert not opens(path, bytes(32))


def reopen(context: StoreContext, home: Path, key: object) -> StoreContext:
    return open_store(home, key, context.secrets, context.signer, reserve_bytes=0)  # type: ignore[arg-type]


@as_root
@pytest.mark.parametrize("part", ["chunks", "envelopes", "chunks/aa"])
def test_part_of_a_store_that_is_anothers_is_no_empty_one(home: Path, part: str) -> None:
    """An envelope folder that may not be read would let all chunks be swept away."""
    from node.crypto.keyring import RootKey

    context = make_store(home)
    context.close()
    (home / "metadata.db").unlink()
    (home / part).mkdir(exist_ok=True)
    with as_user(gives=home):
        pass
    os.chown(home / part, 0, 0)
    with as_user(), pytest.raises(StoreDenied, match=f"{home / part} belongs to root"):
        reopen(context, home, RootKey.new())
    assert not (home / "metadata.db").exists()


@as_root
def test_chunk_that_may_not_be_read_is_not_lost(home: Path) -> None:
    from node.crypto.digests import digest
    from node.domain.ids import ChunkId
    from node.domain.manifest import ChunkEntry

    context = make_store(home)
    chunk_id = ChunkId(digest(b"sealed"))
    context.storage.put(chunk_id, b"sealed")
    entry = ChunkEntry(0, chunk_id, 1, 6, bytes(32))
    with as_user(gives=home):
        pass
    os.chown(context.storage._path(chunk_id), 0, 0)  # type: ignore[attr-defined]
    with as_user(), pytest.raises(StoreDenied, match=str(chunk_id)):
        find_lost(context, [entry], reads_them=True)
    os.chown(context.storage._path(chunk_id).parent, 0, 0)  # type: ignore[attr-defined]
    with as_user():
        with pytest.raises(StoreDenied, match="belongs to root"):
            context.storage.size(chunk_id)
        with pytest.raises(StoreDenied, match="belongs to root"):
            context.storage.delete([chunk_id])
        with pytest.raises(StoreDenied, match="belongs to root"):
            context.storage.put(chunk_id, b"sealed")
    context.close()


@as_root
def test_root_does_not_use_the_home_of_another_user(home: Path) -> None:
    with pytest.raises(ConfigError) as caught, locked(home, "lock"):
        pass
    assert f"{home} belongs to another user, uid {USER}, and this runs as root (uid 0)" in str(
        caught.value
    )
    assert f"sudo -u '#{USER}'" in str(caught.value)
    assert not list(home.iterdir())


@as_root
def test_denial_names_the_first_folder_that_shuts_out(home: Path) -> None:
    shut = home / "shut"
    (shut / "below").mkdir(parents=True)
    shut.chmod(0o700)
    with as_user():
        assert str(shut) + " belongs to root" in safe_paths.denial(shut / "below" / "file")
        assert safe_paths.denial(home / "new", os.R_OK) == ""
    assert safe_paths.denial(shut / "below" / "file") == ""
    assert stat.S_IMODE(shut.stat().st_mode) == 0o700
