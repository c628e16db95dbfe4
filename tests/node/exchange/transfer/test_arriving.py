"""A package's chunks come in, are checked and durable, and what was here is not carried again."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.documents.delivery import open_delivery
from node.documents.manifest import open_manifest
from node.documents.messages import ChunkFrame, Progress, Want
from node.domain.manifest import ChunkEntry
from node.domain.transfers import State, Transfer
from node.domain.verdicts import Checked
from node.errors import BadManifest, ChunkDamaged, PeerUnreachable, ungrouped
from node.exchange.transfer import arriving as arriving_module
from node.exchange.transfer.arriving import Arriving
from node.exchange.transfer.shares import ChunkPlaces
from node.store.arrivals import ArrivalStore
from node.store.chunk_access import ChunkAccess
from node.store.transfers import TransferStore
from tests.node.exchange.arriving_parts import MemoryLink, link_pair
from tests.node.store.test_import_resumes import make_store
from tests.support.examining import LocalExaminer
from tests.support.hostile import Forgery, HostilePeer, forge


@dataclass
class Sender:
    """The sender's end of one link, which it ends after so many chunks.

    Attributes:
        wanted: Positions of what was asked of it, and sent.
        durable: What it was told to be durable, each time.
    """

    forgery: Forgery
    sends: int = 100
    wanted: list[int] = field(default_factory=list)
    durable: list[int] = field(default_factory=list)

    @property
    def chunks(self) -> list[ChunkEntry]:
        return list(open_manifest(self.forgery.manifest).chunks)

    async def serve(self, link: MemoryLink, here: "Here") -> None:
        positions = {c.chunk_id: n for n, c in enumerate(self.chunks)}
        while (message := await link.receive()) is not None:
            match message:
                case Want(chunk_ids):
                    for chunk_id in chunk_ids:
                        if len(self.wanted) == self.sends:
                            if self.wanted:
                                await here.written.wait()
                            await link.end()
                            return
                        self.wanted.append(positions[chunk_id])
                        sealed = self.forgery.chunks[chunk_id.digest]
                        await link.send(ChunkFrame(chunk_id, sealed))
                case Progress():
                    self.durable.append(message.durable_bytes)
                case _:
                    raise AssertionError(f"{message} is not for arriving to send")


class Here:
    """A store into which packages of one peer arrive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.peer = HostilePeer(folder)
        self.context = make_store(folder / "home")
        self.transfers = TransferStore(self.context)
        self.store = ArrivalStore(self.context, self.transfers)
        self.carried = 0  # that only the commit of a package records
        self.wrote: list[int] = []
        self.written = trio.Event()
        self._places = ChunkPlaces(in_all=1, per_peer=1)

    def forge(self, **changes: Any) -> Forgery:
        """Return a package of one instance in two chunks, for this facility."""
        seal_key = self.context.secrets.seal_keys[0].public
        me: Any = SimpleNamespace(seal_key=seal_key, facility_id=self.context.facility)
        return forge(self.peer, me, 1, split_at=5000, **changes)

    async def row(self, forgery: Forgery) -> Transfer:
        delivery = open_delivery(forgery.delivery)
        return await self.store.keep_offer(
            delivery, forgery.delivery, forgery.sealed_key, is_held=False
        )

    async def present(self, forgery: Forgery) -> frozenset[int]:
        """Return the positions of what is recorded as durable."""
        row = await self.row(forgery)
        return (await self.store.arrival(row, forgery.manifest.digest())).present

    def files(self) -> dict[str, Path]:
        return {path.name: path for path in (self._folder / "home" / "chunks").glob("??/*")}

    def _note_written(self, size: int) -> None:
        self.wrote.append(size)
        self.written.set()

    async def arrive(self, sender: Sender) -> Checked:
        """Have a package arrive over one link."""
        row, manifest = await self.row(sender.forgery), open_manifest(sender.forgery.manifest)
        arrival = await self.store.begin_arrival(
            row, sender.forgery.key, manifest, sender.forgery.manifest, 2**30
        )
        theirs, ours = link_pair(self.peer.facility, self.context.facility)
        arriving = Arriving(
            self.store,
            self.transfers,
            ChunkAccess(self.context),
            LocalExaminer(),
            row,
            manifest,
            arrival,
            trio.CapacityLimiter(2),
            self._places,
            self._note_written,
        )
        with trio.fail_after(30), ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.serve, theirs, self)
                arrived = await arriving.run(ours)
                await ours.end()
        # As the commit of the package does.
        await self.store.mark_present(arrival, arrived.unrecorded)
        self.carried += arrived.carried.bytes
        return arrived.checked


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    here = Here(tmp_path)
    yield here
    here.context.close()


