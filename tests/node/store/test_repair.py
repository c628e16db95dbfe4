"""Rows come back from envelopes: each package by itself, with what this node found and promised."""

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from node.chunks.testing import MemoryChunkStorage
from node.crypto.digests import digest
from node.documents.delivery import Delivery, sign_delivery
from node.documents.manifest import open_manifest
from node.documents.receipt import check_receipt, open_receipt
from node.documents.signed import Document
from node.domain.actors import NODE
from node.domain.ids import ChunkId
from node.domain.packages import Package
from node.domain.transfers import Direction, State
from node.domain.verdicts import Doubt, Examined, Verdict
from node.store import audit_rows, findings, package_rows, transfer_rows
from node.store.context import StoreContext
from node.store.envelopes import Envelope
from node.store.imports import ImportStore
from node.store.lost import lost_positions
from node.store.repair import Repaired, find_orphans, repair
from tests.node.store.test_arrivals import make_delivery
from tests.support.stores import new_store

FOUND = Examined(Verdict.CARRY, (), "1.2", "1.2.1", "1.2.1.1", "1.2.840", "1.2.840.1")
SMALL, LARGE = [b"first one", b"second one"], bytes(range(256)) * 8


class Index:
    """Reads of each instance how it begins."""

    async def whole(
        self, plaintext: bytes, places: Sequence[tuple[int, int]]
    ) -> Sequence[Mapping[str, str]]:
        await trio.lowlevel.checkpoint()
        words = [plaintext[start : start + size].split()[0].decode() for start, size in places]
        return [{"StudyDescription": word, "InstanceNumber": "7"} for word in words]

    async def beginning(self, size: int, windows: AsyncGenerator[bytes]) -> Mapping[str, str]:
        first, *_ = [window async for window in windows]
        return {"StudyID": f"{size} {first[:3].hex()}", "InstanceNumber": "9"}


@pytest.fixture
def storage() -> MemoryChunkStorage:
    return MemoryChunkStorage()


@pytest.fixture
def context(tmp_path: Path, storage: MemoryChunkStorage) -> Iterator[StoreContext]:
    context = new_store(tmp_path / "home", storage)
    yield context
    context.close()


async def put(context: StoreContext, *, study: str = "1.2", with_large: bool = False) -> Package:
    store = ImportStore(context)
    async with trio.open_nursery() as nursery:
        writer = await store.open_package(study, nursery)
        for content in SMALL:
            await writer.add(FOUND, digest(content), content)
        if with_large:
            large = writer.begin_large(None)
            for start in range(0, len(LARGE), 500):
                await large.add(LARGE[start : start + 500])
            await large.finish(FOUND)
        await writer.flush()
    return (await store.close_packages([writer.row_id], NODE))[writer.row_id]


def lose_rows(context: StoreContext) -> None:
    context.database.write_sync(lambda db: db.execute("DELETE FROM packages"))


def packages(context: StoreContext) -> list[Package]:
    return context.database.read_sync(lambda db: package_rows.find_packages(db, "1", ()))


def chunks(context: StoreContext, package: Package) -> list[ChunkId]:
    found = context.database.read_sync(partial(package_rows.get_chunks, package=package.id))
    return [entry.chunk_id for entry in found]


async def test_package_is_as_it_was_and_is_found_as_before(
    context: StoreContext,
) -> None:
    package = await put(context, with_large=True)
    manifest = context.database.read_sync(lambda db: package_rows.manifest_document(db, package.id))
    names = chunks(context, package)
    lose_rows(context)
    (one,) = await repair(context, Index())
    (again,) = packages(context)
    assert one == Repaired(context.envelopes.name(package.origin, package.package_id))
    kept = replace(again, id=package.id, created_time=0, next_number=0, manifest_digest=None)
    assert kept == replace(package, created_time=0, next_number=0, state=again.state)
    assert again.state == "closed"
    assert chunks(context, again) == names
    assert manifest == context.database.read_sync(
        lambda db: package_rows.manifest_document(db, again.id)
    )
    (row,) = context.database.read_sync(lambda db: list(db.query("SELECT * FROM study_index")))
    assert row["study_description"] == "first"
    assert row["study_id"] == f"{len(LARGE)} 000102"
    numbers = context.database.read_sync(
        lambda db: [r["instance_number"] for r in db.query("SELECT * FROM instances ORDER BY id")]
    )
    assert sorted(numbers) == [7, 7, 9]
    assert await repair(context, Index()) == []


async def test_packages_come_back_in_the_order_in_which_they_came(context: StoreContext) -> None:
    made = [await put(context, study=f"1.2.{n}") for n in range(3)]
    times = {made[1]: 10.0, made[2]: 20.0, made[0]: 30.0}
    paths = {path.name: path for path in context.envelopes.paths()}
    for package, time in times.items():
        os.utime(paths[context.envelopes.name(package.origin, package.package_id)], (time, time))
    lose_rows(context)
    await repair(context, Index())
    assert [p.study_uid for p in packages(context)] == ["1.2.1", "1.2.2", "1.2.0"]


async def test_only_envelopes_without_rows_are_orphans(context: StoreContext) -> None:
    first, second = await put(context), await put(context, study="1.3")
    context.database.write_sync(
        lambda db: db.execute("DELETE FROM packages WHERE id = ?", (second.id,))
    )
    name = context.envelopes.name(second.origin, second.package_id)
    assert [path.name for path in find_orphans(context)] == [name]
    assert await repair(context, Index()) == [Repaired(name)]
    assert {p.package_id for p in packages(context)} == {first.package_id, second.package_id}


