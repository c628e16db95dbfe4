"""An import that is cut off anywhere goes on when it is repeated, and hides nothing."""

import os
import secrets
import signal
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import trio

from node.crypto.certificates import make_tls_identity
from node.crypto.keyring import RootKey, Secrets
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.dicom.examiner import Examiner, open_examiner
from node.dicom.media import find_files
from node.documents.signed import DocumentSigner, certify_node
from node.domain.actors import Actor
from node.domain.manifest import ChunkEntry
from node.domain.packages import Package
from node.errors import StoreError
from node.exchange.events import Events
from node.exchange.ingest.imports import Imports
from node.exchange.ingest.job import Summary
from node.store.context import StoreContext, open_store
from node.store.imports import ImportStore
from node.store.lost import find_lost
from node.store.studies import StudyStore
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.dicom_files import encode, make_dataset, study_uid, write_study
from tests.support.examining import LocalExpander
from tests.support.incoming import PlainFile


def make_store(home: Path) -> StoreContext:
    facility, node = SigningKey.new(), SigningKey.new()
    now = time.time()
    content = Secrets(
        node,
        (SealKey.new(),),
        (make_tls_identity(node_id(node.public), now),),
        {1: secrets.token_bytes(32)},
    )
    signer = DocumentSigner(node, certify_node(facility, node, now))
    return open_store(
        home, RootKey.new(), content, signer, reserve_bytes=0, expander=LocalExpander()
    )


class Cut(StoreError):
    """Stands for a kill."""


class CutImportStore(ImportStore):
    """Ends before anything is closed, as a kill at that moment would."""

    async def close_packages(self, rows: Iterable[int], actor: Actor) -> dict[int, Package]:
        raise Cut(f"{list(rows)} of {actor.text} stay open")


async def run_import(store: ImportStore, examiner: Examiner, folder: Path) -> Summary:
    imports = Imports(store, examiner, Events().publish)
    job = imports.job(lambda _: None, actor("test"), sources=[str(folder)])
    return await job.run(find_files(folder))


@pytest.mark.parametrize("more", [0, 2])
async def test_import_cut_off_before_its_end_is_closed_when_repeated(
    tmp_path: Path, more: int
) -> None:
    context = make_store(tmp_path)
    try:
        folder = write_study(tmp_path / "s", 1, 3)
        async with open_examiner(parsers=1) as examiner:
            with suppress(Cut):
                await run_import(CutImportStore(context), examiner, folder)
            studies = StudyStore(context)
            assert not await listed(context)
            write_study(folder, 1, 3 + more)
            summary = await run_import(ImportStore(context), examiner, folder)
        assert (summary.carried, summary.known) == (more, 3)
        found = await studies.sources(await listed(context))
        assert [s.study_uid for s in found] == [study_uid(1)]
        assert found[0].instances == 3 + more
    finally:
        context.close()


async def test_what_another_import_has_recorded_is_not_known_yet(tmp_path: Path) -> None:
    """It may still be given up: then nobody would have the files."""
    context = make_store(tmp_path)
    store = ImportStore(context)
    recorded = trio.Event()

    async def files() -> AsyncIterator[tuple[str, int, AsyncGenerator[bytes]]]:
        for n in range(30):  # more than a batch, so that some of it is recorded
            yield f"{n}", 3_000_000, windows(n)
        recorded.set()
        await trio.sleep_forever()

    async def windows(n: int) -> AsyncGenerator[bytes]:
        yield instances[n]

    def instance(n: int) -> bytes:
        ds = make_dataset(1, n, size=1200)
        ds.PixelData = secrets.token_bytes(1200 * 1200 * 2)
        return encode(ds)

    instances = [instance(n) for n in range(30)]
    (tmp_path / "s").mkdir()
    for n, content in enumerate(instances):
        (tmp_path / "s" / f"{n}.dcm").write_bytes(content)
    try:
        async with open_examiner(parsers=1) as examiner:
            first = Imports(store, examiner, Events().publish).job(lambda _: None, actor("first"))

            async def run_first() -> None:
                await first.run_streamed(files())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_first)
                await recorded.wait()
                second = await run_import(store, examiner, tmp_path / "s")
                first.give_up()
                nursery.cancel_scope.cancel()
            assert (second.carried, second.flagged, second.known) == (30, 0, 0)
            third = await run_import(store, examiner, tmp_path / "s")
            assert (third.carried, third.known) == (0, 30)
        studies = StudyStore(context)
        (source,) = await studies.sources(await listed(context))
        assert source.instances == 30
        packages = context.database.read_sync(
            lambda db: db.execute("SELECT state FROM packages").fetchall()
        )
        assert [row[0] for row in packages] == ["closed"]
    finally:
        context.close()


