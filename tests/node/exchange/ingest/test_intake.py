"""Instances come one by one or many at once; studies close by command, at once, or when quiet."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from node.crypto.digests import digest
from node.dicom.examine import examine_bytes
from node.domain.actors import NODE, Actor
from node.domain.events import StudyClosed
from node.domain.packages import Closing, Package
from node.domain.verdicts import Examined, Verdict
from node.errors import StoreError
from node.exchange.events import Events
from node.exchange.ingest.intake import Incoming, Intake, Outcome
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store
from tests.support.catalogue import listed
from tests.support.dicom_files import make_instance, study_uid

MIB = 2**20


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    """Return an open store."""
    store = make_store(tmp_path / "home")
    yield store
    store.close()


def incoming(study: int, n: int) -> Incoming:
    """Return an instance as a door hands it over."""
    content = make_instance(study, n)
    return Incoming(f"{study}/{n}", examine_bytes(content), digest(content), content)


class Heard:
    """What is published."""

    def __init__(self) -> None:
        self.events = Events()
        self.closed: list[StudyClosed] = []
        self.some = trio.Event()
        self.events.subscribe(StudyClosed, self._take)

    async def _take(self, event: StudyClosed) -> None:
        self.closed.append(event)
        self.some.set()

    async def wait(self, count: int) -> None:
        """Wait until so many have closed."""
        with trio.fail_after(30):
            while len(self.closed) < count:
                self.some = trio.Event()
                await self.some.wait()


@asynccontextmanager
async def opened(
    store: ImportStore, heard: Heard, *, quiet_seconds: float | None = None
) -> AsyncGenerator[Intake]:
    """Take instances from one door."""
    intake = Intake(
        store, heard.events.publish, NODE, sources=["a door"], quiet_seconds=quiet_seconds
    )
    async with intake.opened():
        yield intake


async def instances_of(context: StoreContext) -> dict[str, int]:
    """Return how many instances each study shows."""
    studies = StudyStore(context)
    found = await listed(context, limit=100)
    return {s.study_uid: s.instances for s in await studies.sources(found)}


async def test_studies_close_by_command_and_it_is_said_which(context: StoreContext) -> None:
    heard = Heard()
    async with opened(ImportStore(context), heard) as intake:
        files = [incoming(s, n) for s in (1, 2, 3) for n in (1, 2)]
        first = await intake.take(files)
        assert [taken.outcome for taken in first] == [Outcome.CARRIED] * 6
        assert [t.outcome for t in await intake.take([incoming(1, 1)])] == [Outcome.KNOWN]
        closed = await intake.close([study_uid(2), study_uid(2), "1.2.3"])
        assert [(c.study_instance_uid, c.why) for c in closed] == [(study_uid(2), Closing.COMMAND)]
        assert await instances_of(context) == {study_uid(2): 2}
        others = await intake.close()
        assert {c.study_instance_uid for c in others} == {study_uid(1), study_uid(3)}
    assert heard.closed == closed + others
    assert await instances_of(context) == {study_uid(n): 2 for n in (1, 2, 3)}
    assert intake.plaintext_bytes == sum(len(file.content) for file in files)


async def test_study_closes_at_once_where_each_request_is_whole(context: StoreContext) -> None:
    heard = Heard()
    async with opened(ImportStore(context), heard) as intake:
        for n in (1, 2):
            await intake.take([incoming(1, n)])
            (closed,) = await intake.close([study_uid(1)], Closing.AT_ONCE)
            assert (closed.why, len(closed.packages)) == (Closing.AT_ONCE, 1)
            assert await instances_of(context) == {study_uid(1): n}
    assert len({c.packages for c in heard.closed}) == 2


async def test_study_closes_once_nothing_has_come_for_a_while(context: StoreContext) -> None:
    heard = Heard()
    async with opened(ImportStore(context), heard, quiet_seconds=0.2) as intake:
        await intake.take([incoming(1, 1), incoming(2, 1)])
        await heard.wait(2)
        assert {(c.study_instance_uid, c.why) for c in heard.closed} == {
            (study_uid(n), Closing.QUIET) for n in (1, 2)
        }
        await intake.take([incoming(1, 2)])  # late, and in a package of its own
        await heard.wait(3)
        assert await intake.close() == []
    assert await instances_of(context) == {study_uid(1): 2, study_uid(2): 1}


async def test_what_was_left_open_closes_when_its_door_is_quiet_again(
    context: StoreContext,
) -> None:
    heard, store = Heard(), ImportStore(context)
    with trio.CancelScope() as scope:
        async with opened(store, heard) as intake:
            await intake.take([incoming(1, 1), incoming(2, 1)])
            await intake.flush([study_uid(1), study_uid(2)])
            scope.cancel()  # as a stop does
            await trio.sleep_forever()
    assert await instances_of(context) == {}
    async with opened(store, heard, quiet_seconds=0.1):
        await heard.wait(2)
    assert await instances_of(context) == {study_uid(1): 1, study_uid(2): 1}
    assert await store.list_imports() == []


class SlowStore(ImportStore):
    """Closes when it is told to."""

    def __init__(self, context: StoreContext) -> None:
        super().__init__(context)
        self.closing, self.go_on = trio.Event(), trio.Event()

    async def close_packages(self, rows: Iterable[int], actor: Actor) -> dict[int, Package]:
        self.closing.set()
        await self.go_on.wait()
        return await super().close_packages(rows, actor)


async def test_what_comes_while_its_study_closes_is_in_a_package_of_its_own(
    context: StoreContext,
) -> None:
    heard, store = Heard(), SlowStore(context)
    outcomes = []
    async with opened(store, heard) as intake:

        async def bring(study: int, n: int) -> None:
            (taken,) = await intake.take([incoming(study, n)])
            outcomes.append((study, n, taken.outcome))

        await bring(1, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intake.close)
            await store.closing.wait()
            nursery.start_soon(bring, 1, 2)
            await bring(2, 1)  # of another: it does not wait
            assert outcomes[1:] == [(2, 1, Outcome.CARRIED)]
            store.go_on.set()
        await intake.close()
    assert outcomes[2:] == [(1, 2, Outcome.CARRIED)]
    assert await instances_of(context) == {study_uid(1): 2, study_uid(2): 1}
    assert [len(c.packages) for c in heard.closed] == [1, 1, 1]


async def test_one_instance_that_comes_twice_at_once_is_kept_once(context: StoreContext) -> None:
    heard, outcomes = Heard(), []
    async with opened(ImportStore(context), heard) as intake:

        async def bring() -> None:
            outcomes.extend([taken.outcome for taken in await intake.take([incoming(1, 1)])])

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(bring)
        await intake.close()
    assert sorted(outcomes) == [Outcome.CARRIED] + [Outcome.KNOWN] * 7
    assert await instances_of(context) == {study_uid(1): 1}


class FailingOnce(ImportStore):
    """Cannot tell once of whom a study is."""

    has_failed = False

    async def find_patient(self, study_uid: str, import_id: int) -> Any:
        if not self.has_failed:
            self.has_failed = True
            raise StoreError("not now")
        return await super().find_patient(study_uid, import_id)


async def test_instance_that_could_not_be_taken_is_not_known_when_it_comes_again(
    context: StoreContext,
) -> None:
    heard = Heard()
    async with opened(FailingOnce(context), heard) as intake:
        with pytest.raises(StoreError, match="not now"):
            await intake.take([incoming(1, 1)])
        assert [t.outcome for t in await intake.take([incoming(1, 1)])] == [Outcome.CARRIED]
        await intake.close()
    assert await instances_of(context) == {study_uid(1): 1}


async def test_what_is_no_instance_is_not_taken_and_opens_nothing(context: StoreContext) -> None:
    heard = Heard()
    text = b"no DICOM at all, " * 20
    async with opened(ImportStore(context), heard) as intake:
        file = Incoming("x", examine_bytes(text), digest(text), text)
        assert [t.outcome for t in await intake.take([file])] == [Outcome.NOT_TAKEN]
        assert await intake.close() == []


async def test_package_that_is_adopted_around_a_file_that_cannot_be_told_is_told_of(
    context: StoreContext,
) -> None:
    heard, store = Heard(), ImportStore(context)
    file = incoming(1, 1)
    with trio.CancelScope() as scope:
        async with opened(store, heard) as intake:
            await intake.take([file])
            await intake.flush([study_uid(1)])
            scope.cancel()
            await trio.sleep_forever()
    failed = Examined(Verdict.REFUSE, ("the parser failed",), is_failure=True)
    async with opened(store, heard) as intake:
        (taken,) = await intake.take([replace(file, found=failed)])
        assert taken.outcome is Outcome.KNOWN
        (closed,) = await intake.close()
    assert closed.study_instance_uid == study_uid(1)
    assert await instances_of(context) == {study_uid(1): 1}


async def test_study_that_was_damaged_keeps_no_other_from_closing(
    context: StoreContext, tmp_path: Path
) -> None:
    async with opened(ImportStore(context), Heard()) as intake:
        await intake.take([incoming(1, 1)])
        await intake.flush([study_uid(1)])
        for chunk in (tmp_path / "home" / "chunks").rglob("*"):
            if chunk.is_file():
                chunk.unlink()
        await intake.take([incoming(2, 1), incoming(3, 1)])
        with pytest.raises(StoreError, match="damaged on this disk"):
            await intake.close()
    assert await instances_of(context) == {study_uid(2): 1, study_uid(3): 1}


class Together:
    """Lets tasks pass once so many have come."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.have_come = trio.Event()

    async def pass_by(self) -> None:
        """Come, and wait for the others."""
        self.left -= 1
        if self.left == 0:
            self.have_come.set()
        await self.have_come.wait()


