"""Receives and checks the chunks of one package over one link.

How this works. A reader takes frames off the link and passes whole chunks to a few tasks. Each
task, on a worker thread, checks the chunk against its id, decrypts it and writes it; then the
checker has it expanded and looks at what is in it. So all of that overlaps with receiving. Every
16 MiB the chunk directories are synced and the chunks recorded, so that a kill loses at most a
window.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from node.documents.arrivals import Arrival
from node.documents.messages import MOST_FURTHER_LINKS, ChunkFrame, Progress
from node.documents.signed import Document
from node.domain.actors import NODE, Actor
from node.domain.connections import Route
from node.domain.encoded import EncodedChunk
from node.domain.ids import ChunkId, FacilityId, TransferId
from node.domain.manifest import ChunkEntry, Manifest
from node.domain.transfers import SMALL_BYTES, Carried, State, Transfer
from node.domain.verdicts import Checked
from node.errors import ChunkDamaged, ChunkNotFound, StoreError, ungrouped
from node.exchange.ports import Examiner
from node.exchange.transfer import patience
from node.exchange.transfer.links import Link
from node.exchange.transfer.problems import expect
from node.exchange.transfer.receiver_machine import Missing, ReceiverMachine, WholeChunk
from node.exchange.transfer.shares import ChunkPlaces
from node.exchange.transfer.verifying import Checker

_NOTE_SECONDS = 15.0  # to record what was carried, shielded from cancellation
BATCH_BYTES, BATCH_CHUNKS = 16 * 2**20, 1000
_FEW = 500  # instances and chunks: so many are laid out in a millisecond
_LOOK_SECONDS = 10.0  # at whether the sender still does something
CHUNKS_IN_HAND = 5
"""So many chunks are stored or checked at once; the others wait on the line, not in memory.

It is for one transfer. Those of one peer share a few more, see `ChunkPlaces`.
"""


class ArrivingStore(Protocol):
    """What arriving needs of the store's arrivals."""

    async def mark_present(self, arrival: Arrival, positions: Sequence[int]) -> None:
        """Record synced chunks."""

    async def forget_chunk(self, arrival: Arrival, position: int) -> None:
        """Record a chunk as not there."""


