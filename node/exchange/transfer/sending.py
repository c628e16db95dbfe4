"""Sending one transfer over a link: from the offer to the kept receipt."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import structlog
import trio

from node.documents.delivery import open_delivery
from node.documents.manifest import MAX_BYTES, open_manifest
from node.documents.messages import (
    FRAME_BYTES,
    MOST_FURTHER_LINKS,
    MOST_OFFERED_BYTES,
    Answer,
    ChunkFrame,
    ManifestFrame,
    Offer,
    ReceiptKept,
    Withdraw,
)
from node.documents.signed import Document
from node.domain.actors import NODE, Actor
from node.domain.capabilities import Capability
from node.domain.connections import Route
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.domain.transfers import NOTHING_CARRIED, SMALL_BYTES, Carried, State, Transfer
from node.errors import (
    NodeError,
    PeerBusy,
    PeerLacks,
    PeerRefused,
    PeerUnreachable,
    first_error,
    ungrouped,
)
from node.exchange.transfer import patience
from node.exchange.transfer import sender_machine as machine
from node.exchange.transfer.links import Link
from node.exchange.transfer.priority_gate import PriorityGate
from node.exchange.transfer.problems import expect, is_final_error, problem_error, send_error
from node.exchange.transfer.shares import (
    MANIFEST_BYTES_A_SECOND,
    MANIFEST_BYTES_AT_ONCE,
    Share,
    chunk_threads,
)
from node.pace import Pace

log = structlog.get_logger()
_NOTE_SECONDS = 15.0  # to record what was carried, shielded from cancellation
_READ_AHEAD = 3
_LOOK_SECONDS = 10.0  # at whether the receiver still does something


class FurtherLinks(Protocol):
    """Further links to a receiver, which a large transfer uses beside its first."""

    def count(self) -> int:
        """Return how many it may use."""

    def open(self) -> AbstractAsyncContextManager[Link]:
        """Open one for the time of the block."""


class SenderStore(Protocol):
    """What sending needs of the store's transfers."""

    async def sending_manifest(self, row: Transfer) -> Document:
        """Return the manifest of the package that a transfer sends."""

    async def set_state(
        self, row: Transfer, state: State, reason: str = "", *, actor: Actor = NODE
    ) -> Transfer:
        """Move a transfer to a state."""

    async def note_progress(
        self, row: Transfer, done: int, carried: int, seconds: float
    ) -> Transfer:
        """Record the progress of a transfer."""

    async def keep_receipt(
        self, row: Transfer, receipt: Document, carried: Carried = NOTHING_CARRIED
    ) -> Transfer:
        """Keep a verified receipt durably, and what went over the link."""

    async def note_withdrawal_known(self, row: Transfer) -> Transfer:
        """Keep that the receiver has been told of a withdrawal."""


class SenderCarrier(Protocol):
    """What sending does with chunks, on worker threads."""

    def get_sealed(self, entry: ChunkEntry) -> bytes:
        """Return a chunk as sealed, checked."""


class Sender:
    """Sends transfers; one instance serves all links."""

    def __init__(self, store: SenderStore, carrier: SenderCarrier) -> None:
        self._store = store
        self._carrier = carrier
        self._threads = chunk_threads()
        self._manifests = Share("manifests", in_all=3 * MAX_BYTES, per_peer=MAX_BYTES)
        self._manifest_bytes = Pace(MANIFEST_BYTES_A_SECOND, burst=MANIFEST_BYTES_AT_ONCE)
        self._decoding = trio.CapacityLimiter(1)

    async def send(
        self,
        link: Link,
        row: Transfer,
        gate: PriorityGate,
        route: Route,
        further: FurtherLinks | None = None,
    ) -> None:
        """Offer a transfer on a link and send the wanted chunks, until the receipt is stored.

        Returns when it is delivered, held at the receiver, or declined. The route is recorded with
        the receipt. If the transfer is large, chunks go over further links, too, once the
        receiver has accepted.

        Raises:
            PeerBusy: the receiver asks to retry later.
            NodeError: the link broke, or something is wrong; a final error has been recorded.
        """
        size = open_delivery(Document.decode(row.delivery)).manifest_bytes
        try:
            with gate.active(row.priority), self._manifests.taken(link.peer, size), ungrouped():
                # Bounds how often a peer has a manifest read by collecting it repeatedly.
                await self._manifest_bytes.turn(link.peer, size)
                threads = self._threads.of(link.peer)
                session = _Session(
                    self._store,
                    self._carrier,
                    link,
                    row,
                    gate,
                    threads,
                    self._decoding,
                    route,
                    further if row.bytes_total > SMALL_BYTES else None,
                )
                await session.run()
        except NodeError as exc:
            if isinstance(exc, PeerRefused):
                await self._store.set_state(row, State.DECLINED, str(exc))
            elif is_final_error(exc):
                await self._store.set_state(row, State.FAILED, str(exc))
                await send_error(link, exc, is_final=True)
            raise

    async def withdraw(self, link: Link, row: Transfer) -> None:
        """Tell the receiver that a transfer was withdrawn.

        Once this returns, it is durable that the receiver knows; if cancelled, it is told again.
        """
        await link.send(Withdraw(row.transfer_id))
        with patience.for_checking(0).waiting():
            await expect(link, Answer)
        await self._store.note_withdrawal_known(row)