class TogetherStore(ImportStore):
    """Flushes packages only when so many are flushed at the same time; counts its commits."""

    def __init__(self, context: StoreContext, count: int) -> None:
        super().__init__(context)
        self.flushing = Together(count)
        self.fails_for = ""
        self.openings = 0

    async def open_package(self, *args: Any, **options: Any) -> Any:
        self.openings += 1
        return await super().open_package(*args, **options)

    async def open_packages(self, study_uids: Any, *args: Any, **options: Any) -> Any:
        self.openings += 1
        writers = await super().open_packages(study_uids, *args, **options)
        for uid, writer in zip(study_uids, writers, strict=True):
            writer.flush = self._flush(uid, writer.flush)  # type: ignore[method-assign]
        return writers

    def _flush(self, uid: str, flush: Any) -> Any:
        async def together() -> None:
            await self.flushing.pass_by()
            if uid == self.fails_for:
                raise StoreError("not now")
            await flush()

        return together


async def test_new_studies_of_a_batch_are_opened_and_closed_at_the_same_time(
    context: StoreContext,
) -> None:
    store = TogetherStore(context, 20)
    with trio.fail_after(30):
        async with opened(store, Heard()) as intake:
            await intake.take([incoming(n, i) for i in (1, 2) for n in range(1, 21)])
            await intake.close()
    assert store.openings == 1
    assert await instances_of(context) == {study_uid(n): 2 for n in range(1, 21)}
    by_row = context.database.read_sync(
        lambda db: [row[0] for row in db.execute("SELECT study_uid FROM packages ORDER BY id")]
    )
    assert by_row == [study_uid(n) for n in range(1, 21)], "in the order of their files"