async def test_envelope_that_is_damaged_keeps_no_other_back(context: StoreContext) -> None:
    made = [await put(context, study=f"1.2.{n}") for n in range(5)]
    paths = list(context.envelopes.paths())
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"\0\0")
    paths[1].write_bytes(b"")
    wrong = replace(context.envelopes.read(paths[2]), wrapped_key=bytes(72))
    context.envelopes.put(wrong)
    data = paths[4].read_bytes()
    paths[4].write_bytes(data[:4] + (7).to_bytes(8, "little") + data[12:])
    lose_rows(context)
    found = {one.name: one.problem for one in await repair(context, Index())}
    assert found[paths[0].name] == f"envelope {paths[0].name} cannot be decrypted"
    assert found[paths[1].name] == f"envelope {paths[1].name} cannot be decrypted"
    assert "cannot be unwrapped" in found[paths[2].name]
    assert found[paths[3].name] == ""
    assert "the key of epoch 7 has been destroyed" in found[paths[4].name]
    assert len(packages(context)) == 1
    assert len(made) == len(found)


async def test_envelope_with_another_packages_manifest_is_worth_no_row(
    context: StoreContext,
) -> None:
    first, second = await put(context), await put(context)
    paths = {path.name: path for path in context.envelopes.paths()}
    one, other = (
        context.envelopes.read(paths[context.envelopes.name(p.origin, p.package_id)])
        for p in (first, second)
    )
    context.envelopes.put(replace(one, manifest=other.manifest))
    lose_rows(context)
    problems = sorted(repaired.problem for repaired in await repair(context, Index()))
    assert problems == ["", "the envelope holds another package's manifest"]


async def test_lost_chunks_are_counted_and_noted(
    context: StoreContext, storage: MemoryChunkStorage
) -> None:
    package = await put(context, with_large=True)
    names = chunks(context, package)
    storage.replace(names[0], None)
    storage.replace(names[2], bytes(len(storage.get(names[2]))))
    lose_rows(context)
    (repaired,) = await repair(context, Index())
    assert (repaired.problem, repaired.missing_chunks) == ("", 2)
    (again,) = packages(context)
    lost = context.database.read_sync(lambda db: lost_positions(db, again.id))
    assert lost == {0, 2}


class Received:
    """A package of another facility, whose envelope is here, and its chunks."""

    def __init__(self, context: StoreContext, other: StoreContext, package: Package) -> None:
        document = Document.decode(
            other.database.read_sync(lambda db: package_rows.manifest_document(db, package.id))
        )
        draft, _ = make_delivery(other.signer, context.facility)
        self.delivery: Delivery = replace(
            draft, package_id=package.package_id, manifest_digest=document.digest(), instances=2
        )
        signed = sign_delivery(self.delivery, other.signer)
        self.manifest, self.signed = document, signed
        epoch, wrapped = context.wrap(other.data_key(package), package.origin)
        doubts = findings.encode([Doubt(1, Verdict.HOLD, ("it is odd",))])
        context.envelopes.put(
            Envelope(
                package.package_id, package.origin, epoch, wrapped, document.encode(),
                signed.encode(), doubts,
            )
        )  # fmt: skip


@pytest.fixture
async def received(
    context: StoreContext, storage: MemoryChunkStorage, tmp_path: Path
) -> AsyncGenerator[Received]:
    other = new_store(tmp_path / "other", storage)
    yield Received(context, other, await put(other))
    other.close()


async def test_receipt_that_was_lost_is_signed_anew_and_says_so(
    context: StoreContext, received: Received
) -> None:
    assert [one.problem for one in await repair(context, Index())] == [""]
    (row,) = context.database.read_sync(lambda db: transfer_rows.find(db, "1", ()))
    assert (row.direction, row.state) == (Direction.RECEIVE, State.DELIVERED)
    assert (row.peer, row.bytes_done) == (received.delivery.sender, row.bytes_total)
    assert row.receipt
    receipt = open_receipt(Document.decode(row.receipt))
    check_receipt(
        receipt,
        delivery=received.delivery,
        delivery_digest=received.signed.digest(),
        manifest=open_manifest(received.manifest),
    )
    assert (receipt.reissued, receipt.receiver) == (True, context.facility)
    assert row.manifest_digest == received.manifest.digest()
    kept = context.database.read_sync(
        lambda db: db.execute("SELECT manifest FROM transfer_manifests").fetchone()[0]
    )
    assert kept == received.manifest.encode()


async def test_what_was_odd_when_it_arrived_waits_again(
    context: StoreContext, received: Received
) -> None:
    await repair(context, Index())
    (held,) = context.database.read_sync(findings.held)
    assert (held.position, held.reasons) == (1, ("it is odd",))
    assert held.received_from == received.delivery.sender
    (entry,) = context.database.read_sync(lambda db: list(audit_rows.entries(db)))
    assert entry.kind == "package.repaired"
    assert str(received.delivery.package_id) in entry.body


async def test_there_is_no_receipt_for_what_is_not_whole(
    context: StoreContext, storage: MemoryChunkStorage, received: Received
) -> None:
    """Its sender can offer it again then, and what is lost is carried."""
    for chunk_id, _ in list(storage.contents()):
        storage.replace(chunk_id, None)
    (one,) = await repair(context, Index())
    assert (one.problem, one.missing_chunks) == ("", 1)
    assert context.database.read_sync(lambda db: transfer_rows.find(db, "1", ())) == []
    assert len(packages(context)) == 1
