"""Client of the peer service on one connection: Hello, watch, transfers.

`supervisor` makes the connections; `peer_service` is the server side.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.peers import Peer
from node.domain.connections import Route
from node.domain.display_text import printable
from node.domain.ids import FacilityId, TransferId
from node.errors import PeerTimeout, PeerUnreachable, ungrouped
from node.federation.connections.capabilities import Capabilities
from node.federation.connections.connection import Connection
from node.federation.connections.deletions import DeletionReports
from node.federation.connections.link import SILENCE_SECONDS, GrpcLink, open_link
from node.federation.connections.list_exchange import LIST, Compared, ListExchange
from node.federation.connections.peer_service import (
    PROTOCOL_VERSION,
    PeerStatements,
    Statements,
    check_clock,
    take_statements,
)
from node.federation.connections.wire import CARRY
from node.federation.connections.wire import transfer_id as transfer_id_of
from node.federation.connections.witnessing import Witnessing
from node.federation.routes.race import CONNECT_SECONDS
from node.rpc.calling import Channel
from node.rpc.methods import method
from node.version import SOFTWARE

_SERVICE = pb.DESCRIPTOR.services_by_name["ExchangeService"]
_HELLO = method(_SERVICE, "Hello", pb.HelloRequest, pb.HelloResponse)
_WATCH = method(_SERVICE, "Watch", pb.WatchRequest, pb.WatchResponse)
_CARRY = method(_SERVICE, "Carry", pb.CarryRequest, pb.CarryResponse, answer=CARRY)

LARGEST_ANSWER = max(CARRY.size, LIST.size)
"""Of a peer."""

HELLO_SECONDS = 15.0
_MAX_COLLECTS = 8


class PeerClient:
    """Calls the peer service of peers."""

    def __init__(
        self,
        peer_statements: PeerStatements,
        statements: Statements,
        list_exchange: ListExchange,
        witnessing: Witnessing,
        deletions: DeletionReports,
        capabilities: Capabilities,
    ) -> None:
        """Prepare.

        Args:
            peer_statements: Accepts new statements of peers.
            statements: Returns our own present statements.
            list_exchange: Passes networks' lists on.
            witnessing: Exchanges heads of audit logs.
            deletions: Exchanges reports of deletions.
            capabilities: Keeps the capabilities of peers.
        """
        self._capabilities = capabilities
        self._deletions = deletions
        self._witnessing = witnessing
        self._peer_statements = peer_statements
        self._statements = statements
        self._list_exchange = list_exchange

    async def hello(
        self,
        peer: Peer,
        channel: Channel,
        connection: Connection,
        seconds: float = CONNECT_SECONDS,
    ) -> Sequence[pb.KnownList]:
        """Say Hello; return which lists the peer has.

        Raises:
            NodeError: the peer does not answer in time, or not as it should.
        """
        request = pb.HelloRequest(
            min_version=PROTOCOL_VERSION,
            max_version=PROTOCOL_VERSION,
            time_milliseconds=time.time_ns() // 1_000_000,
            software=SOFTWARE,
            statements=self._statements(),
            lists=self._list_exchange.known(peer.facility_id),
            audit_head=await self._witnessing.give(peer.facility_id),
            kept_heads=await self._witnessing.report(peer),
            deletions=await self._deletions.give(peer.facility_id),
            confirmed_deletions=self._deletions.confirmations(peer.facility_id),
            capabilities=self._capabilities.ours,
        )
        started = trio.current_time()
        response = await channel.unary(_HELLO, request, timeout=seconds)
        connection.round_trip_seconds = trio.current_time() - started
        check_clock(peer.facility_id, response.time_milliseconds)
        self._capabilities.note(peer.facility_id, response.capabilities)
        connection.software = printable(response.software[:64])
        await self._peer_statements.note_seen(peer.facility_id)
        await take_statements(self._peer_statements, peer.facility_id, response.statements)
        await self._witnessing.accept(peer, response.audit_head, response.kept_heads)
        await self._deletions.answered(
            peer.facility_id, response.deletions, response.confirmed_deletions
        )
        return list(response.lists)

    async def keep_saying_hello(
        self,
        peer: Peer,
        channel: Channel,
        connection: Connection,
        lists: Sequence[pb.KnownList],
    ) -> None:
        """Say it again and again, for ever; pass on the lists that one side lacks.

        Raises:
            NodeError: as `hello`, but for an answer that takes long.
        """
        compared = Compared()
        while True:
            await self._list_exchange.compare(peer.facility_id, channel, lists, compared)
            await trio.sleep(HELLO_SECONDS)
            # On a slow line a Hello waits behind megabytes of chunks. gRPC's pings and the watch
            # detect a lost peer.
            with suppress(PeerTimeout):
                lists = await self.hello(peer, channel, connection, SILENCE_SECONDS)

    async def watch(
        self,
        channel: Channel,
        collect: Callable[[TransferId], Awaitable[None]],
        decided: Callable[[TransferId], None],
    ) -> None:
        """Watch a peer, for ever: collect the transfers that it reports, a few at a time.

        Its reports of decisions about our offers are passed to `decided`.

        Raises:
            NodeError: the peer ends it, or has gone silent.
        """
        collecting: set[TransferId] = set()

        async def collect_one(transfer_id: TransferId) -> None:
            try:
                await collect(transfer_id)
            finally:
                collecting.discard(transfer_id)

        async with (
            trio.open_nursery() as nursery,
            channel.stream(_WATCH, pb.WatchRequest()) as stream,
        ):
            while True:
                with trio.move_on_after(SILENCE_SECONDS) as waiting:
                    message = await stream.read()
                if waiting.cancelled_caught:
                    raise PeerTimeout("the other side has gone silent")
                if message is None:
                    raise PeerUnreachable("the other side ended the watch")
                if message.decided_transfer_id:
                    decided(transfer_id_of(message.decided_transfer_id))
                if message.transfer_id:
                    transfer_id = transfer_id_of(message.transfer_id)
                    if transfer_id not in collecting and len(collecting) < _MAX_COLLECTS:
                        collecting.add(transfer_id)
                        nursery.start_soon(collect_one, transfer_id)

    @asynccontextmanager
    async def carry(
        self, peer: FacilityId, channel: Channel, route: Route
    ) -> AsyncGenerator[GrpcLink]:
        """Open a link for one transfer, for the time of the block."""
        with ungrouped():
            async with channel.stream(_CARRY) as stream:
                link = GrpcLink(peer, route, stream.read_bytes, stream.write, self._capabilities.of)
                async with open_link(link):
                    yield link
                    await stream.done_writing()