async def test_two_batches_with_the_same_new_studies_open_each_once(context: StoreContext) -> None:
    class Both(ImportStore):
        """Opens packages once two tasks have asked for some."""

        both = Together(2)

        async def open_packages(self, *args: Any, **options: Any) -> Any:
            await self.both.pass_by()
            return await super().open_packages(*args, **options)

    with trio.fail_after(30):
        async with opened(Both(context), Heard()) as intake:
            async with trio.open_nursery() as nursery:
                for i in (1, 2):
                    nursery.start_soon(intake.take, [incoming(n, i) for n in range(1, 11)])
            closed = await intake.close()
    assert [len(event.packages) for event in closed] == [1] * 10
    assert await instances_of(context) == {study_uid(n): 2 for n in range(1, 11)}
    assert context.database.read_sync(
        lambda db: db.execute("SELECT count(*) FROM packages").fetchone()[0]
    ) == len(closed)


async def test_study_that_cannot_be_flushed_keeps_no_other_from_being_durable(
    context: StoreContext,
) -> None:
    store, files = TogetherStore(context, 8), [incoming(n, 1) for n in range(1, 9)]
    store.fails_for = study_uid(3)

    async def failing() -> None:
        async with opened(store, Heard()) as intake:
            await intake.take(files)
            await intake.close()

    with pytest.raises(StoreError, match="not now"), trio.fail_after(30):
        await failing()
    async with opened(ImportStore(context), Heard()) as intake:
        again = [taken.outcome for taken in await intake.take(files)]
        assert again == [Outcome.CARRIED if n == 3 else Outcome.KNOWN for n in range(1, 9)]
        await intake.close()
    assert await instances_of(context) == {study_uid(n): 1 for n in range(1, 9)}


