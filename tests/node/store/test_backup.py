"""Which chunks come into a backup: by the rows and through the port, wherever they are kept."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from node.chunks.testing import MemoryChunkStorage
from node.domain.ids import ChunkId
from node.errors import StoreError
from node.store.backup import Backup
from node.store.context import StoreContext
from tests.node.chunks.contract import chunk
from tests.node.store.test_arrivals import make_signer
from tests.node.store.test_import_resumes import make_store
from tests.support.history import History, fill


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("emix.toml", "keyring"):
        (tmp_path / name).write_bytes(b"content")
    return tmp_path


@pytest.fixture
def storage() -> MemoryChunkStorage:
    return MemoryChunkStorage()


@pytest.fixture
def context(home: Path, storage: MemoryChunkStorage) -> Iterator[StoreContext]:
    context = make_store(home)
    fill(context, History(make_signer().facility_id, 600, 3))  # more than one slice
    yield replace(context, storage=storage)
    context.close()


def named(context: StoreContext) -> list[ChunkId]:
    return context.database.read_sync(
        lambda db: [ChunkId(row[0]) for row in db.execute("SELECT chunk_id FROM chunks")]
    )


def chunks(context: StoreContext, home: Path) -> dict[str, str]:
    with Backup(context, home).begun() as backup:
        found = {p.name: p.problem for p in backup.pieces() if p.name.startswith("chunks/")}
    return {name.rpartition("/")[2]: problem for name, problem in found.items()}


def test_chunks_come_by_rows_though_the_listing_lags(
    context: StoreContext, home: Path, storage: MemoryChunkStorage
) -> None:
    storage.lags = True
    for chunk_id in named(context):
        storage.put(chunk_id, b"sealed")
    assert chunks(context, home) == {str(chunk_id): "" for chunk_id in named(context)}


def test_chunk_that_is_not_there_is_told_unless_that_is_known(
    context: StoreContext, home: Path, storage: MemoryChunkStorage
) -> None:
    missing, known, *rest = named(context)
    for chunk_id in rest:
        storage.put(chunk_id, b"sealed")
    context.database.write_sync(
        lambda db: db.execute("UPDATE chunks SET present = 0 WHERE chunk_id = ?", (known.digest,))
    )
    found = chunks(context, home)
    assert found.pop(str(missing)) == "it is missing"
    assert found == {str(chunk_id): "" for chunk_id in rest}


def test_what_no_row_names_comes_too_and_all_is_counted(
    context: StoreContext, home: Path, storage: MemoryChunkStorage
) -> None:
    extra, content = chunk(b"had in work")
    for chunk_id in named(context):
        storage.put(chunk_id, b"sealed")
    before = Backup(context, home).size()
    storage.put(extra, content)
    assert len(chunks(context, home)) == 604
    assert str(extra) in chunks(context, home)
    assert Backup(context, home).size() == (before[0] + 1, before[1] + len(content))


def test_server_that_goes_away_ends_a_backup_instead_of_leaving_all_the_rest_out(
    context: StoreContext, home: Path, storage: MemoryChunkStorage
) -> None:
    for chunk_id in named(context):
        storage.put(chunk_id, b"sealed")
    seen = 0
    with Backup(context, home).begun() as backup, closing(backup.pieces()) as pieces:
        for piece in pieces:
            seen += piece.name.startswith("chunks/")
            if seen == 10:
                break
        storage.problem = "the server does not answer"
        with pytest.raises(StoreError, match="does not answer"):
            next(pieces)
