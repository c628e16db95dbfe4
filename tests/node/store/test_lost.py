"""A chunk is lost when its storage says so, never when nobody answers or no descriptor is left."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.chunks.files import FileChunkStorage
from node.chunks.testing import MemoryChunkStorage
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.errors import ChunkDamaged, StoreAway, StoreDenied, StoreError
from node.store.context import StoreContext
from node.store.lost import count_lost, find_lost
from node.store.maintenance import Maintenance
from tests.node.chunks.contract import chunk
from tests.node.store.test_arrivals import make_signer
from tests.node.store.test_import_resumes import make_store
from tests.support.history import History, fill

NAME, CONTENT = chunk(b"sealed")
ENTRY = ChunkEntry(0, NAME, 1, len(CONTENT), bytes(32))


class Away(MemoryChunkStorage):
    """A server that does not answer."""

    def check(self) -> None:
        if self.problem:
            raise StoreAway(self.problem)


@pytest.fixture
def storage() -> Away:
    storage = Away()
    storage.put(NAME, CONTENT)
    return storage


@pytest.fixture
def context(tmp_path: Path, storage: Away) -> Iterator[StoreContext]:
    context = make_store(tmp_path)
    yield replace(context, storage=storage)
    context.close()


@pytest.mark.parametrize("reads_them", [False, True])
def test_chunk_of_a_server_that_is_away_is_not_lost(
    context: StoreContext, storage: Away, monkeypatch: pytest.MonkeyPatch, reads_them: bool
) -> None:
    storage.problem = "it is away"
    if reads_them:  # it went away between the two questions
        monkeypatch.setattr(storage, "size", lambda _: len(CONTENT))
    with pytest.raises(StoreError, match="is away"):
        find_lost(context, [ENTRY], reads_them=reads_them)
    storage.problem = ""
    assert find_lost(context, [ENTRY], reads_them=reads_them) == []


async def test_check_ends_at_once_where_nobody_answers(
    context: StoreContext, storage: Away, tmp_path: Path
) -> None:
    fill(context, History(make_signer().facility_id, 3, 0))
    storage.problem = "it is away"
    told: list[str] = []

    async def tell(done: int, total: int, problem: str) -> None:
        told.append(problem)

    with pytest.raises(StoreAway):
        await Maintenance(context, tmp_path).check(read_data=False, report=tell)
    assert context.database.read_sync(count_lost) == 0


class Denied(MemoryChunkStorage):
    """A server that refuses this node's credentials, or one chunk of all."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses_all = False

    def size(self, chunk_id: ChunkId) -> int | None:
        raise StoreDenied(f"nobody may read {chunk_id.short()}")

    def get(self, chunk_id: ChunkId) -> bytes:
        raise StoreDenied(f"nobody may read {chunk_id.short()}")

    def check(self) -> None:
        if self.refuses_all:
            raise StoreDenied("others can read the credentials")


async def test_refused_credentials_end_a_check_and_one_refused_chunk_does_not(
    context: StoreContext, tmp_path: Path
) -> None:
    fill(context, History(make_signer().facility_id, 3, 2))
    storage = Denied()
    maintenance = Maintenance(replace(context, storage=storage), tmp_path)
    told: list[str] = []

    async def tell(done: int, total: int, problem: str) -> None:
        told.append(problem)

    assert await maintenance.check(read_data=True, report=tell) > 1
    assert all(
        "nobody may read" in problem or "no envelope" in problem for problem in told if problem
    )
    storage.refuses_all = True
    told.clear()
    with pytest.raises(StoreDenied, match="others can read the credentials"):
        await maintenance.check(read_data=True, report=tell)
    assert not [problem for problem in told if "nobody" in problem]
    assert context.database.read_sync(count_lost) == 0


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EIO, ChunkDamaged), (errno.EMFILE, StoreError)]
)
def test_unreadable_sector_is_damage_and_a_lack_of_descriptors_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StoreError]
) -> None:
    storage = FileChunkStorage(tmp_path / "chunks", 0)
    storage.put(NAME, CONTENT)

    def fail(_: Path) -> bytes:
        raise OSError(number, "it fails")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(expected) as caught:
        storage.get(NAME)
    assert type(caught.value) is expected
