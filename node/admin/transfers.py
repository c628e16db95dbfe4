"""TransferService: sending, watching, deciding."""

from contextlib import aclosing

from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.parts import Parts, operator_of
from node.documents.peers import find_peer
from node.domain.transfers import Priority, Transfer
from node.errors import NotFound, UsageError
from node.exchange.transfers import SendOrder
from node.rpc.bounds import Bound
from node.rpc.pages import Pages, write_list
from node.rpc.serving import Call, Service, allow_all

_MANY_IDS = Bound(4 * 2**20, fields=100_000)


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

    def _wire(self, row: Transfer) -> pb.Transfer:
        name = self._parts.peer_name(self._parts.trust.peers.get(row.peer))
        connection = self._parts.federation.connection(row.peer)
        return wire.transfer_to_wire(row, name, connection.round_trip_seconds)

    async def _send(self, call: Call[None]) -> None:
        request: pb.SendRequest = call.request
        peers = [p for p in await self._parts.peer_store.all() if self._parts.trust.is_trusted(p)]
        try:
            peer = find_peer(peers, request.facility)
        except NotFound:
            peer = await self._parts.networks.meet(request.facility)
        else:
            await self._parts.networks.hold_one_name(request.facility, peer)
        try:
            priority = Priority[(request.priority or "routine").upper()]
        except KeyError as exc:
            raise UsageError("the priority is stat, urgent or routine") from exc
        order = SendOrder(
            study=request.study,
            receiver=peer.facility_id,
            seal_key=peer.identity.seal_key,
            recipient=request.recipient,
            note=request.note,
            priority=priority,
            operator=operator_of(call),
            is_again=request.again,
            origin=self._parts.origin_named(request.origin),
            has_held=request.include_held,
        )
        sent = await self._parts.transfers.send(order)
        first = pb.SendResponse(
            known=[str(row.transfer_id) for row in sent.known],
            held_packages=[str(package) for package in sent.held],
            origin=str(sent.origin),
        )
        await write_list(call, first, "transfers", map(self._wire, (*sent.added, *sent.known)))

    async def _list(self, call: Call[None]) -> None:
        request: pb.ListTransfersRequest = call.request
        pages = Pages(call, pb.ListTransfersResponse(), "transfers")
        rows = self._parts.transfer_store.search(
            open_only=request.open_only, held_only=request.held_only, limit=request.limit
        )
        async with aclosing(rows):
            async for some in rows:
                await pages.add(map(self._wire, some))
        await pages.end()

    async def _watch(self, call: Call[None]) -> None:
        store = self._parts.transfer_store
        wanted = frozenset(call.request.numbers)
        if any(number >= 2**63 for number in wanted):
            raise UsageError("no transfer has such a number")
        with self._parts.transfers.changes.subscribed() as changed:
            rows = await (store.numbered(sorted(wanted)) if wanted else store.find())
            for row in reversed(rows):
                await call.write(pb.WatchTransfersResponse(transfer=self._wire(row)))
            while True:
                row = await changed.next()
                if not wanted or row.id in wanted:
                    await call.write(pb.WatchTransfersResponse(transfer=self._wire(row)))

    async def _cancel(self, call: Call[None]) -> pb.CancelTransferResponse:
        row = await self._parts.transfers.cancel(call.request.transfer, operator_of(call))
        return pb.CancelTransferResponse(transfer=self._wire(row))

    async def _decide(self, call: Call[None]) -> pb.DecideOfferResponse:
        row = await self._parts.transfers.decide(
            call.request.transfer,
            accept=call.request.accept,
            reason=call.request.reason,
            operator=operator_of(call),
        )
        return pb.DecideOfferResponse(transfer=self._wire(row))