class _Session:
    """One transfer on one link; further links have sessions of their own."""

    def __init__(
        self,
        store: SenderStore,
        carrier: SenderCarrier,
        link: Link,
        row: Transfer,
        gate: PriorityGate,
        threads: trio.CapacityLimiter,
        decoding: trio.CapacityLimiter,
        route: Route,
        further: FurtherLinks | None = None,
    ) -> None:
        self._further = further
        self._further_sessions = 0
        self._threads = threads
        self._route = route
        self._decoding = decoding
        self._store = store
        self._carrier = carrier
        self._link = link
        self._row = row
        self._gate = gate
        self._carried = 0
        self._carried_since = trio.current_time()
        self._durable_bytes = 0
        self._patience = patience.for_checking(row.bytes_total)
        self._machine: machine.SenderMachine
        self._manifest: Document
        self._is_manifest_offered: bool
        self._queue, self._queued = trio.open_memory_channel[ChunkEntry](10_000)

    async def note_carried(self) -> None:
        """Keep what went over the link since the last time.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        carried = self._take_carried()
        await self._store.note_progress(
            self._row, self._durable_bytes, carried.bytes, carried.seconds
        )

    def _take_carried(self) -> Carried:
        """Return what went over the link since the last time."""
        carried, self._carried = self._carried, 0
        before, self._carried_since = self._carried_since, trio.current_time()
        return Carried(carried, self._carried_since - before, self._route)

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            if self._carried:
                with trio.move_on_after(_NOTE_SECONDS, shield=True):
                    await self.note_carried()

    async def _run(self) -> None:
        self._manifest = await self._store.sending_manifest(self._row)
        delivery = Document.decode(self._row.delivery)
        self._is_manifest_offered = len(self._manifest.encode()) <= MOST_OFFERED_BYTES
        make = partial(
            _make_machine,
            delivery,
            self._manifest,
            self._link.capabilities,
            is_manifest_offered=self._is_manifest_offered,
        )
        if self._is_manifest_offered:
            self._machine = make()
        else:
            self._machine = await trio.to_thread.run_sync(make, limiter=self._decoding)
        offered = self._manifest if self._is_manifest_offered else None
        further = min(self._further.count(), MOST_FURTHER_LINKS) if self._further else 0
        await self._link.send(Offer(delivery, self._row.sealed_key, offered, further))
        await self._follow()

    async def _follow(self) -> None:
        """Do what the receiver wants, until the transfer is over on this link."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_chunks)
            nursery.start_soon(self._keep_patience)
            is_going_on = True
            while is_going_on:
                message = await self._link.receive()
                if message is None:
                    self._hear_end()
                    break
                for action in self._machine.got(message):
                    is_going_on = await self._do(action)
                while self._further and self._is_worth_more(self._further):
                    self._further_sessions += 1
                    nursery.start_soon(self._send_further, self._further)
            nursery.cancel_scope.cancel()

    def _hear_end(self) -> None:
        """Hear that the receiver has ended the stream."""
        raise PeerUnreachable("the receiver ended the stream early")

    def _is_worth_more(self, further: FurtherLinks) -> bool:
        return self._machine.is_owing and self._further_sessions < further.count()

    async def _send_further(self, further: FurtherLinks) -> None:
        """Send chunks over one more link. If it breaks, the others go on without it."""
        try:
            async with further.open() as link:
                await _FurtherSession(self, link).run()
        except* NodeError as group:
            code = first_error(group).code.value
            log.debug("a further link ended", peer=self._link.peer.short(), code=code)

    async def _keep_patience(self) -> None:
        """End the transfer if the receiver takes too long, and we owe it nothing meanwhile."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if not self._machine.is_owing:
                self._patience.spend(_LOOK_SECONDS)

    async def _do(self, action: machine.Action) -> bool:
        """Carry an action out; return whether the transfer goes on on this link."""
        match action:
            case machine.Begin():
                if self._row.bytes_total > SMALL_BYTES:
                    await self._store.set_state(self._row, State.CARRYING)
                self._carried_since = trio.current_time()
            case machine.SendManifest():
                encoded = self._manifest.encode()
                for i in range(0, len(encoded), FRAME_BYTES):
                    await self._link.send(ManifestFrame(encoded[i : i + FRAME_BYTES]))
            case machine.SendChunk(entry):
                self._patience.earn(entry.sealed_bytes)
                await self._queue.send(entry)
            case machine.NoteProgress(durable):
                self._patience.earn(max(0, durable - self._durable_bytes))
                self._durable_bytes = max(self._durable_bytes, durable)
                await self.note_carried()
            case machine.KeepReceipt(receipt):
                await self._store.keep_receipt(self._row, receipt, self._take_carried())
                await self._link.send(ReceiptKept())
                return False
            case machine.Held():
                await self._store.set_state(
                    self._row, State.HELD, "a person at the receiver decides"
                )
                return False
            case machine.Declined(reason):
                await self._store.set_state(self._row, State.DECLINED, reason)
                return False
            case machine.ComeLater(seconds, reason):
                busy = PeerBusy(reason or "the receiver takes it later", seconds)
                raise PeerBusy(f"{busy}; next try in {busy.retry_seconds:.0f} s", seconds)
            case machine.Broken(problem):
                raise problem_error(problem)
        return True

    async def _send_chunks(self) -> None:
        """Send wanted chunks in order, a few of them read ahead."""
        send, receive = trio.open_memory_channel[tuple[ChunkEntry, "_Reading"]](_READ_AHEAD)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                async for entry in self._queued:
                    await self._gate.wait_turn(self._row.priority)
                    reading = _Reading()
                    nursery.start_soon(reading.run, self._carrier.get_sealed, entry, self._threads)
                    await send.send((entry, reading))

            nursery.start_soon(read)
            async for entry, reading in receive:
                await self._send_chunk(entry, await reading.result())

    async def _send_chunk(self, entry: ChunkEntry, sealed: bytes) -> None:
        name: ChunkId | None = entry.chunk_id
        view = memoryview(sealed)
        for i in range(0, len(sealed), FRAME_BYTES):
            if i + FRAME_BYTES >= len(sealed):
                # Noted first: the receiver may want more before we go on after its last frame.
                self._machine.chunk_sent(entry)
            await self._link.send(ChunkFrame(name, view[i : i + FRAME_BYTES]))
            name = None
        self._count(len(sealed))

    def _count(self, size: int) -> None:
        self._carried += size


class _FurtherSession(_Session):
    """A further link of a transfer: it carries what the receiver wants of it, and nothing else."""

    def __init__(self, first: _Session, link: Link) -> None:
        super().__init__(
            first._store,
            first._carrier,
            link,
            first._row,
            first._gate,
            first._threads,
            first._decoding,
            first._route,
        )
        self._first = first
        self._machine = first._machine.beside()

    async def run(self) -> None:
        delivery = Document.decode(self._row.delivery)
        await self._link.send(Offer(delivery, self._row.sealed_key, is_further=True))
        try:
            await self._follow()
        finally:
            self._machine.leave()

    async def _do(self, action: machine.Action) -> bool:
        match action:
            case machine.SendChunk():
                return await super()._do(action)
            case machine.Begin():
                return True
        return False  # the first link hears of it, too

    def _hear_end(self) -> None:
        """Nothing is missing any more, or the transfer has ended."""

    def _count(self, size: int) -> None:
        self._first._count(size)


def _make_machine(
    delivery: Document,
    manifest: Document,
    capabilities: Collection[Capability],
    *,
    is_manifest_offered: bool,
) -> machine.SenderMachine:
    """Return the machine; for a large study that takes a second: then call it on a worker thread.

    Raises:
        PeerLacks: the receiver would refuse the package, or could not open it.
    """
    opened = open_manifest(manifest)
    if opened.attachments and Capability.ATTACHMENTS not in capabilities:
        raise PeerLacks(
            "the package has attachments, which the receiver's version of emix does not support:"
            " nothing was sent. Ask its facility to upgrade emix, then send again"
        )
    if Capability.JPEG_LS in opened.needs and Capability.JPEG_LS not in capabilities:
        raise PeerLacks(
            "the package is compressed with JPEG-LS, whose library the receiver has not installed:"
            " nothing was sent. Ask its facility to run `pip install 'emix[small]'`, then send"
            " again"
        )
    if lacking := set(opened.needs) - set(capabilities):
        raise PeerLacks(
            "the receiver's version of emix cannot open the package"
            f" ({', '.join(sorted(lacking))}): nothing was sent."
            " Ask its facility to upgrade emix, then send again"
        )
    return machine.SenderMachine(
        open_delivery(delivery),
        delivery.digest(),
        opened,
        is_manifest_offered=is_manifest_offered,
    )


class _Reading:
    """A chunk that is being read."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._sealed = b""

    async def run(
        self,
        get: Callable[[ChunkEntry], bytes],
        entry: ChunkEntry,
        threads: trio.CapacityLimiter,
    ) -> None:
        self._sealed = await trio.to_thread.run_sync(get, entry, limiter=threads)
        self._done.set()

    async def result(self) -> bytes:
        await self._done.wait()
        return self._sealed
