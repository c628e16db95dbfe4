"""Receiving one transfer over a link: from the offer to the receipt.

The offer is checked against the rules and the facility's policy. Then its manifest is fetched, and
its chunks are carried and checked (`node.exchange.transfer.arriving`). After the last instance is
checked, one transaction commits the package with its receipt; only then is the receipt sent.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace

import trio

from node.crypto.keys import DataKey, SealKey, open_sealed_key
from node.documents.delivery import Delivery, check_delivery, open_delivery
from node.documents.manifest import MAX_BYTES, open_manifest
from node.documents.messages import (
    MOST_OFFERED_BYTES,
    Answer,
    AnswerKind,
    Collect,
    ManifestFrame,
    Offer,
    Problem,
    ReceiptKept,
    ReceiptMessage,
    Withdraw,
)
from node.documents.signed import Document
from node.documents.summary import open_summary
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.manifest import Manifest
from node.domain.packages import Package, PackageState
from node.domain.transfers import SMALL_BYTES, State, Transfer
from node.errors import (
    BadDataKey,
    BadDelivery,
    BadManifest,
    NodeError,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    ungrouped,
)
from node.exchange.ports import Examiner
from node.exchange.transfer import patience
from node.exchange.transfer.arriving import Arriving, TransferStates
from node.exchange.transfer.links import Link
from node.exchange.transfer.ports import Carrier, ReceiverPolicy, ReceiverStore
from node.exchange.transfer.problems import (
    expect,
    held_as,
    is_final_error,
    is_ours,
    send_error,
    send_problem,
)
from node.exchange.transfer.room import Promise, Room
from node.exchange.transfer.shares import (
    MANIFEST_BYTES_A_SECOND,
    MANIFEST_BYTES_AT_ONCE,
    ChunkPlaces,
    Limiters,
    Line,
    Share,
    chunk_threads,
)
from node.pace import Pace

_BUSY_SECONDS = 5
_DOCUMENTS_BYTES = 2**17  # delivery, receipt, what is shown of them, and audit entries, at most
# Of at most 4 MiB in plain: 32 MiB for a peer, whose one transfer has five in hand.
_CHUNKS_PER_PEER, _CHUNKS_IN_ALL = 8, 64
OFFERS_A_SECOND, OFFERS_AT_ONCE = 100.0, 250.0
# How many additional offers a fruitless, failed or broken one counts as. Fruitless: it brought
# nothing new; a hundred urgent offers that find no room come again every half minute. An offer of a
# package that is here already counts by its bytes: those read again, or those of its manifest if
# they were read within the hour.
_FRUITLESS, _FAILED, _BROKEN = 15.0, 500.0, 100.0
READ_AGAIN_SECONDS = 3600.0
_LISTED_BYTES, _READ_BYTES = 2.0**16 / 5, 2.0**22 / 5


@dataclass(eq=False)
class _Carrying:
    """A transfer that links carry.

    Attributes:
        peer: Who sends it.
        scope: Cancels it.
        ended: It has ended.
        arriving: Takes its chunks, once it has begun.
    """

    peer: FacilityId
    scope: trio.CancelScope
    ended: trio.Event = field(default_factory=trio.Event)
    arriving: Arriving | None = None


class Receiver:
    """Receives transfers; one instance serves all links."""

    def __init__(
        self,
        *,
        me: FacilityId,
        seal_keys: Sequence[SealKey],
        store: ReceiverStore,
        transfers: TransferStates,
        carrier: Carrier,
        examiner: Examiner,
        policy: ReceiverPolicy,
        clock: Callable[[], float],
        installed: Collection[str],
        replaced_since: Callable[[FacilityId], int] = lambda _: 0,
    ) -> None:
        self._me = me
        self._seal_keys = seal_keys
        self._store = store
        self._transfers = transfers
        self._carrier = carrier
        self._examiner = examiner
        self._policy = policy
        self._clock = clock
        self._replaced_since = replaced_since
        self._installed = installed
        self._room = Room(carrier.free_bytes, carrier.used_bytes, policy.quota_bytes)
        self._manifests = Share("manifests", in_all=3 * MAX_BYTES, per_peer=MAX_BYTES)
        self._offers = Pace(OFFERS_A_SECOND, burst=OFFERS_AT_ONCE)
        self._manifest_bytes = Pace(MANIFEST_BYTES_A_SECOND, burst=MANIFEST_BYTES_AT_ONCE)
        self._decoding = trio.CapacityLimiter(1)  # one at a time: each takes five times its size
        self._writing = Limiters(1)  # one peer's commits wait for each other, not others for them
        self._threads = chunk_threads()
        self._read: dict[tuple[FacilityId, PackageId], float] = {}  # until when it counts as read
        self._next = Line[tuple[FacilityId, PackageId]]()  # for a package that another carries
        self._places = ChunkPlaces(in_all=_CHUNKS_IN_ALL, per_peer=_CHUNKS_PER_PEER)
        self._active: dict[tuple[FacilityId, PackageId], _Carrying] = {}
        self._active_transfers: dict[tuple[FacilityId, TransferId], _Carrying] = {}

    def use_policy(self, policy: ReceiverPolicy) -> None:
        """Check the offers that come from now on against another policy."""
        self._policy = policy
        self._room.use_quota(policy.quota_bytes)

    async def collect(self, link: Link, transfer_id: TransferId) -> None:
        """Come for a transfer that waits at a peer that we dialled; see `receive`."""
        await link.send(Collect(transfer_id))
        with patience.for_checking(0).waiting():
            message = await link.receive()
        if isinstance(message, Withdraw):
            await self.withdrawn(link, message)
        else:
            await self.receive(link, held_as(message, Offer))

    def is_carrying(self, row: Transfer) -> bool:
        """Return whether a link carries a transfer to us at this moment."""
        return (row.peer, row.transfer_id) in self._active_transfers

    async def turn(self, peer: FacilityId) -> None:
        """Wait until a peer may begin one more transfer, whichever way."""
        await self._offers.turn(peer)

    async def withdrawn(self, link: Link, message: Withdraw) -> None:
        """Cancel a transfer that its sender has withdrawn; a receipt that was given stands."""
        await self.turn(link.peer)
        self._offers.charge(link.peer, _FRUITLESS)
        row = await self._transfers.find_received(link.peer, message.transfer_id)
        if row is not None and not row.state.is_final:
            await self._transfers.set_state(row, State.CANCELLED, "cancelled by the sender")
            await self.end(row)
        await link.send(Answer(AnswerKind.DECLINED, reason="withdrawn"))

    async def receive(self, link: Link, offer: Offer) -> bool:
        """Receive what is offered, as far as this link lasts.

        If it is interrupted, the next offer of the transfer continues where it stopped. A further
        link carries chunks of it meanwhile.

        Returns:
            Whether another offer may follow on the link.

        Raises:
            NodeError: the peer broke a rule (it has been told) or the link broke.
        """
        is_free = False
        try:
            delivery = await self._opened(link, offer)
            if offer.is_further:
                is_free = await self._join(link, delivery)
            else:
                is_free = await self._receive(link, offer, delivery)
        except PeerUnreachable:
            raise
        except NodeError as exc:
            is_free = is_ours(exc)
            await send_error(link, exc, is_final=False)
            raise
        finally:
            if not is_free:
                self._offers.charge(link.peer, _FRUITLESS)
        return not offer.is_further

    async def _join(self, link: Link, delivery: Delivery) -> bool:
        """Carry chunks of a transfer that another link carries, until it has ended.

        Returns:
            Whether there is such a transfer.
        """
        carrying = self._active_transfers.get((delivery.sender, delivery.transfer_id))
        if carrying is None or carrying.arriving is None:
            return False
        with ungrouped():
            async with trio.open_nursery() as nursery:

                async def end() -> None:
                    await carrying.ended.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(end)
                await carrying.arriving.join(link)
                nursery.cancel_scope.cancel()
        return True

    async def _opened(self, link: Link, offer: Offer) -> Delivery:
        """Return the delivery that is offered, after checking it; in its peer's turn."""
        await self.turn(link.peer)
        delivery = open_delivery(offer.delivery)
        check_delivery(
            delivery,
            peer=link.peer,
            me=self._me,
            sealed_key=offer.sealed_key,
            now=self._clock(),
        )
        if self._is_by_replaced_node(offer.delivery, delivery.sender, delivery.created_time):
            raise BadDelivery("the delivery was signed with a node key that its sender replaced")
        return delivery

    async def _receive(self, link: Link, offer: Offer, delivery: Delivery) -> bool:
        """Receive what is offered; return whether the peer pays nothing more for having come."""
        data_key = self._open_key(delivery, offer.sealed_key)
        summary = None
        if self._policy.asks_first:  # nobody else looks at it
            summary = open_summary(delivery.sealed_summary, data_key, delivery.transfer_id)
        try:
            async with self._writing.of(link.peer):
                row = await self._store.keep_offer(
                    delivery,
                    offer.delivery,
                    offer.sealed_key,
                    is_held=self._policy.asks_first,
                    summary=summary,
                    route=link.route,
                )
        except PeerBusy as exc:
            await _ask_later(link, exc)
            return False
        except PeerRefused as exc:
            await link.send(Answer(AnswerKind.DECLINED, reason=str(exc)))
            return False
        if row.receipt is not None and await self._is_whole(row, delivery):
            await self._give_receipt(link, row.receipt)
        elif row.receipt is None and row.state.is_final:
            await link.send(Answer(AnswerKind.DECLINED, reason=row.reason or str(row.state)))
        elif row.state is State.HELD and not row.accepted:
            await link.send(Answer(AnswerKind.HELD))
            return True  # for whom it waits is a person here
        else:
            return await self._carry(link, row, delivery, data_key, offer)
        return False

    async def _is_whole(self, row: Transfer, delivery: Delivery) -> bool:
        """Whether a receipt may be repeated: its package is complete here; read once an hour."""
        key, now = (delivery.origin, delivery.package_id), trio.current_time()
        self._read = {k: until for k, until in self._read.items() if until > now}
        if key in self._read:
            await self._offers.turn(row.peer, delivery.manifest_bytes / _LISTED_BYTES)
            return await self._store.is_whole(row, None)
        await self._offers.turn(row.peer, delivery.sealed_bytes / _READ_BYTES)
        is_whole = await self._store.is_whole(row, self._threads.of(row.peer))
        if is_whole:
            self._read[key] = trio.current_time() + READ_AGAIN_SECONDS
        return is_whole

    def _is_by_replaced_node(
        self, document: Document, signer: FacilityId, signed_time: float
    ) -> bool:
        """Whether the signing node had been replaced at the time stated in the document.

        Documents that the old node signed before its replacement stay valid. The time is stated by
        the signer: a holder of the old key can antedate a document.
        """
        since = self._replaced_since(signer)
        return document.signer.verified().generation < since <= signed_time

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

    async def end(self, row: Transfer) -> None:
        """Stop receiving a transfer, on whichever link, and remove what arrived.

        Returns when none of its tasks and threads run any more; what a thread was writing is
        removed, too.
        """
        carrying = self._active_transfers.get((row.peer, row.transfer_id))
        if carrying is not None:
            carrying.scope.cancel()
            await carrying.ended.wait()
        await self._discard(row)

    @contextmanager
    def _claimed(self, delivery: Delivery, scope: trio.CancelScope) -> Iterator[bool]:
        """Claim a package for this link; False if another link carries it, or another peer is next.

        A peer whose link broke comes again at once; who waited for that goes first.
        """
        key = (delivery.origin, delivery.package_id)
        place = (key, delivery.sender)
        earlier = self._active.get(key)
        if earlier is not None or key in self._next.before(place):
            if earlier is None or earlier.peer != delivery.sender:
                self._next.wait(place, key)
            yield False
            return
        self._next.leave(place)
        name = (delivery.sender, delivery.transfer_id)
        carrying = _Carrying(delivery.sender, scope)
        self._active[key] = self._active_transfers[name] = carrying
        try:
            yield True
        finally:
            del self._active[key], self._active_transfers[name]
            carrying.ended.set()

    async def _carry(
        self,
        link: Link,
        row: Transfer,
        delivery: Delivery,
        data_key: DataKey,
        offer: Offer,
    ) -> bool:
        with trio.CancelScope() as scope, self._claimed(delivery, scope) as is_mine:
            if not is_mine:
                why = "another transfer of the same package is under way"
                await _ask_later(link, PeerBusy(why, _BUSY_SECONDS))
                return False
            if row.bytes_total > SMALL_BYTES:
                row = await self._transfers.set_route(row, link.route)
            try:
                committed = await self._take_reserved(link, row, delivery, data_key, offer)
            except NodeError as exc:
                # Carrying that came to nothing costs as much as carrying; it goes slower then.
                if not is_ours(exc):
                    self._offers.charge(link.peer, _FAILED if is_final_error(exc) else _BROKEN)
                await self._fail_if_final(link, row, exc)
                raise
            if committed is not None and committed.receipt is not None:
                await self._give_receipt(link, committed.receipt)
                return True
        if scope.cancelled_caught:
            problem = Problem("peer-refused", "cancelled by the receiver", is_final=True)
            await send_problem(link, problem)
        return False

    async def _take_reserved(
        self,
        link: Link,
        row: Transfer,
        delivery: Delivery,
        data_key: DataKey,
        offer: Offer,
    ) -> Transfer | None:
        """Take a package in if there is room for it; if not, ask to come later, and return None."""
        async with AsyncExitStack() as stack:
            try:
                package, promise = await self._reserve(stack, row, delivery)
            except PeerBusy as exc:
                if not row.state.is_final:
                    await self._transfers.set_state(row, row.state, str(exc))
                await _ask_later(link, exc)
                return None
            return await self._take(link, row, delivery, data_key, offer, package, promise)

    async def _reserve(
        self, stack: AsyncExitStack, row: Transfer, delivery: Delivery
    ) -> tuple[Package | None, Promise]:
        """Reserve the memory and room of an arrival, until the stack is closed.

        Returns:
            The package, if something of it is here already, and the promise.

        Raises:
            PeerBusy: there is not enough, for this peer or for anybody.
            BadManifest: its manifest is stated larger than it can be.
        """
        _check_manifest_bytes(delivery)
        stack.enter_context(self._manifests.taken(row.peer, delivery.manifest_bytes))
        package = await self._store.find_package(row)
        promise = await self._promise(stack, row, delivery, package)
        # Last: who gets no room has had no manifest read.
        if wait := self._manifest_bytes.wait_seconds(row.peer, delivery.manifest_bytes):
            raise PeerBusy("too many manifests of this facility at once; read in turn", wait)
        return package, promise

    async def _promise(
        self,
        stack: AsyncExitStack,
        row: Transfer,
        delivery: Delivery,
        package: Package | None,
    ) -> Promise:
        # In the database a manifest lies beside its rows, then with its receipt, and sealed.
        size = delivery.sealed_bytes + 4 * delivery.manifest_bytes + _DOCUMENTS_BYTES
        if package is None:
            return await stack.enter_async_context(self._room.promised(row.peer, size, size))
        if package.state is PackageState.CLOSED:
            # Its chunks are counted; what is kept of one more delivery is not.
            kept = self._room.promised(row.peer, _DOCUMENTS_BYTES, _DOCUMENTS_BYTES)
            return await stack.enter_async_context(kept)
        missing = max(0, delivery.sealed_bytes - row.bytes_done) + _DOCUMENTS_BYTES
        return await stack.enter_async_context(self._room.promised(row.peer, missing, 0))

    async def _fail_if_final(self, link: Link, row: Transfer, exc: NodeError) -> None:
        """Record an error that no second try can mend, and tell the sender so."""
        if not is_final_error(exc):
            return
        state = State.FAILED
        if isinstance(exc, PeerRefused):
            state = State.CANCELLED
        await self._transfers.set_state(row, state, str(exc))
        await self._discard(row)
        if state is State.FAILED:
            await send_error(link, exc, is_final=True)

    async def _discard(self, row: Transfer) -> None:
        """Remove what arrived of a transfer that ended without a receipt.

        What another transfer of the same package still needs stays.
        """
        rows = await self._store.discard_arrival(row)
        if rows:
            await trio.to_thread.run_sync(self._carrier.remove_packages, rows)

    # -- carrying -------------------------------------------------------------------------

    async def _take(
        self,
        link: Link,
        row: Transfer,
        delivery: Delivery,
        data_key: DataKey,
        offer: Offer,
        package: Package | None,
        promise: Promise,
    ) -> Transfer:
        document = None
        if package is not None:
            if package.state in (PackageState.OPEN, PackageState.HELD):
                raise BadManifest("another package here has the same package id")
            document = await self._transfers.stored_manifest(row)
            if document is not None and document.digest() != delivery.manifest_digest:
                document = None  # compared with the kept one as soon as it is here
            if package.state is PackageState.CLOSED:
                # It costs the sender nothing to have all of it read here once more.
                await self._offers.turn(link.peer, delivery.sealed_bytes / _READ_BYTES)
        if offer.manifest is None:
            await link.send(Answer(AnswerKind.ACCEPTED, is_manifest_needed=document is None))
        document = document or offer.manifest or await self._receive_manifest(link, delivery)
        if len(document.body) <= MOST_OFFERED_BYTES:
            manifest = _open_manifest(document, delivery, self._installed)
        else:
            manifest = await trio.to_thread.run_sync(
                _open_manifest, document, delivery, self._installed, limiter=self._decoding
            )
        if self._is_by_replaced_node(document, manifest.origin, manifest.created_time):
            raise BadManifest("the manifest was signed with a node key that its origin replaced")
        arriving_bytes = self._room.unpromised_bytes() + promise.disk_bytes
        async with self._writing.of(link.peer):
            arrival = await self._store.begin_arrival(
                row, data_key, manifest, document, arriving_bytes * 3 // 4
            )
        del document  # it lies in the database until the package is whole
        promise.is_counted()
        # A package that is here already is opened and checked like any other before a receipt
        # is signed for it; what of it is damaged or missing comes again.
        arriving = Arriving(
            self._store,
            self._transfers,
            self._carrier,
            self._examiner,
            row,
            manifest,
            arrival,
            self._threads.of(link.peer),
            self._places,
            promise.wrote,
            1 + offer.further_links,
        )
        self._active_transfers[row.peer, row.transfer_id].arriving = arriving
        arrived = await arriving.run(link)
        carried = replace(arrived.carried, route=link.route)
        return await self._store.commit_arrival(
            row, manifest, arrived.checked, arrived.unrecorded, carried
        )

    async def _receive_manifest(self, link: Link, delivery: Delivery) -> Document:
        encoded = bytearray()
        patient = patience.for_bytes(delivery.manifest_bytes)
        while len(encoded) < delivery.manifest_bytes:
            with patient.waiting():
                frame = await expect(link, ManifestFrame)
            patient.earn(len(frame.data))
            encoded += frame.data
            if not frame.data or len(encoded) > delivery.manifest_bytes:
                raise BadManifest("the manifest has another length than the delivery says")
        return await trio.to_thread.run_sync(
            lambda: Document.decode(bytes(encoded)), limiter=self._decoding
        )

    async def _give_receipt(self, link: Link, receipt: bytes) -> None:
        await link.send(ReceiptMessage(Document.decode(receipt)))
        # Without this word the sender asks again, and gets the same receipt.
        with trio.move_on_after(30):
            await expect(link, ReceiptKept)


