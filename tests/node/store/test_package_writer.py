"""Filling a package: who adds does not wait for a batch, and what is added takes little memory."""

import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.chunks.files import FileChunkStorage
from node.crypto.digests import digest
from node.domain.ids import ChunkId
from node.domain.pixels import Pixels
from node.domain.verdicts import Examined, Verdict
from node.store import package_writer
from node.store.imports import ImportStore
from tests.node.exchange.transfer.test_verifying import wordy_index
from tests.node.store.test_import_resumes import make_store

FOUND = Examined(
    Verdict.CARRY, (), "1.2", "1.2.1", "1.2.1.1", "1.2.840", "1.2.840.1", Pixels(0, 2**40)
)


class SlowStorage(FileChunkStorage):
    """Syncs when the test says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, 0)
        self.begun, self.may_go = threading.Event(), threading.Event()

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        self.begun.set()
        assert self.may_go.wait(60)
        super().sync(chunk_ids)


async def test_lanes_go_on_adding_while_a_batch_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three chunks are sealed at once, so that at four some are ready to be recorded.
    monkeypatch.setattr(package_writer, "BATCH_BYTES", 12 * 2**20)
    context = make_store(tmp_path)
    storage = SlowStorage(tmp_path / "slow")
    try:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                store = ImportStore(replace(context, storage=storage))
                writer = await store.open_package("1.2", nursery)

                async def add(n: int) -> None:
                    content = bytes([n]) * (3 * 2**20)
                    await writer.add(FOUND, digest(content), content)

                async def lane() -> None:
                    for n in range(8):
                        await add(n)

                nursery.start_soon(lane)
                await trio.to_thread.run_sync(storage.begun.wait, 20)
                with trio.move_on_after(5) as other:
                    await add(10)
                storage.may_go.set()
                assert not other.cancelled_caught, "another lane stalls behind the sync"
                await writer.flush()
    finally:
        storage.may_go.set()
        context.close()


async def test_what_small_instances_say_takes_bounded_memory_until_it_is_recorded(
    tmp_path: Path,
) -> None:
    context = make_store(tmp_path)
    try:
        async with trio.open_nursery() as nursery:
            writer = await ImportStore(context).open_package("1.2", nursery)
            tracemalloc.start()
            try:
                for n in range(3000):
                    found = replace(FOUND, index=wordy_index())
                    await writer.add(found, digest(n.to_bytes(2)), n.to_bytes(2))
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert kept < 8 * 2**20
            await writer.flush()
    finally:
        context.close()
