"""TransferService: sending, watching, deciding."""

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import trio
from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.admin.callers import actor_of
from node.domain.transfers import Priority, Transfer
from node.errors import NodeError, UsageError
from node.exchange.ingest.waiting import WaitingImports
from node.exchange.membership.facilities import Facilities
from node.exchange.transfer.lists import TransferLists
from node.exchange.transfer.transfers import SendOrder, Sent, Transfers
from node.rpc.bounds import Bound
from node.rpc.pages import Pages, write_list
from node.rpc.serving import Call, Service, allow_all

_MANY_IDS = Bound(4 * 2**20, fields=100_000)
_AT_ONCE, _ROWS_OF_ONE = 16, 100
_LOOK_SECONDS = 2.0
"""How often a watch checks whether the reason for which a transfer waits has changed."""


class TransferHandlers:
    """Handlers of TransferService."""

    def __init__(
        self,
        transfers: Transfers,
        lists: TransferLists,
        facilities: Facilities,
        imports: WaitingImports,
    ) -> None:
        self._transfers = transfers
        self._lists = lists
        self._facilities = facilities
        self._imports = imports

    def service(self) -> Service:
        """Return the service to serve."""
        handlers = {
            "Send": self._send,
            "SendStudies": self._send_studies,
            "ListTransfers": self._list,
            "WatchTransfers": self._watch,
            "CancelTransfer": self._cancel,
            "DecideOffer": self._decide,
        }
        descriptor = pb.DESCRIPTOR.services_by_name["TransferService"]
        bounds = {"WatchTransfers": _MANY_IDS, "SendStudies": _MANY_IDS}
        return Service(descriptor, handlers, allow_all, bounds)

    def _wire(self, row: Transfer, *, shows_offer: bool = False) -> pb.Transfer:
        name = self._facilities.name_of(row.peer)
        shown = row if shows_offer else replace(row, summary=None)
        delay = self._lists.round_trip_seconds(row)
        return wire.transfer_to_wire(shown, name, delay, self._lists.reason(row))

    async def _send(self, call: Call[None]) -> None:
        request: pb.SendRequest = call.request
        order = await self._order(request, call)
        if not request.study:
            await call.write(pb.SendResponse())
            return
        sent = await self._transfers.send(order)
        await write_list(call, await self._said(sent), "transfers", self._shown(sent))

    async def _send_studies(self, call: Call[None]) -> None:
        """Send many studies: several at once, so that what they write is committed together."""
        request: pb.SendStudiesRequest = call.request
        order = await self._order(request.order, call)
        studies, places = list(request.studies), trio.Semaphore(_AT_ONCE)
        ready = [trio.Event() for _ in studies]
        found: dict[int, list[pb.SendStudiesResponse]] = {}

        async def send(index: int) -> None:
            found[index] = await self._send_one(index, replace(order, study=studies[index]))
            ready[index].set()

        async def begin() -> None:
            for index in range(len(studies)):
                await places.acquire()
                nursery.start_soon(send, index)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            for index, event in enumerate(ready):
                await event.wait()
                for response in found.pop(index):
                    await call.write(response)
                places.release()

    async def _send_one(self, index: int, order: SendOrder) -> list[pb.SendStudiesResponse]:
        try:
            sent = await self._transfers.send(order)
            said, rows = await self._said(sent), list(self._shown(sent))
        except NodeError as exc:
            code = exc.code.value
            return [pb.SendStudiesResponse(index=index, error_code=code, error=str(exc))]
        responses = [pb.SendStudiesResponse(index=index, sent=said)]
        for i in range(0, len(rows), _ROWS_OF_ONE):
            some = pb.SendResponse(transfers=rows[i : i + _ROWS_OF_ONE])
            responses.append(pb.SendStudiesResponse(index=index, sent=some))
        return responses

    async def _order(self, request: pb.SendRequest, call: Call[None]) -> SendOrder:
        peer = await self._facilities.receiver_named(request.facility)
        try:
            priority = Priority[request.priority.upper()] if request.priority else None
        except KeyError as exc:
            raise UsageError("the priority is stat, urgent or routine") from exc
        return SendOrder(
            study=request.study,
            receiver=peer.facility_id,
            seal_key=peer.identity.seal_key,
            recipient=request.recipient if request.HasField("recipient") else None,
            note=request.note if request.HasField("note") else None,
            priority=priority,
            actor=actor_of(call),
            is_again=request.again,
            origin=self._facilities.origin_named(request.origin),
            has_held=request.include_held,
            has_several_patients=request.several_patients,
        )

    def _shown(self, sent: Sent) -> Iterator[pb.Transfer]:
        return map(self._wire, (*sent.added, *sent.known))

    async def _said(self, sent: Sent) -> pb.SendResponse:
        """Return what is said of a study that is on its way, beside its transfers."""
        first = pb.SendResponse(
            known=[str(row.transfer_id) for row in sent.known],
            held_packages=[str(package) for package in sent.held],
            origin=str(sent.origin),
        )
        held = await self._imports.held_of(sent.study_uid, sent.origin)
        first.unfinished_imports.extend(
            await self._imports.unfinished_of(sent.study_uid, sent.origin)
        )
        first.held.extend(wire.held_to_wire(found, {}) for found in held[: wire.MOST_HELD])
        return first

    async def _list(self, call: Call[None]) -> None:
        request: pb.ListTransfersRequest = call.request
        pages = Pages(call, pb.ListTransfersResponse(), "transfers")
        rows = self._lists.search(
            actor_of(call),
            open_only=request.open_only,
            held_only=request.held_only,
            limit=request.limit,
        )
        async with aclosing(rows):
            async for some in rows:
                await pages.add(self._wire(row, shows_offer=True) for row in some)
        await pages.end()

    async def _watch(self, call: Call[None]) -> None:
        wanted = frozenset(call.request.numbers)
        if any(number >= 2**63 for number in wanted):
            raise UsageError("no transfer has such a number")
        with self._lists.subscribed() as changed:
            rows = await self._lists.watched(wanted)
            open_ones: dict[int, tuple[Transfer, str]] = {}

            async def write(row: Transfer) -> None:
                message = self._wire(row)
                open_ones.pop(row.id, None)
                if not row.state.is_final:
                    open_ones[row.id] = (row, message.reason)
                await call.write(pb.WatchTransfersResponse(transfer=message))

            for row in reversed(rows):
                await write(row)
            while True:
                with trio.move_on_after(_LOOK_SECONDS) as waiting:
                    row = await changed.next()
                if not waiting.cancelled_caught:
                    if not wanted or row.id in wanted:
                        await write(row)
                    continue
                # A connection that comes or goes does not change a transfer, but its reason.
                for row, reason in list(open_ones.values()):
                    if self._wire(row).reason != reason:
                        await write(row)

    async def _cancel(self, call: Call[None]) -> pb.CancelTransferResponse:
        row = await self._transfers.cancel(call.request.transfer, actor_of(call))
        return pb.CancelTransferResponse(transfer=self._wire(row))

    async def _decide(self, call: Call[None]) -> pb.DecideOfferResponse:
        row = await self._transfers.decide(
            call.request.transfer,
            accept=call.request.accept,
            reason=call.request.reason,
            actor=actor_of(call),
        )
        return pb.DecideOfferResponse(transfer=self._wire(row))