async def test_studies_that_cannot_be_opened_fail_the_batch_and_are_taken_when_they_come_again(
    context: StoreContext,
) -> None:
    class Failing(ImportStore):
        has_failed = False

        async def open_packages(self, *args: Any, **options: Any) -> Any:
            if not self.has_failed:
                self.has_failed = True
                raise StoreError("not now")
            return await super().open_packages(*args, **options)

    files = [incoming(n, 1) for n in range(1, 9)]
    async with opened(Failing(context), Heard()) as intake:
        with pytest.raises(StoreError, match="not now"):
            await intake.take(files)
        assert {t.outcome for t in await intake.take(files)} == {Outcome.CARRIED}
        assert len(await intake.close()) == 8
    assert await instances_of(context) == {study_uid(n): 1 for n in range(1, 9)}


class FakePackage:
    """An open package that keeps what it is given until it is flushed."""

    row_id = 1

    def __init__(self) -> None:
        self.filling_bytes = self.flushed = 0

    async def add(self, examined: Examined, digest: bytes, content: bytes) -> None:
        self.filling_bytes += len(content)

    async def flush(self) -> None:
        self.filling_bytes, self.flushed = 0, self.flushed + 1


class Packages:
    """Gives out packages."""

    def __init__(self) -> None:
        self.all: list[FakePackage] = []

    async def begin_import(self, *_: object) -> int:
        return 1

    async def end_import(self, *_: object) -> None: ...

    def leave_import(self, number: int) -> None: ...

    def release_packages(self, rows: Iterable[int]) -> None: ...

    async def find_known(self, *_: object) -> dict[bytes, int | None]:
        return {}

    async def find_versions(self, *_: object) -> dict[str, set[Any]]:
        return {}

    async def open_package(self, *_: object, **__: object) -> FakePackage:
        self.all.append(FakePackage())
        return self.all[-1]


@pytest.mark.parametrize(("studies", "size"), [(500, 100), (20, 4 * MIB), (500, MIB)])
async def test_what_waits_in_memory_is_bounded_however_many_studies_are_open(
    studies: int, size: int
) -> None:
    store: Any = Packages()
    content, most = bytes(size), 0
    intake = Intake(store, Heard().events.publish, NODE)
    async with intake.opened():
        for n in range(2 * studies):
            found = Examined(Verdict.CARRY, study_instance_uid=f"1.{n % studies}")
            await intake.take([Incoming("x", found, str(n).encode(), content)])
            most = max(most, sum(package.filling_bytes for package in store.all))
    assert most <= 64 * MIB
    assert (sum(package.flushed for package in store.all) > 0) == (size >= MIB)