async def test_whole_package_is_carried_once_checked_and_durable(here: Here) -> None:
    sender = Sender(here.forge())
    first, second = (chunk.sealed_bytes for chunk in sender.chunks)
    checked = await here.arrive(sender)
    assert checked.doubts == []
    assert checked.index.study["StudyDescription"] == "Made for a test"
    assert sender.wanted == [0, 1]
    assert sender.durable == [], "its receipt says so"
    assert sorted(here.wrote) == sorted([first, second])
    row = await here.row(sender.forgery)
    assert (row.state, row.bytes_done, row.bytes_carried) == (State.CARRYING, 0, 0)
    assert here.carried == first + second
    assert await here.present(sender.forgery) == {0, 1}


async def test_large_package_is_recorded_on_its_way(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving_module, "BATCH_BYTES", 1)
    monkeypatch.setattr(arriving_module, "SMALL_BYTES", 1)
    sender = Sender(here.forge())
    first, second = (chunk.sealed_bytes for chunk in sender.chunks)
    await here.arrive(sender)
    assert sender.durable[-1] == first + second
    row = await here.row(sender.forgery)
    assert (row.state, row.bytes_done) == (State.CHECKING, first + second)
    assert row.bytes_carried + here.carried == first + second


async def test_chunk_that_a_broken_link_left_unrecorded_is_not_carried_again(here: Here) -> None:
    broken = Sender(here.forge(), sends=1)
    with pytest.raises(PeerUnreachable):
        await here.arrive(broken)
    row = await here.row(broken.forgery)
    carried = row.bytes_carried
    assert carried >= broken.chunks[0].sealed_bytes
    assert (row.state, row.bytes_done, len(here.files())) == (State.CARRYING, 0, 1)
    again = Sender(broken.forgery)
    await here.arrive(again)
    assert again.wanted == [1]
    row = await here.row(broken.forgery)
    assert row.bytes_carried + here.carried == carried + again.chunks[1].sealed_bytes
    assert await here.present(broken.forgery) == {0, 1}


@pytest.mark.parametrize("is_lost", [True, False])
async def test_chunk_that_was_damaged_here_comes_again_and_the_others_do_not(
    here: Here, *, is_lost: bool
) -> None:
    sender = Sender(here.forge())
    await here.arrive(sender)
    path = max(here.files().values(), key=lambda file: file.stat().st_size)
    whole = path.read_bytes()
    (position,) = (n for n, c in enumerate(sender.chunks) if c.sealed_bytes == len(whole))
    if is_lost:
        path.unlink()
    else:
        path.chmod(0o600)
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(PeerUnreachable):
        await here.arrive(Sender(sender.forgery, sends=0))
    assert path.name not in here.files()
    assert await here.present(sender.forgery) == {1 - position}
    again = Sender(sender.forgery)
    checked = await here.arrive(again)
    assert again.wanted == [position]
    assert await here.present(sender.forgery) == {0, 1}
    assert here.files()[path.name].read_bytes() == whole
    assert checked.doubts == []


async def test_what_is_here_whole_is_looked_at_and_nothing_of_it_is_wanted(here: Here) -> None:
    sender = Sender(here.forge())
    await here.arrive(sender)
    again = Sender(sender.forgery)
    checked = await here.arrive(again)
    assert (again.wanted, again.durable) == ([], [])
    assert checked.index.study["StudyDescription"] == "Made for a test"


async def test_chunk_with_other_bytes_than_its_name_says_is_not_kept(here: Here) -> None:
    forgery = here.forge()
    name, sealed = max(forgery.chunks.items(), key=lambda item: len(item[1]))
    altered = bytes([sealed[0] ^ 1]) + sealed[1:]
    with pytest.raises(ChunkDamaged):
        await here.arrive(Sender(replace(forgery, chunks={**forgery.chunks, name: altered})))
    assert altered not in [path.read_bytes() for path in here.files().values()]
    again = Sender(forgery)  # and nothing that the broken one had is missing now
    await here.arrive(again)
    assert await here.present(forgery) == {0, 1}


async def test_instance_that_is_not_what_its_manifest_says_ends_it(here: Here) -> None:
    lying = Sender(here.forge(entry_changes={"digest": bytes(32)}))
    with pytest.raises(BadManifest):
        await here.arrive(lying)
    assert (await here.row(lying.forgery)).state is State.CARRYING