class TransferStates(Protocol):
    """What receiving needs of the store's transfers: their states, documents, progress."""

    async def find_received(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        """Return a transfer that a peer sends us, if it is known here."""

    async def stored_manifest(self, row: Transfer) -> Document | None:
        """Return the manifest kept for the package that a transfer is about."""

    async def set_state(
        self, row: Transfer, state: State, reason: str = "", *, actor: Actor = NODE
    ) -> Transfer:
        """Move a transfer to a state."""

    async def set_route(self, row: Transfer, route: Route) -> Transfer:
        """Keep how the peer is reached."""

    async def note_progress(
        self, row: Transfer, done: int, carried: int, seconds: float
    ) -> Transfer:
        """Record the progress of a transfer."""


class ChunkKeeper(Protocol):
    """What arriving does with chunks, on worker threads."""

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> EncodedChunk:
        """Check, decrypt and keep a chunk; return what is in it."""

    def unseal_stored(self, arrival: Arrival, entry: ChunkEntry) -> EncodedChunk:
        """Return what is in a chunk that is here."""

    def find_unrecorded(self, arrival: Arrival, entries: Sequence[ChunkEntry]) -> list[int]:
        """Return positions of chunks that a kill left here unrecorded."""

    def delete_damaged(self, chunk_id: ChunkId) -> None:
        """Delete a chunk whose bytes do not match its id."""

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Make chunks durable."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A package that is here: durable, opened and checked.

    Attributes:
        checked: What was found in it.
        unrecorded: Positions of chunks that are durable and not recorded as such.
        carried: What came over the link and is not recorded.
    """

    checked: Checked
    unrecorded: Sequence[int]
    carried: Carried


class _Way:
    """A link over which a package comes: its machine, and what its two tasks wait for."""

    def __init__(self, link: Link, missing: Missing) -> None:
        self.link = link
        self.machine = ReceiverMachine(missing)
        self.is_waiting = False  # for a frame
        self.opened = trio.Event()  # more may be wanted
        self.moved = trio.Event()  # something is wanted, or nothing more will be

    def wake(self) -> None:
        self.opened.set()
        self.moved.set()


class Arriving:
    """One package on its way in. Run it once; meanwhile other links may join."""

    def __init__(
        self,
        store: ArrivingStore,
        transfers: TransferStates,
        keeper: ChunkKeeper,
        examiner: Examiner,
        row: Transfer,
        manifest: Manifest,
        arrival: Arrival,
        threads: trio.CapacityLimiter,
        places: ChunkPlaces,
        wrote: Callable[[int], None],
        links: int = 1,
    ) -> None:
        """Prepare; so many `links` are expected.

        `threads` does the peer's chunk work, a chunk has one of `places` before it is opened,
        and `wrote` is told of bytes written.
        """
        self._threads = threads
        self._links = links
        self._places = places
        self._wrote = wrote
        self._store = store
        self._transfers = transfers
        self._keeper = keeper
        self._row = row
        self._manifest = manifest
        self._arrival = arrival
        self._examiner = examiner
        self._checker: Checker
        self._unsynced: list[int] = []
        self._unsynced_bytes = 0
        self._durable_bytes = 0
        self._noted_carried = 0
        self._noted_time = trio.current_time()
        self._recording = trio.Lock()
        self._in_hand = trio.CapacityLimiter(CHUNKS_IN_HAND)
        self._patience = patience.for_bytes(manifest.sealed_bytes)
        self._is_looking = True  # at what is here already
        self._missing: Missing
        self._ways: list[_Way] = []
        self._link: Link  # the first
        self._storing: trio.Nursery | None = None

    async def _unseal(self, position: int) -> EncodedChunk | None:
        """Return what is in a chunk that is here; None if it is not as it was.

        That is our own disk's fault, not the sender's: the chunk is to be carried again.
        """
        entry = self._manifest.chunks[position]
        try:
            return await trio.to_thread.run_sync(
                self._keeper.unseal_stored, self._arrival, entry, limiter=self._threads
            )
        except (ChunkDamaged, ChunkNotFound):
            await self._store.forget_chunk(self._arrival, position)
            await trio.to_thread.run_sync(self._keeper.delete_damaged, entry.chunk_id)
            return None

    async def _unseal_again(self, position: int) -> EncodedChunk:
        chunk = await self._unseal(position)
        if chunk is None:
            raise StoreError("a chunk was damaged here; it will be sent again")
        return chunk

    async def run(self, link: Link) -> Arrived:
        """Carry and check everything; return what was found. All chunks are durable."""
        chunks = self._manifest.chunks
        self._checker = await self._prepared()
        unrecorded: Sequence[int] = ()
        if not self._arrival.is_new:
            unrecorded = await trio.to_thread.run_sync(
                self._keeper.find_unrecorded, self._arrival, chunks
            )
        here = sorted({*self._arrival.present, *unrecorded})
        self._missing = Missing(self._manifest, set(here), links=self._links)
        self._link = link
        self._durable_bytes = sum(chunks[p].sealed_bytes for p in self._arrival.present)
        try:
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._checker.follow)
                    nursery.start_soon(self._check_present, here)
                    self._storing = nursery
                    try:
                        await self._join_first(link)
                    finally:
                        self._storing = None
                        self._wake()
        except BaseException:
            with trio.move_on_after(_NOTE_SECONDS, shield=True):
                await self._note_carried()
            raise
        async with self._recording:
            positions, self._unsynced = self._unsynced, []
            await self._sync(positions)
        if self._row.receipt is None and self._manifest.sealed_bytes > SMALL_BYTES:
            await self._transfers.set_state(self._row, State.CHECKING)
        return Arrived(self._checker.checked, positions, self._take_carried())

    async def _prepared(self) -> Checker:
        """Return the checker; that takes a second for a large study."""
        make = partial(
            Checker, self._manifest, self._examiner, self._unseal_again, str(self._row.peer)
        )
        if len(self._manifest.instances) + len(self._manifest.chunks) <= _FEW:
            return make()
        return await trio.to_thread.run_sync(make)

    async def _check_present(self, positions: Sequence[int]) -> None:
        """Check the chunks that an earlier link brought, as if they had come now."""
        for position in positions:
            is_recorded = position in self._arrival.present
            if await self._check_one(position):
                if not is_recorded:
                    self._unsynced.append(position)
                continue
            if is_recorded:
                self._durable_bytes -= self._manifest.chunks[position].sealed_bytes
            self._missing.lost(position)
            self._wake()
        self._is_looking = False
        self._wake()

    async def _check_one(self, position: int) -> bool:
        """Check a chunk that is here; return False if it is not as it was."""
        holder = object()
        await self._places.acquire(self._row.peer, holder)
        try:
            chunk = await self._unseal(position)
            if chunk is not None:
                await self._checker.add(position, chunk)
            return chunk is not None
        finally:
            self._places.release(self._row.peer, holder)

    async def _join_first(self, link: Link) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_patience)
            await self.join(link)
            nursery.cancel_scope.cancel()

    async def _keep_patience(self) -> None:
        """End the transfer if too little comes, however many links take turns to bring nothing."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if any(way.is_waiting for way in self._ways):
                self._patience.spend(_LOOK_SECONDS)

    async def join(self, link: Link) -> None:
        """Carry missing chunks over a link until all are stored, or the transfer has ended.

        What a link that breaks has not brought is wanted of the others.

        Raises:
            PeerError: the link broke, or the peer is too slow.
            RemoteProtocolError: the peer breaks a rule on this link.
        """
        if self._storing is None or len(self._ways) > MOST_FURTHER_LINKS:
            return  # it has not begun, or has ended, or has enough
        way = _Way(link, self._missing)
        self._ways.append(way)
        try:
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._want, way)
                    await self._read(way)
                    nursery.cancel_scope.cancel()
        finally:
            way.machine.leave()
            self._ways.remove(way)
            self._wake()

    def _wake(self) -> None:
        for way in self._ways:
            way.wake()

    async def _read(self, way: _Way) -> None:
        """Take frames until every chunk is stored."""
        patient = patience.for_bytes(self._manifest.sealed_bytes)
        while await self._is_due(way):
            way.is_waiting = True
            with patient.waiting():
                frame = await expect(way.link, ChunkFrame)
            way.is_waiting = False
            patient.earn(len(frame.data) * self._missing.links)  # together they owe the least rate
            whole = way.machine.got_frame(frame)
            if whole is not None:
                self._patience.earn(len(whole.sealed))
                await self._take_in(whole)

    async def _take_in(self, whole: WholeChunk) -> None:
        """Have a chunk stored; wait until there is a place for it."""
        token = object()  # the chunk itself would be hashed, all of it
        try:
            await self._in_hand.acquire_on_behalf_of(token)
            try:
                await self._places.acquire(self._row.peer, token)
            except BaseException:
                self._in_hand.release_on_behalf_of(token)
                raise
        except BaseException:
            self._missing.give_back(whole.position)
            raise
        if self._storing is None:  # the transfer has ended with its first link
            self._release(token)
            self._missing.give_back(whole.position)
        else:
            self._storing.start_soon(self._store_chunk, whole, token)

    def _release(self, token: object) -> None:
        self._places.release(self._row.peer, token)
        self._in_hand.release_on_behalf_of(token)

    async def _is_due(self, way: _Way) -> bool:
        """Wait until a frame is due on a link; return False if none will come.

        While nothing is wanted, because chunks are being stored or checked or come over another
        link, no frame is due from the sender.
        """
        while not way.machine.is_due and (self._is_looking or not self._missing.is_complete):
            if self._storing is None:
                return False
            way.moved = trio.Event()
            if not way.machine.is_due:
                await way.moved.wait()
        return way.machine.is_due

    async def _want(self, way: _Way) -> None:
        """Want more whenever the window has opened."""
        while self._is_looking or not self._missing.is_complete:
            way.opened = trio.Event()
            while wanted := way.machine.next_want():
                way.moved.set()
                await way.link.send(wanted)
            await way.opened.wait()

    async def _store_chunk(self, chunk: WholeChunk, token: object) -> None:
        try:
            encoded = await trio.to_thread.run_sync(
                self._keeper.put_sealed,
                self._arrival,
                chunk.entry,
                chunk.sealed,
                limiter=self._threads,
            )
            self._wrote(chunk.entry.sealed_bytes)
            self._unsynced.append(chunk.position)
            self._unsynced_bytes += chunk.entry.sealed_bytes
            if self._unsynced_bytes >= BATCH_BYTES or len(self._unsynced) >= BATCH_CHUNKS:
                await self._record()
            await self._checker.add(chunk.position, encoded)
        finally:
            self._release(token)
        # The window opens only now: unchecked chunks count as outstanding, so memory stays
        # bounded however slow checking is.
        self._missing.stored(chunk.position)
        self._wake()

    async def _record(self) -> None:
        """Sync and record what was stored, then report the progress to the sender."""
        async with self._recording:
            positions, self._unsynced, self._unsynced_bytes = self._unsynced, [], 0
            if not positions:
                return
            await self._sync(positions)
            await self._store.mark_present(self._arrival, positions)
            self._durable_bytes += sum(self._manifest.chunks[p].sealed_bytes for p in positions)
            await self._note_carried()
            await self._link.send(Progress(self._durable_bytes, self._manifest.sealed_bytes))

    async def _sync(self, positions: Sequence[int]) -> None:
        """Make chunks durable."""
        ids = [self._manifest.chunks[position].chunk_id for position in positions]
        if ids:
            await trio.to_thread.run_sync(self._keeper.sync, ids)

    async def _note_carried(self) -> None:
        """Record what came over the link since the last time, and how much of it is durable."""
        carried = self._take_carried()
        await self._transfers.note_progress(
            self._row, self._durable_bytes, carried.bytes, carried.seconds
        )

    def _take_carried(self) -> Carried:
        """Return what came over the link since the last time."""
        carried = self._missing.carried_bytes - self._noted_carried
        self._noted_carried += carried
        before, self._noted_time = self._noted_time, trio.current_time()
        return Carried(carried, self._noted_time - before)
