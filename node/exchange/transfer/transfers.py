"""The transfers of this node: requested by people, carried by whichever side can dial.

How this works. One worker for each peer that can be dialled takes the waiting transfers, most
urgent first, opens a link for each and sends. A peer that cannot be dialled watches here and
collects instead; the same sending then runs on the link that it opened. A transfer is on one
link at a time. `outbox` schedules the offers: at once, when the peer reports a person's decision,
and with growing pauses after an error that a retry can mend.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from node.crypto.digests import sha256
from node.documents.arrivals import Outgoing
from node.documents.delivery import MAX_TEXT, Delivery, sign_delivery
from node.documents.messages import Collect, Offer, Problem, Withdraw
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS, Document, DocumentSigner
from node.documents.summary import seal_summary
from node.domain.actors import NODE, Actor
from node.domain.connections import Route
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.manifest import StudyInstanceUID
from node.domain.transfers import SMALL_BYTES, Direction, Priority, State, Transfer
from node.errors import (
    Conflict,
    NodeError,
    PeerBusy,
    RemoteProtocolError,
    SeveralPatients,
    StoreError,
    UsageError,
    first_error,
)
from node.exchange.events import Feed, Poke, Subscription
from node.exchange.transfer.links import Link, Links
from node.exchange.transfer.outbox import LONGEST_PAUSE, Outbox
from node.exchange.transfer.priority_gate import PriorityGate
from node.exchange.transfer.problems import send_problem
from node.exchange.transfer.receiving import Receiver
from node.exchange.transfer.sending import FurtherLinks, Sender
from node.system import clock

log = structlog.get_logger()
CONCURRENT_SENDS = 3  # large ones
_MOST_ON_A_LINK = 100
_NOTIFY_AGAIN_SECONDS = 10.0
_OVERDUE_LOOK_SECONDS = 60.0
_NOTIFIED_AT_ONCE = 1000


@dataclass(frozen=True)
class SendOrder:
    """What a person asked to be sent.

    Attributes:
        study: The study as a person names it: UID, number, accession number or words.
        origin: The facility whose packages to send; empty for any.
        has_held: Also send packages with held instances.
        has_several_patients: Send even if the study has several patients.
        receiver: The facility to send to.
        seal_key: The X25519 key of the receiver's node.
        recipient, note, priority: None keeps the value of the package's last transfer there.
        actor: Who asked.
        is_again: Also send packages that the receiver gave a receipt for and has not deleted.
    """

    study: str
    receiver: FacilityId
    seal_key: bytes
    actor: Actor
    recipient: str | None = None
    note: str | None = None
    priority: Priority | None = None
    is_again: bool = False
    origin: str = ""
    has_held: bool = False
    has_several_patients: bool = False


@dataclass(frozen=True)
class Sent:
    """What became of an order to send: one entry for each package.

    Attributes:
        added: New transfers.
        known: Earlier ones, of packages that the receiver has, or that are on their way there.
        held: Packages left out, since an instance of them waits for a person here.
    """

    study_uid: StudyInstanceUID
    origin: FacilityId
    added: Sequence[Transfer]
    known: Sequence[Transfer]
    held: Sequence[PackageId]


@dataclass(frozen=True, slots=True)
class _Words:
    """The parts of a delivery that are meant for people."""

    recipient: str = ""
    note: str = ""
    priority: Priority = Priority.ROUTINE


def _words_of(row: Transfer) -> _Words:
    return _Words(row.recipient, row.note, row.priority)


def _words(order: SendOrder, earlier: Sequence[Transfer]) -> _Words:
    """Return the words of a new delivery; what the order leaves open comes from the last one.

    Deliveries that a person has cancelled are ignored.
    """
    lasting = (_words_of(row) for row in earlier if row.state is not State.CANCELLED)
    last = next(lasting, _Words())
    return _Words(
        last.recipient if order.recipient is None else order.recipient,
        last.note if order.note is None else order.note,
        last.priority if order.priority is None else order.priority,
    )


class TransferBook(Protocol):
    """What the transfers' use cases need of the store."""

    async def sendable(self, study: str, origin: str) -> list[Outgoing]:
        """Return one origin's closed packages of a study."""

    async def open_ones(self) -> Sequence[Transfer]:
        """Return transfers that are not final, oldest first."""

    async def waiting_for(self, peer: FacilityId) -> Sequence[Transfer]:
        """Return what is still to be sent to a peer, most urgent first."""

    async def sends_of(
        self, peer: FacilityId, origin: FacilityId, package_id: PackageId
    ) -> Sequence[Transfer]:
        """Return all transfers of a package to a peer, newest first."""

    async def get(self, name: str, *, direction: Direction | None = None) -> Transfer:
        """Return the one transfer that a person named."""

    async def waiting_one(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        """Return what is still to be sent to a peer, by its id; None if it is not."""

    async def accepted_from(self, peer: FacilityId) -> Sequence[Transfer]:
        """Return a peer's offers that a person accepted here and that have not begun to come."""

    async def by_number(self, number: int) -> Transfer:
        """Return a transfer as it now stands."""

    async def expired(self, now: float) -> Sequence[Transfer]:
        """Return transfers to us that are not final and whose delivery stands no longer."""

    async def note_overdue(self, now: float) -> int:
        """Raise an alarm, once, for each transfer that is overdue."""

    async def forget_expired(self, now: float) -> int:
        """Remove offers to us that ended without a receipt and cannot be replayed any more."""

    async def add_sends(
        self,
        sends: Sequence[tuple[Delivery, Document, bytes, Outgoing]],
        actor: Actor,
    ) -> Sequence[Transfer]:
        """Keep new deliveries of ours."""

    async def set_route(self, row: Transfer, route: Route) -> Transfer:
        """Record the route to the peer."""

    async def set_state(
        self, row: Transfer, state: State, reason: str = "", *, actor: Actor = NODE
    ) -> Transfer:
        """Move a transfer to a state."""

    async def take_back(self, row: Transfer, actor: Actor) -> Transfer:
        """Cancel a transfer of ours, of which the receiver is still to be told."""

    async def note_withdrawal_known(self, row: Transfer) -> Transfer:
        """Keep that the receiver need not be told of a withdrawal any more."""

    async def decide_offer(
        self, row: Transfer, *, accept: bool, reason: str, actor: Actor
    ) -> Transfer:
        """Keep a person's decision on a held offer."""


class Transfers:
    """All transfers of this node. `run_peer` must run for every peer that can be dialled."""

    def __init__(
        self,
        *,
        signer: DocumentSigner,
        book: TransferBook,
        sender: Sender,
        receiver: Receiver,
        links: Links,
        offer_seconds: float,
        changes: Feed[Transfer] | None = None,
        has_summaries: bool = True,
    ) -> None:
        """Prepare.

        Args:
            signer: Signs deliveries.
            book: Keeps transfers.
            sender: Sends one package.
            receiver: Receives one package.
            links: Reaches peers.
            offer_seconds: How long an offer stands.
            changes: Publishes each transfer that `book` changes; a new feed if None.
            has_summaries: Whether offers include a summary of the study.
        """
        self._signer = signer
        self._book = book
        self._sender = sender
        self._receiver = receiver
        self._links = links
        self._offer_seconds = offer_seconds
        self._has_summaries = has_summaries
        self._gates: dict[FacilityId, PriorityGate] = {}
        self._sending: dict[int, trio.CancelScope] = {}  # by their numbers
        self._outboxes: dict[FacilityId, tuple[Outbox, Poke]] = {}
        self.changes: Feed[Transfer] = changes or Feed()

    def use_offer_seconds(self, offer_seconds: float) -> None:
        """Have deliveries stand for so long that are signed from now on."""
        self._offer_seconds = offer_seconds

    # -- what people ask for --------------------------------------------------------------

    async def send(self, order: SendOrder) -> Sent:
        """Promise every package of a study to a facility; durable once this returns.

        A package of another origin goes on with that origin's manifest, as it came.

        Raises:
            NotFound: no such study.
            SeveralOrigins: the study has packages of several origins; a person must name one.
            SeveralPatients: the study has several patients; a person must confirm all of them.
            UsageError: note or recipient is too long, or the receiver is this facility.
        """
        if order.receiver == self._signer.facility_id:
            raise UsageError("the receiver named is this facility itself")
        if any(len(text or "") > MAX_TEXT for text in (order.note, order.recipient)):
            raise UsageError(f"note and recipient have at most {MAX_TEXT} characters")
        known: list[Transfer] = []
        sends = []
        found = await self._book.sendable(order.study, order.origin)
        count = len(found[0].summary.patients)
        if count > 1 and not order.has_several_patients:
            raise SeveralPatients(
                f"this Study Instance UID covers {count} patients (`emix study` shows them):"
                " confirm that all of them are meant"
            )
        held = [o.package.package_id for o in found if o.held and not order.has_held]
        for outgoing in found:
            package = outgoing.package
            if package.package_id in held:
                continue
            earlier = await self._book.sends_of(order.receiver, package.origin, package.package_id)
            wanted = {State.DELIVERED} if not order.is_again else set[State]()
            useful = [
                row
                for row in earlier
                if not row.state.is_final or (row.state in wanted and not row.deleted_time)
            ]
            words = _words(order, earlier)
            if useful and _words_of(useful[0]) == words:
                known.append(useful[0])
            else:
                sends.append(self._deliver(order, words, outgoing))
        added = await self._book.add_sends(sends, order.actor) if sends else ()
        package = found[0].package
        return Sent(package.study_uid, package.origin, added, known, held)

    def _deliver(
        self, order: SendOrder, words: "_Words", outgoing: Outgoing
    ) -> tuple[Delivery, Document, bytes, Outgoing]:
        package = outgoing.package
        transfer_id = TransferId.new()
        sealed_key = outgoing.data_key.seal_to(order.seal_key, transfer_id)
        now = clock.now()
        sealed_summary = b""
        if self._has_summaries:
            sealed_summary = seal_summary(outgoing.summary, outgoing.data_key, transfer_id)
        delivery = Delivery(
            transfer_id=transfer_id,
            package_id=package.package_id,
            origin=package.origin,
            manifest_digest=outgoing.manifest_digest,
            manifest_bytes=outgoing.manifest_bytes,
            sender=self._signer.facility_id,
            receiver=order.receiver,
            sealed_key_digest=sha256(sealed_key),
            created_time=now,
            expires_time=now + self._offer_seconds,
            priority=words.priority,
            recipient=words.recipient,
            note=words.note,
            instances=outgoing.instances,
            sealed_bytes=outgoing.sealed_bytes,
            sealed_summary=sealed_summary,
        )
        document = sign_delivery(delivery, self._signer)
        return delivery, document, sealed_key, outgoing

    async def cancel(self, name: str, actor: Actor) -> Transfer:
        """Cancel a transfer of ours, or stop an incoming one.

        Durable once this returns; cancelled, the decision was recorded whole or not at all.

        Raises:
            Conflict: it is final already.
        """
        row = await self._book.get(name)
        if row.direction is Direction.SEND:
            row = await self._book.take_back(row, actor)
            if row.id in self._sending:
                self._sending[row.id].cancel()
            return row
        row = await self._book.set_state(
            row, State.DECLINED, "stopped at the receiver", actor=actor
        )
        await self._receiver.end(row)
        return row

    async def expire(self) -> int:
        """End transfers to us that never completed in their time; return how many.

        Each is durable by itself; cancelled, the rest is left to the next time.
        """
        rows = await self._book.expired(clock.now() - MAX_CLOCK_SKEW_SECONDS)
        for row in rows:
            with suppress(Conflict):  # it came to an end just now
                await self._book.set_state(row, State.FAILED, "the delivery has expired")
            await self._receiver.end(row)
        await self._book.forget_expired(clock.now() - MAX_CLOCK_SKEW_SECONDS)
        return len(rows)

    async def watch_overdue(self) -> None:
        """Raise alarms about what is not delivered or decided in time, for ever."""
        while True:
            try:
                if overdue := await self._book.note_overdue(clock.now()):
                    log.warning("transfers overdue", transfers=overdue)
            except StoreError as exc:  # a full disk, which says so itself
                log.warning("overdue transfers are not noted", code=exc.code.value)
            await trio.sleep(_OVERDUE_LOOK_SECONDS)

    async def decide(self, name: str, *, accept: bool, reason: str, actor: Actor) -> Transfer:
        """Accept or decline a held offer; the sender is told if it can be reached.

        Durable once this returns; cancelled, it was decided or not, and nothing of it is lost.
        """
        row = await self._book.get(name, direction=Direction.RECEIVE)
        return await self._book.decide_offer(row, accept=accept, reason=reason, actor=actor)

    # -- links that peers open ------------------------------------------------------------

    async def serve_link(self, link: Link, *, is_first: bool = True) -> bool:
        """Run the next transfer that a peer comes with or comes for on a link.

        Args:
            link: The link.
            is_first: Whether no other transfer went over it before.

        Returns:
            Whether another may follow.
        """
        message = await link.receive()
        match message:
            case Offer():
                return await self._receiver.receive(link, message)
            case Collect(transfer_id):
                await self._receiver.turn(link.peer)
                await self._serve_collect(link, transfer_id)
                return False
            case Withdraw():
                await self._receiver.withdrawn(link, message)
                return True
            case None:
                if is_first:
                    await self._receiver.turn(link.peer)  # it has cost a call all the same
                return False
        raise RemoteProtocolError("a transfer begins with an offer or a collect")

    async def _serve_collect(self, link: Link, transfer_id: TransferId) -> None:
        row = await self._book.waiting_one(link.peer, transfer_id)
        if row is None:
            problem = Problem("not-found", "no such transfer waits at this node", is_final=False)
            await send_problem(link, problem)
            return
        # The other side has dialled: it was asked to, or it does anyway.
        await self._send_on(
            link, row, Route.DIAL_BACK if link.route is Route.DIRECT else link.route
        )

    async def collect(self, link: Link, transfer_id: TransferId) -> None:
        """Collect a transfer that waits at a peer which we dialled."""
        await self._receiver.collect(link, transfer_id)

    def decided(self, peer: FacilityId, transfer_id: TransferId) -> None:
        """Hear from a peer that a person there has decided about an offer of ours."""
        outbox, poked = self._outboxes.get(peer, (None, None))
        if outbox and poked and outbox.rung(transfer_id, trio.current_time()):
            poked.poke()

    async def watch_decided(
        self, peer: FacilityId, notify: Callable[[TransferId], Awaitable[None]]
    ) -> None:
        """Tell of every held offer of a peer's that a person decides about here, for ever.

        First of those that were accepted while it did not listen.
        """
        with self.changes.subscribed() as changed:
            for row in await self._book.accepted_from(peer):
                await notify(row.transfer_id)
            while True:
                row = await changed.next()
                if row.peer == peer and _is_just_decided(row):
                    await notify(row.transfer_id)

    def is_carried(self, row: Transfer) -> bool:
        """Return whether a transfer is on a link at this moment, either way."""
        return row.id in self._sending or self._receiver.is_carrying(row)

    def is_yielding(self, row: Transfer) -> bool:
        """Return whether more urgent transfers to the same peer go first."""
        gate = self._gates.get(row.peer)
        return gate is not None and gate.is_yielding(row.priority)

    def watch_waiting(self, peer: FacilityId) -> "Waiting":
        """Return the transfers that wait for a peer, present and future."""

        def is_carried(row: Transfer) -> bool:
            return row.id in self._sending or self._links.is_connected(peer)

        return Waiting(self._book, self.changes, peer, is_carried)

    # -- links that we open ---------------------------------------------------------------

    async def run_peer(self, peer: FacilityId) -> None:
        """Send what waits for a peer that can be dialled, for ever."""
        outbox, poked = Outbox(CONCURRENT_SENDS), Poke()
        self._outboxes[peer] = outbox, poked

        async def attempt(number: int) -> None:
            await self._attempt_in_turn(peer, number, outbox, poked)
            poked.poke()

        async def follow(changed: Subscription[Transfer]) -> None:
            while True:
                row = await changed.next()
                if row.peer == peer:
                    outbox.changed(row, trio.current_time())
                    poked.poke()

        try:
            with self.changes.subscribed() as changed:
                for row in await self._book.waiting_for(peer):
                    outbox.found(row, trio.current_time())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(follow, changed)
                    while True:
                        for number in outbox.take_due(trio.current_time()):
                            nursery.start_soon(attempt, number)
                        await poked.wait(outbox.next_due)
        finally:
            if self._outboxes.get(peer) == (outbox, poked):
                del self._outboxes[peer]

    async def _attempt_in_turn(
        self, peer: FacilityId, number: int, outbox: Outbox, poked: Poke
    ) -> None:
        """Offer a transfer, and what is due after it on the same link, one after the other.

        A link ends with the first transfer that does not go well on it. It ends after a while in
        any case: there may be a better way to the peer by now.
        """
        left, under_way = _MOST_ON_A_LINK, number
        link: Link | None = None

        async def opened() -> Link:
            nonlocal link
            if link is None:
                link = await stack.enter_async_context(self._links.carry(peer))
            return link

        try:
            async with AsyncExitStack() as stack:
                following: int | None = number
                while following is not None:
                    under_way = following
                    is_well = await self._attempt(peer, following, outbox, opened)
                    left, under_way = left - 1, 0
                    following = outbox.take_next(trio.current_time()) if is_well and left else None
                    poked.poke()
        except* NodeError as group:  # the link broke under a transfer, or after the last one
            if under_way:
                code = first_error(group).code.value
                log.info("transfer interrupted", peer=peer.short(), code=code)
                row = await self._seen(under_way)
                outbox.failed(under_way, row, trio.current_time())

    async def _attempt(
        self,
        peer: FacilityId,
        number: int,
        outbox: Outbox,
        opened: Callable[[], Awaitable[Link]],
    ) -> bool:
        """Offer a transfer once, and note in the outbox what became of it.

        Returns:
            Whether another transfer may follow on the same link.
        """
        row, later = None, LONGEST_PAUSE
        try:
            row = await self._book.by_number(number)
            row = await self._ended_by_time(row)
            is_well = True
            if not row.state.is_final or row.withdrawal_pending:
                link = await opened()
                further = _Further(self._links, peer)
                is_well = await self._send_on(link, row, link.route, further)
            outbox.offered(number, await self._book.by_number(number), trio.current_time())
            return is_well
        except* Conflict:
            pass  # it was ended by a person meanwhile, or is on another link
        except* PeerBusy as group:
            busy = first_error(group)
            later = busy.retry_seconds if isinstance(busy, PeerBusy) else LONGEST_PAUSE
            await self._explain(number, str(busy))
        except* NodeError as group:
            # Or the store's; or a link's that broke while we were being stopped.
            error = first_error(group)
            later = 0.0 if row is not None else LONGEST_PAUSE
            log.info(
                "transfer interrupted", transfer=number, peer=peer.short(), code=error.code.value
            )
            await self._explain(number, str(error))
        except* Exception:  # a supervisor: one transfer does not end the others
            log.exception("sending failed", transfer=number, peer=peer.short())
        outbox.failed(number, await self._seen(number), trio.current_time(), later)
        return False

    async def _ended_by_time(self, row: Transfer) -> Transfer:
        """Return a transfer, after ending it if its delivery has expired."""
        if row.expires_time >= clock.now() or clock.CLOCK.doubt:
            return row
        if row.withdrawal_pending:
            return await self._book.note_withdrawal_known(row)
        if row.state.is_final:
            return row
        return await self._book.set_state(row, State.FAILED, "the delivery has expired")

    async def _seen(self, number: int) -> Transfer | None:
        try:
            return await self._book.by_number(number)
        except NodeError:
            return None

    async def _explain(self, number: int, reason: str) -> None:
        """Show people why a transfer does not go on just now."""
        with suppress(NodeError):  # it was ended just now, or the store fails: nothing to show
            now = await self._book.by_number(number)
            if not now.state.is_final:
                await self._book.set_state(now, now.state, reason)

    async def _send_on(
        self, link: Link, row: Transfer, route: Route, further: FurtherLinks | None = None
    ) -> bool:
        """Send a transfer on a link; return whether another may follow on it.

        A large one may have more links.
        """
        if row.id in self._sending:
            raise Conflict("the transfer is on another link already")
        gate = self._gates.setdefault(link.peer, PriorityGate())
        if row.withdrawal_pending:
            await self._sender.withdraw(link, row)
            return True
        with trio.CancelScope() as scope:
            self._sending[row.id] = scope
            try:
                if row.bytes_total > SMALL_BYTES:
                    row = await self._book.set_route(row, route)
                await self._sender.send(link, row, gate, route, further)
            finally:
                del self._sending[row.id]
        if scope.cancelled_caught:
            await send_problem(
                link, Problem("peer-refused", "cancelled by the sender", is_final=True)
            )
        return not scope.cancelled_caught


class _Further:
    """Links beside the first to a peer that we dialled."""

    def __init__(self, links: Links, peer: FacilityId) -> None:
        self._links, self._peer = links, peer

    def count(self) -> int:
        return self._links.further_connections(self._peer)

    def open(self) -> AbstractAsyncContextManager[Link]:
        return self._links.carry(self._peer)


def _is_just_decided(row: Transfer) -> bool:
    """Whether a change of a transfer is a person's decision about a held offer."""
    if row.direction is not Direction.RECEIVE:
        return False
    return row.state is State.DECLINED or (row.state is State.HELD and row.accepted)


class Waiting:
    """Transfers that wait for one peer to collect them."""

    def __init__(
        self,
        book: TransferBook,
        changes: Feed[Transfer],
        peer: FacilityId,
        is_carried: Callable[[Transfer], bool],
    ) -> None:
        self._book = book
        self._changes = changes
        self._peer = peer
        self._is_carried = is_carried

    async def run(self, notify: Callable[[TransferId], Awaitable[None]]) -> None:
        """Call `notify` for each waiting transfer, now and later, and again while it waits.

        For a held one rarely: the peer collects it by itself once a person there has decided.
        """
        outbox, rows = Outbox(_NOTIFIED_AT_ONCE), dict[int, Transfer]()
        with self._changes.subscribed() as changed:
            for row in await self._book.waiting_for(self._peer):
                rows[row.id] = row
                outbox.found(row, trio.current_time())
            while True:
                for number in outbox.take_due(trio.current_time()):
                    await self._notify(rows[number], outbox, notify)
                with trio.move_on_at(outbox.next_due):
                    row = await changed.next()
                    if row.peer == self._peer:
                        rows[row.id] = row
                        outbox.changed(row, trio.current_time())
                        if row.id not in outbox:
                            del rows[row.id]

    async def _notify(
        self,
        row: Transfer,
        outbox: Outbox,
        notify: Callable[[TransferId], Awaitable[None]],
    ) -> None:
        if not self._is_carried(row):
            await notify(row.transfer_id)
        now = trio.current_time()
        if row.state is State.HELD and not row.withdrawal_pending:
            outbox.offered(row.id, row, now)
        else:
            outbox.failed(row.id, row, now, _NOTIFY_AGAIN_SECONDS)
