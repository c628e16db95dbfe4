"""Receiving one transfer over a link: from the offer to the receipt.

How this works. A reader takes frames off the link and gives whole chunks to a few tasks; each
of those, on a worker thread, holds the chunk against its id, opens it, and writes it; then
the checker rebuilds the instances in it. So opening and checking overlap the carrying. Every
16 MiB the chunk directories are synced and the chunks recorded, so that a kill costs at most
what the window holds. When the last instance is checked, one transaction commits the package
with its receipt, and only then the receipt leaves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import trio

from node.crypto.keys import DataKey, SealKey, open_sealed_key
from node.documents.arrivals import Arrival
from node.documents.delivery import Delivery, check_delivery, open_delivery
from node.documents.manifest import MAX_BYTES, open_manifest
from node.documents.messages import (
    Answer,
    AnswerKind,
    ChunkFrame,
    Collect,
    ManifestFrame,
    Message,
    Offer,
    Problem,
    Progress,
    ReceiptKept,
    ReceiptMessage,
    Withdraw,
)
from node.documents.signed import Document
from node.domain.ids import ChunkId, FacilityId, PackageId, TransferId
from node.domain.manifest import ChunkEntry, Manifest
from node.domain.packages import Package
from node.domain.transfers import State, Transfer
from node.errors import (
    BadDataKey,
    BadManifest,
    ChunkDamaged,
    ChunkNotFound,
    DocumentError,
    NodeError,
    NotFound,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    RemoteProtocolError,
    StoreError,
    by_code,
    ungrouped,
)
from node.exchange.checking import Checker
from node.exchange.importing import Examiner
from node.exchange.links import Link
from node.exchange.receiver_machine import ReceiverMachine, WholeChunk

BATCH_BYTES = 16 * 2**20
STORING_TASKS = 3
_BUSY_SECONDS = 5
_FULL_SECONDS = 60
M = TypeVar("M")


class ReceiverStore(Protocol):
    """What receiving needs of the store's transfers."""

    async def keep_offer(
        self, delivery: Delivery, document: Document, sealed_key: bytes, *, is_held: bool
    ) -> Transfer:
        """Return the transfer of a delivery, kept if it is new."""

    async def find_received(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        """Return a transfer that a peer sends us, if it is known here."""

    async def find_package(self, row: Transfer) -> Package | None:
        """Return the package that a transfer is about."""

    async def stored_manifest(self, row: Transfer) -> Document | None:
        """Return the manifest kept for the package that a transfer is about."""

    async def begin_arrival(
        self, row: Transfer, data_key: DataKey, manifest: Manifest, document: Document
    ) -> Arrival:
        """Commit what must be there before the first chunk is written."""

    async def mark_present(self, arrival: Arrival, positions: Sequence[int]) -> None:
        """Record synced chunks."""

    async def forget_chunk(self, arrival: Arrival, position: int) -> None:
        """Record a chunk as not there."""

    async def commit_arrival(
        self,
        row: Transfer,
        manifest: Manifest,
        manifest_document: Document,
        index: Sequence[dict[str, str]],
    ) -> Transfer:
        """Commit a whole package with its receipt."""

    async def set_state(
        self, row: Transfer, state: State, reason: str = "", *, operator: str = "node"
    ) -> Transfer:
        """Move a transfer to a state."""

    async def note_progress(self, row: Transfer, done: int, carried: int) -> Transfer:
        """Keep how far it is."""

    async def discard_arrival(self, row: Transfer) -> list[int]:
        """Return the package rows to remove after an arrival ended."""


class Carrier(Protocol):
    """What receiving does with chunks, on worker threads."""

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> bytes:
        """Check, open and keep a chunk; return its plaintext."""

    def open_stored(self, arrival: Arrival, entry: ChunkEntry) -> bytes:
        """Return the plaintext of a chunk that is here."""

    def find_unrecorded(self, arrival: Arrival, entries: Sequence[ChunkEntry]) -> list[int]:
        """Return positions of chunks that a kill left here unrecorded."""

    def delete(self, chunk_id: ChunkId) -> None:
        """Delete a chunk that is damaged."""

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Make chunks durable."""

    def free_bytes(self) -> int:
        """Return how much more fits."""

    def used_bytes(self) -> int:
        """Return the sealed bytes that packages name."""

    def remove_packages(self, rows: Sequence[int]) -> None:
        """Remove packages that will never be complete."""


@dataclass(frozen=True)
class ReceiverPolicy:
    """What this facility wants of incoming packages."""

    asks_first: bool = False
    quota_bytes: int = 0  # 0: none


class Receiver:
    """Receives transfers; one instance serves all links."""

    def __init__(
        self,
        *,
        me: FacilityId,
        seal_keys: Sequence[SealKey],
        store: ReceiverStore,
        carrier: Carrier,
        examiner: Examiner,
        policy: ReceiverPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._seal_keys = seal_keys
        self._store = store
        self._carrier = carrier
        self._examiner = examiner
        self._policy = policy
        self._clock = clock
        self._active: dict[tuple[FacilityId, PackageId], trio.CancelScope] = {}
        self._active_transfers: dict[tuple[FacilityId, TransferId], trio.CancelScope] = {}

    async def collect(self, link: Link, transfer_id: TransferId) -> None:
        """Come for a transfer that waits at a peer that we dialled; see `receive`."""
        await link.send(Collect(transfer_id))
        message = await link.receive()
        if isinstance(message, Withdraw):
            await self.withdrawn(link, message)
        else:
            await self.receive(link, held_as(message, Offer))

    async def withdrawn(self, link: Link, message: Withdraw) -> None:
        """Forget what a sender has taken back; a receipt that was given stands."""
        row = await self._store.find_received(link.peer, message.transfer_id)
        if row is not None and not row.state.is_final:
            await self._store.set_state(row, State.CANCELLED, "cancelled by the sender")
            self.cancel(row)
            await self.discard(row)
        await link.send(Answer(AnswerKind.DECLINED, reason="withdrawn"))

    async def receive(self, link: Link, offer: Offer) -> None:
        """Receive what is offered, as far as it goes on this link.

        Broken off, the transfer stays as it is, and the next offer of it goes on where it was.

        Raises:
            NodeError: the peer broke a rule (it has been told) or the link broke.
        """
        try:
            await self._receive(link, offer)
        except PeerUnreachable:
            raise
        except NodeError as exc:
            await tell(link, Problem(exc.code.value, str(exc), is_final=False))
            raise

    async def _receive(self, link: Link, offer: Offer) -> None:
        delivery = open_delivery(offer.delivery)
        check_delivery(
            delivery,
            peer=link.peer,
            me=self._me,
            sealed_key=offer.sealed_key,
            now=self._clock(),
        )
        data_key = self._open_key(delivery, offer.sealed_key)
        try:
            row = await self._store.keep_offer(
                delivery, offer.delivery, offer.sealed_key, is_held=self._policy.asks_first
            )
        except PeerBusy as exc:
            await link.send(Answer(AnswerKind.LATER, retry_seconds=int(exc.retry_seconds)))
            return
        if row.receipt is not None:
            await self._give_receipt(link, row.receipt)
        elif row.state.is_final:
            await link.send(Answer(AnswerKind.DECLINED, reason=row.reason or str(row.state)))
        elif row.state is State.HELD and not row.accepted:
            await link.send(Answer(AnswerKind.HELD))
        else:
            await self._carry(link, row, delivery, data_key)

    def _open_key(self, delivery: Delivery, sealed_key: bytes) -> DataKey:
        for i, key in enumerate(self._seal_keys):
            try:
                return open_sealed_key(
                    key.private, delivery.transfer_id, delivery.package_id, sealed_key
                )
            except BadDataKey:
                if i == len(self._seal_keys) - 1:
                    raise
        raise BadDataKey("this node has no seal key")

    def cancel(self, row: Transfer) -> None:
        """End the carrying of a transfer on whatever link it is."""
        scope = self._active_transfers.get((row.peer, row.transfer_id))
        if scope is not None:
            scope.cancel()

    @contextmanager
    def _claimed(self, delivery: Delivery, scope: trio.CancelScope) -> Iterator[bool]:
        """Claim a package for this link; False if another link carries it."""
        key = (delivery.origin, delivery.package_id)
        if key in self._active:
            yield False
            return
        name = (delivery.sender, delivery.transfer_id)
        self._active[key] = self._active_transfers[name] = scope
        try:
            yield True
        finally:
            del self._active[key], self._active_transfers[name]

    async def _carry(
        self, link: Link, row: Transfer, delivery: Delivery, data_key: DataKey
    ) -> None:
        with trio.CancelScope() as scope, self._claimed(delivery, scope) as is_mine:
            if not is_mine:
                await link.send(Answer(AnswerKind.LATER, retry_seconds=_BUSY_SECONDS))
                return
            if not await self._has_room(row, delivery):
                await link.send(Answer(AnswerKind.LATER, retry_seconds=_FULL_SECONDS))
                return
            try:
                committed = await self._take(link, row, delivery, data_key)
            except NodeError as exc:
                await self._fail_if_final(link, row, exc)
                raise
            if committed.receipt is not None:
                await self._give_receipt(link, committed.receipt)
        if scope.cancelled_caught:
            problem = Problem("peer-refused", "cancelled by the receiver", is_final=True)
            await tell(link, problem)

    async def _has_room(self, row: Transfer, delivery: Delivery) -> bool:
        if await self._store.find_package(row) is not None:
            return True  # begun before: it is counted already
        if self._carrier.free_bytes() < delivery.sealed_bytes:
            return False
        quota = self._policy.quota_bytes
        if not quota:
            return True
        used = await trio.to_thread.run_sync(self._carrier.used_bytes)
        return used + delivery.sealed_bytes <= quota

    async def _fail_if_final(self, link: Link, row: Transfer, exc: NodeError) -> None:
        """Record an error that no second try can mend, and tell the sender so."""
        if not is_final_error(exc):
            return
        state = State.FAILED
        if isinstance(exc, PeerRefused):
            state = State.CANCELLED
        await self._store.set_state(row, state, str(exc))
        await self.discard(row)
        if state is State.FAILED:
            await tell(link, Problem(exc.code.value, str(exc), is_final=True))

    async def discard(self, row: Transfer) -> None:
        """Remove what arrived of a transfer that ended without a receipt.

        What another transfer of the same package still needs stays.
        """
        rows = await self._store.discard_arrival(row)
        if rows:
            await trio.to_thread.run_sync(self._carrier.remove_packages, rows)

    # -- carrying -------------------------------------------------------------------------

    async def _take(
        self, link: Link, row: Transfer, delivery: Delivery, data_key: DataKey
    ) -> Transfer:
        package = await self._store.find_package(row)
        if package is not None and package.state in ("deleting", "open", "held"):
            raise BadManifest("the package id is in use here")
        document = await self._store.stored_manifest(row)
        if document is not None and document.digest() != delivery.manifest_digest:
            document = None  # compared with the kept one as soon as it is here
        await link.send(Answer(AnswerKind.ACCEPTED, is_manifest_needed=document is None))
        if document is None:
            document = await self._receive_manifest(link, delivery)
        manifest = await trio.to_thread.run_sync(open_manifest, document)
        _hold_manifest(manifest, document, delivery)
        arrival = await self._store.begin_arrival(row, data_key, manifest, document)
        if package is not None and package.state == "closed":
            return await self._store.commit_arrival(row, manifest, document, ())
        session = _Session(self._store, self._carrier, self._examiner, row, manifest, arrival)
        index = await session.run(link)
        return await self._store.commit_arrival(row, manifest, document, index)

    async def _receive_manifest(self, link: Link, delivery: Delivery) -> Document:
        # An instance takes up to some 600 bytes, a chunk 90; chunks are rarely tiny.
        plausible = 2**20 + 2048 * delivery.instances + delivery.sealed_bytes // 64
        if not 0 < delivery.manifest_bytes <= min(MAX_BYTES, plausible):
            raise BadManifest("the manifest's length is out of bounds")
        parts, size = [], 0
        while size < delivery.manifest_bytes:
            frame = await expect(link, ManifestFrame)
            size += len(frame.data)
            if not frame.data or size > delivery.manifest_bytes:
                raise BadManifest("the manifest has another length than the delivery says")
            parts.append(frame.data)
        return Document.decode(b"".join(parts))

    async def _give_receipt(self, link: Link, receipt: bytes) -> None:
        await link.send(ReceiptMessage(Document.decode(receipt)))
        # Without this word the sender asks again, and gets the same receipt.
        with trio.move_on_after(30):
            await expect(link, ReceiptKept)


class _Session:
    """The carrying of one package's chunks over one link."""

    def __init__(
        self,
        store: ReceiverStore,
        carrier: Carrier,
        examiner: Examiner,
        row: Transfer,
        manifest: Manifest,
        arrival: Arrival,
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._row = row
        self._manifest = manifest
        self._arrival = arrival
        self._checker = Checker(manifest, examiner, self._reopen)
        self._unsynced: list[int] = []
        self._durable_bytes = 0
        self._noted_carried = 0
        self._recording = trio.Lock()
        self._storing = trio.CapacityLimiter(STORING_TASKS)
        self._opened = trio.Event()
        self._machine: ReceiverMachine

    async def _reopen(self, position: int) -> bytes:
        entry = self._manifest.chunks[position]
        try:
            return await trio.to_thread.run_sync(self._carrier.open_stored, self._arrival, entry)
        except (ChunkDamaged, ChunkNotFound) as exc:
            # Our own disk's fault, not the sender's: this chunk is carried again.
            await self._store.forget_chunk(self._arrival, position)
            await trio.to_thread.run_sync(self._carrier.delete, entry.chunk_id)
            raise StoreError("a chunk was damaged here; it is carried again") from exc

    async def run(self, link: Link) -> Sequence[dict[str, str]]:
        """Carry and check everything; return the searchable values. All chunks are durable."""
        chunks = self._manifest.chunks
        unrecorded = await trio.to_thread.run_sync(
            self._carrier.find_unrecorded, self._arrival, chunks
        )
        here = sorted({*self._arrival.present, *unrecorded})
        self._machine = ReceiverMachine(self._manifest, here)
        self._durable_bytes = sum(chunks[p].sealed_bytes for p in here)
        try:
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._checker.follow)
                    nursery.start_soon(self._check_present, here)
                    await self._read(link, nursery)
        finally:
            with trio.CancelScope(shield=True):
                await self._note_carried()
        await self._record(link)
        await self._store.set_state(self._row, State.CHECKING)
        return self._checker.index

    async def _check_present(self, positions: Sequence[int]) -> None:
        """Check what an earlier link brought: nothing of it is believed but its digest."""
        for position in positions:
            await self._checker.add(position, await self._reopen(position))

    async def _read(self, link: Link, nursery: trio.Nursery) -> None:
        """Take frames until every chunk has been handed to a storing task."""
        nursery.start_soon(self._want, link)
        while self._machine.is_receiving:
            whole = self._machine.got_frame(await expect(link, ChunkFrame))
            if whole is not None:
                token = object()  # the chunk itself would be hashed, all of it
                await self._storing.acquire_on_behalf_of(token)
                nursery.start_soon(self._store_chunk, link, whole, token)

    async def _want(self, link: Link) -> None:
        """Want more whenever the window has opened."""
        while not self._machine.is_complete:
            self._opened = trio.Event()
            if wanted := self._machine.next_want():
                await link.send(wanted)
            await self._opened.wait()

    async def _store_chunk(self, link: Link, chunk: WholeChunk, token: object) -> None:
        try:
            plaintext = await trio.to_thread.run_sync(
                self._carrier.put_sealed, self._arrival, chunk.entry, chunk.sealed
            )
        finally:
            self._storing.release_on_behalf_of(token)
        self._unsynced.append(chunk.position)
        if sum(self._manifest.chunks[p].sealed_bytes for p in self._unsynced) >= BATCH_BYTES:
            await self._record(link)
        await self._checker.add(chunk.position, plaintext)
        # Only now the window opens: what is not checked yet counts as outstanding, so memory
        # stays bounded however slow checking is.
        self._machine.stored(chunk.position)
        self._opened.set()

    async def _record(self, link: Link) -> None:
        """Sync what was stored and record it; then the sender may forget that it sent it."""
        async with self._recording:
            positions, self._unsynced = self._unsynced, []
            if not positions:
                return
            entries = [self._manifest.chunks[p] for p in positions]
            await trio.to_thread.run_sync(self._carrier.sync, [e.chunk_id for e in entries])
            await self._store.mark_present(self._arrival, positions)
            self._durable_bytes += sum(e.sealed_bytes for e in entries)
            await self._note_carried()
            await link.send(Progress(self._durable_bytes, self._manifest.sealed_bytes))

    async def _note_carried(self) -> None:
        carried = self._machine.carried_bytes - self._noted_carried
        self._noted_carried += carried
        await self._store.note_progress(self._row, self._durable_bytes, carried)


def _hold_manifest(manifest: Manifest, document: Document, delivery: Delivery) -> None:
    if document.digest() != delivery.manifest_digest:
        raise BadManifest("the manifest is not the one that the delivery names")
    if (manifest.package_id, manifest.origin) != (delivery.package_id, delivery.origin):
        raise BadManifest("the manifest is of another package than the delivery says")
    if len(manifest.instances) != delivery.instances:
        raise BadManifest("the manifest has another number of instances than the delivery says")
    if manifest.sealed_bytes != delivery.sealed_bytes:
        raise BadManifest("the manifest has another size than the delivery says")


async def expect(link: Link, kind: type[M]) -> M:
    """Return the next message, which must be of one kind.

    Raises:
        NodeError: the other side reports a problem instead.
        RemoteProtocolError: it is of another kind.
        PeerUnreachable: the other side ended the stream.
    """
    return held_as(await link.receive(), kind)


def held_as(message: Message | None, kind: type[M]) -> M:
    """Return a message that must be of one kind; see `expect`."""
    if isinstance(message, kind):
        return message
    if message is None:
        raise PeerUnreachable("the other side ended the stream before its time")
    if isinstance(message, Problem):
        raise problem_error(message)
    raise RemoteProtocolError(f"a {type(message).__name__} may not come now")


def problem_error(problem: Problem) -> NodeError:
    """Return the error that a peer reports."""
    text = f"the other side reports: {problem.message}"
    if problem.is_final and problem.code == "peer-refused":
        return PeerRefused(problem.message)
    error = by_code(problem.code)(text)
    error.is_final = problem.is_final
    return error


def is_final_error(error: NodeError) -> bool:
    """Return whether no second try can mend this; a reported one says so itself."""
    if error.is_final is not None:
        return error.is_final
    if isinstance(error, ChunkDamaged | ChunkNotFound | NotFound):
        return True
    if isinstance(error, StoreError):
        return False
    return isinstance(error, DocumentError | RemoteProtocolError | PeerRefused)


async def tell(link: Link, problem: Problem) -> None:
    """Tell the other side, if it still listens."""
    with trio.move_on_after(5, shield=True):
        try:
            await link.send(problem)
        except NodeError:
            return
