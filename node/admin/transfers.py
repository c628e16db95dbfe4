"""TransferService: sending, watching, deciding."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.parts import MOST_HELD, Parts, actor_of
from node.documents.peers import Peer, find_peer
from node.domain.transfers import Priority, Transfer
from node.domain.waiting import HOW_TO_TRUST, WayToPeer, why_waiting
from node.errors import NodeError, NotFound, PeerUntrusted, UsageError
from node.exchange.transfer.transfers import SendOrder
from node.federation.connections.connection import Connection
from node.rpc.bounds import Bound
from node.rpc.pages import Pages, write_list
from node.rpc.serving import Call, Service, allow_all

_MANY_IDS = Bound(4 * 2**20, fields=100_000)
_LOOK_SECONDS = 2.0
"""How often a watch looks whether what waits still waits for the same."""


class TransferHandlers:
    """Handlers of TransferService."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "Send": self._send,
            "ListTransfers": self._list,
            "WatchTransfers": self._watch,
            "CancelTransfer": self._cancel,
            "DecideOffer": self._decide,
        }
        descriptor = pb.DESCRIPTOR.services_by_name["TransferService"]
        return Service(descriptor, handlers, allow_all, {"WatchTransfers": _MANY_IDS})

    def _wire(self, row: Transfer, *, tells_offer: bool = False) -> pb.Transfer:
        peer = self._parts.trust.peers.get(row.peer)
        connection = self._parts.federation.connection(row.peer)
        reason = why_waiting(row, self._way(row, peer, connection))
        name = self._parts.peer_name(peer)
        shown = row if tells_offer else replace(row, summary=None)
        return wire.transfer_to_wire(shown, name, connection.round_trip_seconds, reason)

    def _way(self, row: Transfer, peer: Peer | None, connection: Connection) -> WayToPeer:
        return WayToPeer(
            is_removed=peer is None or peer.is_removed,
            distrusted=self._parts.trust.why_not(peer) if peer else "",
            is_connected=connection.channel is not None or bool(connection.inbound),
            problem=connection.problem,
            is_carried=self._parts.transfers.is_carried(row),
            is_yielding=self._parts.transfers.is_yielding(row),
        )

    async def _receiver_named(self, text: str) -> Peer:
        """Return the facility that is to be sent to.

        Raises:
            NotFound, Conflict: nobody is meant, or several.
            PeerUntrusted: it is known and not trusted; the message says what to do, and where.
        """
        peers = await self._parts.peer_store.all()
        trusted = [p for p in peers if self._parts.trust.is_trusted(p)]
        try:
            peer = find_peer(trusted, text)
        except NotFound:
            try:
                return await self._parts.networks.meet(text)
            except NotFound:
                self._explain_untrusted([p for p in peers if p not in trusted], text)
                raise
        await self._parts.networks.check_one_name(text, peer)
        return peer

    def _explain_untrusted(self, peers: Sequence[Peer], text: str) -> None:
        """Raise what keeps a facility from being sent to that is known and not trusted."""
        try:
            peer = find_peer(peers, text)
        except NodeError:
            return
        if peer.is_removed:
            raise PeerUntrusted(
                "that facility was removed here: `emix peers pair --restore-removed` brings it back"
            )
        raise PeerUntrusted(f"{self._parts.trust.why_not(peer)}. {HOW_TO_TRUST}")

    async def _send(self, call: Call[None]) -> None:
        request: pb.SendRequest = call.request
        peer = await self._receiver_named(request.facility)
        if not request.study:
            await call.write(pb.SendResponse())
            return
        try:
            priority = Priority[request.priority.upper()] if request.priority else None
        except KeyError as exc:
            raise UsageError("the priority is stat, urgent or routine") from exc
        order = SendOrder(
            study=request.study,
            receiver=peer.facility_id,
            seal_key=peer.identity.seal_key,
            recipient=request.recipient if request.HasField("recipient") else None,
            note=request.note if request.HasField("note") else None,
            priority=priority,
            actor=actor_of(call),
            is_again=request.again,
            origin=self._parts.origin_named(request.origin),
            has_held=request.include_held,
            has_several_patients=request.several_patients,
        )
        sent = await self._parts.transfers.send(order)
        first = pb.SendResponse(
            known=[str(row.transfer_id) for row in sent.known],
            held_packages=[str(package) for package in sent.held],
            origin=str(sent.origin),
        )
        held = await self._parts.import_store.held_of(sent.study_uid, sent.origin)
        first.unfinished_imports.extend(
            await self._parts.import_store.unfinished_of(sent.study_uid, sent.origin)
        )
        first.held.extend(wire.held_to_wire(found, {}) for found in held[:MOST_HELD])
        await write_list(call, first, "transfers", map(self._wire, (*sent.added, *sent.known)))

    async def _list(self, call: Call[None]) -> None:
        request: pb.ListTransfersRequest = call.request
        pages = Pages(call, pb.ListTransfersResponse(), "transfers")
        rows = self._parts.transfer_store.search(
            open_only=request.open_only, held_only=request.held_only, limit=request.limit
        )
        told = 0
        async with aclosing(rows):
            async for some in rows:
                told += sum(row.summary is not None for row in some)
                await pages.add(self._wire(row, tells_offer=True) for row in some)
        await pages.end()
        if told:  # whom an offer is of is looked at as a study is
            await self._parts.audit.note_list("offers.listed", {"offers": told}, actor_of(call))

    async def _watch(self, call: Call[None]) -> None:
        store = self._parts.transfer_store
        wanted = frozenset(call.request.numbers)
        if any(number >= 2**63 for number in wanted):
            raise UsageError("no transfer has such a number")
        with self._parts.transfers.changes.subscribed() as changed:
            rows = await (store.numbered(sorted(wanted)) if wanted else store.latest())
            open_ones: dict[int, tuple[Transfer, str]] = {}

            async def tell(row: Transfer) -> None:
                message = self._wire(row)
                open_ones.pop(row.id, None)
                if not row.state.is_final:
                    open_ones[row.id] = (row, message.reason)
                await call.write(pb.WatchTransfersResponse(transfer=message))

            for row in reversed(rows):
                await tell(row)
            while True:
                with trio.move_on_after(_LOOK_SECONDS) as waiting:
                    row = await changed.next()
                if not waiting.cancelled_caught:
                    if not wanted or row.id in wanted:
                        await tell(row)
                    continue
                # That a way is there or gone changes no transfer, and why it waits.
                for row, reason in list(open_ones.values()):
                    if self._wire(row).reason != reason:
                        await tell(row)

    async def _cancel(self, call: Call[None]) -> pb.CancelTransferResponse:
        row = await self._parts.transfers.cancel(call.request.transfer, actor_of(call))
        return pb.CancelTransferResponse(transfer=self._wire(row))

    async def _decide(self, call: Call[None]) -> pb.DecideOfferResponse:
        row = await self._parts.transfers.decide(
            call.request.transfer,
            accept=call.request.accept,
            reason=call.request.reason,
            actor=actor_of(call),
        )
        return pb.DecideOfferResponse(transfer=self._wire(row))