async def test_import_that_looks_through_what_was_left_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_store(tmp_path / "home")
    store, looks, may_go_on, plain = ImportStore(context), 0, threading.Event(), find_lost

    def slow(context: StoreContext, entries: Sequence[ChunkEntry], *, reads_them: bool) -> Any:
        nonlocal looks
        looks += bool(entries)
        if entries:
            may_go_on.wait(60)
        return plain(context, entries, reads_them=reads_them)

    left = write_study(tmp_path / "left", 1, 3)
    try:
        async with open_examiner(parsers=1) as examiner:
            with suppress(Cut):
                await run_import(CutImportStore(context), examiner, left)
            monkeypatch.setattr("node.store.imports.find_lost", slow)
            summaries = []

            async def resume() -> None:
                summaries.append(await run_import(store, examiner, left))

            async with trio.open_nursery() as nursery:
                try:
                    nursery.start_soon(resume)
                    while not looks:
                        await trio.sleep(0.01)
                    with trio.fail_after(30):
                        other = await run_import(
                            store, examiner, write_study(tmp_path / "other", 2, 2)
                        )
                    # What is being looked at is nobody else's meanwhile.
                    again = await run_import(store, examiner, left)
                finally:
                    may_go_on.set()
        assert (other.carried, again.carried) == (2, 3)
        assert [(s.carried, s.known) for s in summaries] == [(0, 3)]
        assert not store._in_use
    finally:
        context.close()


async def test_what_was_left_and_is_damaged_is_sealed_anew(tmp_path: Path) -> None:
    context = make_store(tmp_path / "home")
    try:
        folder = write_study(tmp_path / "s", 1, 3)
        async with open_examiner(parsers=1) as examiner:
            with suppress(Cut):
                await run_import(CutImportStore(context), examiner, folder)
            store = ImportStore(context)
            for path in (tmp_path / "home" / "chunks").rglob("*"):
                if path.is_file():
                    path.write_bytes(b"damaged")
            summary = await run_import(store, examiner, folder)
        assert (summary.carried, summary.known) == (3, 0)
        assert not store._in_use
    finally:
        context.close()


@dataclass
class CostlyFile(PlainFile):
    """A file that has every parser killed while its third window is read, the first time."""

    content: bytes
    examiner: Examiner
    label: str = "large.dcm"
    opened: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def open(self) -> BinaryIO:
        self.opened += 1
        return Reader(self)


class Reader(BytesIO):
    """What is open of it."""

    def __init__(self, file: CostlyFile) -> None:
        super().__init__(file.content)
        self._file = file
        self._reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self._reads += 1
        if self._reads == 3 and self._file.opened == 1:
            for slot in self._file.examiner._slots:
                assert slot._parser is not None
                os.kill(slot._parser._process.pid, signal.SIGKILL)
        return super().read(size)


async def test_large_file_whose_parser_was_lost_is_examined_once_more(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        async with open_examiner() as examiner:
            file = CostlyFile(encode(make_dataset(1, 1, size=2200)), examiner)
            imports = Imports(ImportStore(context), examiner, Events().publish)
            job = imports.job(lambda _: None, actor("test"))
            summary = await job.run(iter([file]))
        assert (summary.carried, summary.refused, file.opened) == (1, 0, 2)
    finally:
        context.close()