async def _ask_later(link: Link, why: PeerBusy) -> None:
    """Ask a sender to retry later, with the reason, which is shown to people there."""
    seconds = math.ceil(why.retry_seconds)
    await link.send(Answer(AnswerKind.LATER, retry_seconds=seconds, reason=str(why)))


def _open_manifest(document: Document, delivery: Delivery, installed: Collection[str]) -> Manifest:
    """Open a manifest and hold it against its delivery; seconds for the largest."""
    if len(document.encode()) != delivery.manifest_bytes:
        raise BadManifest("the manifest has another length than the delivery says")
    manifest = open_manifest(document)
    if document.digest() != delivery.manifest_digest:
        raise BadManifest("the manifest is not the one that the delivery names")
    if (manifest.package_id, manifest.origin) != (delivery.package_id, delivery.origin):
        raise BadManifest("the manifest is of another package than the delivery says")
    if len(manifest.instances) != delivery.instances:
        raise BadManifest("the manifest has another number of instances than the delivery says")
    if manifest.sealed_bytes != delivery.sealed_bytes:
        raise BadManifest("the manifest has another size than the delivery says")
    if manifest.is_out_of_proportion:
        gib, mib = manifest.plaintext_bytes // 2**30, manifest.sealed_bytes // 2**20
        raise BadManifest(f"the package expands too much: {gib} GiB out of {mib} MiB")
    if lacking := set(manifest.needs) - set(installed):
        raise BadManifest(
            f"the package needs what is not installed here: {', '.join(sorted(lacking))}"
        )
    return manifest


def _check_manifest_bytes(delivery: Delivery) -> None:
    # An instance takes up to some 600 bytes, a chunk 90; chunks are rarely tiny.
    plausible = 2**20 + 2048 * delivery.instances + delivery.sealed_bytes // 64
    if not 0 < delivery.manifest_bytes <= min(MAX_BYTES, plausible):
        raise BadManifest("the manifest's length is out of bounds")
