"""Exchanges heads of audit logs between peers, so that a changed log can be detected.

In every Hello each side gives the head of its own log, and tells which heads of the other's log it
keeps. A given head comes with a proof from the last one told; `node.domain.heads` checks it.
"""

from collections.abc import Sequence
from typing import Protocol

import structlog
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.audit_head import open_head
from node.documents.peers import Peer
from node.domain.audit import DIGEST_BYTES
from node.domain.heads import MAX_LINKS, MOST_REPORTED, GivenHead, Head, KeptHead
from node.domain.ids import FacilityId, NodeId
from node.errors import DocumentError, RemoteProtocolError
from node.rpc.calling import Channel
from node.rpc.limits import RateLimit
from node.rpc.methods import method
from node.rpc.serving import Call

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["ExchangeService"]
_GET_HEADS = method(_SERVICE, "GetAuditHeads", pb.GetAuditHeadsRequest, pb.GetAuditHeadsResponse)
_ASK_SECONDS = 10.0
_ASKED_A_MINUTE = 20
_MOST_LISTED = 24


class HeadBook(Protocol):
    """Stores heads; `node.store.heads` implements it."""

    async def give(self, witness: FacilityId) -> GivenHead:
        """Return the newest head of our log for a witness, with the proof it needs."""

    async def note_reported(self, witness: FacilityId, kept: Sequence[KeptHead]) -> None:
        """Record the heads of our log that a witness keeps, and check the log against them."""

    async def take(self, head: Head, given: GivenHead) -> None:
        """Keep a head that a facility gave of its own log."""

    async def kept(self, facility: FacilityId, node: NodeId) -> list[KeptHead]:
        """Return what is kept of a node's log, the most telling first."""


class Witnessing:
    """Client and server of exchanging heads."""

    def __init__(self, book: HeadBook) -> None:
        self._book = book
        self._asked = RateLimit(_ASKED_A_MINUTE, in_all=10**6)

    async def give(self, peer: FacilityId) -> pb.GivenHead:
        """Return the head of our own log for a Hello to a peer."""
        given = await self._book.give(peer)
        return pb.GivenHead(head=given.encoded, after_sequence=given.after, links=given.links)

    async def report(self, peer: Peer) -> list[pb.KeptHead]:
        """Return the kept heads of a peer's log for a Hello to it."""
        kept = await self._book.kept(peer.facility_id, peer.identity.node_id)
        return [_kept_to_wire(found) for found in kept[:MOST_REPORTED]]

    async def accept(
        self, peer: Peer, given: pb.GivenHead, reported: Sequence[pb.KeptHead]
    ) -> None:
        """Process the heads in a peer's Hello.

        A head's time is not checked: else a node whose clock was ahead once could not connect to
        anybody until that time.

        Raises:
            RemoteProtocolError: a head is malformed, or is not of the log that it must be of.
        """
        kept = [_kept_from_wire(wire) for wire in reported[:MOST_REPORTED]]
        await self._book.note_reported(peer.facility_id, kept)
        if given.head:
            head = _open(given.head)
            if (head.facility, head.node) != (peer.facility_id, peer.identity.node_id):
                raise RemoteProtocolError("the audit head is of another node's log")
            if len(given.links) > MAX_LINKS * DIGEST_BYTES or len(given.links) % DIGEST_BYTES:
                raise RemoteProtocolError("the proof of the audit head is malformed")
            taken = GivenHead(given.head, given.after_sequence, given.links)
            await self._book.take(head, taken)

    async def get_heads(self, call: Call[Peer]) -> pb.GetAuditHeadsResponse:
        """Handle the RPC."""
        peer = call.caller
        self._asked.count(str(peer.facility_id))
        kept = await self._book.kept(peer.facility_id, peer.identity.node_id)
        return pb.GetAuditHeadsResponse(kept_heads=map(_kept_to_wire, kept[:_MOST_LISTED]))

    async def ask(self, peer: FacilityId, channel: Channel) -> None:
        """Ask a peer which heads of our log it keeps, and hold the log against them.

        Raises:
            NodeError: it does not answer in time, or not as it should.
        """
        request = pb.GetAuditHeadsRequest()
        answer = await channel.unary(_GET_HEADS, request, timeout=_ASK_SECONDS)
        kept = [_kept_from_wire(wire) for wire in answer.kept_heads[:_MOST_LISTED]]
        await self._book.note_reported(peer, kept)


def _kept_to_wire(kept: KeptHead) -> pb.KeptHead:
    return pb.KeptHead(
        head=kept.encoded,
        taken_milliseconds=round(kept.taken_time * 1000),
        contradicted=kept.is_contradicted,
    )


def _kept_from_wire(wire: pb.KeptHead) -> KeptHead:
    taken_time = max(0, min(wire.taken_milliseconds, 2**48)) / 1000
    return KeptHead(_open(wire.head), wire.head, taken_time, wire.contradicted)


def _open(encoded: bytes) -> Head:
    try:
        return open_head(encoded)
    except DocumentError as exc:
        raise RemoteProtocolError(str(exc)) from exc
