"""Relay tickets: two signed halves that join two connections at a relay, once, within a minute."""

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as pb

from node.crypto.signing import SigningKey, network_id, verify
from node.documents.bodies import parse_body
from node.documents.identity import is_endpoint
from node.domain.ids import FacilityId, NodeId
from node.errors import BadSignature, DocumentError

TICKET_SECONDS = 60
MAX_TICKET_BYTES = 2048
TICKET_LENGTH = struct.Struct(">H")
"""At a relay, a connection begins with this length and so many bytes: its half of a ticket."""

LOOK_OUT = 0x8000
"""Added to the length on a second connection with the same half. The relay uses it to ask the node
to leave, since the first connection carries only the peers' bytes once it is joined."""

MOVE = b"\1"
"""Sent on the second connection when the relay is about to stop: use another relay."""

ALIVE = b"\0"
"""Sent on the second connection from time to time before that."""

JOINED = b"\0"
"""Sent to both sides when they are joined; any other bytes are a reason, followed by the end."""

SKEW_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Ticket:
    """One half of a ticket.

    Attributes:
        id: Names both halves, 16 bytes.
        relay: Which relay it is for.
        is_caller: Whether it is the half of the node that asked for it.
    """

    id: bytes
    relay: str
    is_caller: bool
    caller_facility: FacilityId
    caller: NodeId
    target_facility: FacilityId
    target: NodeId
    expires_seconds: int

    @classmethod
    def new(
        cls,
        relay: str,
        caller_facility: FacilityId,
        caller: NodeId,
        target_facility: FacilityId,
        target: NodeId,
        now: float,
    ) -> "Ticket":
        """Return the caller's half of a new ticket."""
        expires = int(now) + TICKET_SECONDS
        return cls(
            secrets.token_bytes(16),
            relay,
            True,
            caller_facility,
            caller,
            target_facility,
            target,
            expires,
        )

    def other_half(self) -> "Ticket":
        """Return the half of the other side."""
        return replace(self, is_caller=not self.is_caller)

    @property
    def facility(self) -> FacilityId:
        """Whose half this is."""
        return self.caller_facility if self.is_caller else self.target_facility


@dataclass(frozen=True, slots=True)
class TicketSigner:
    """A key that may sign tickets, with the network's certificate for it."""

    key: SigningKey
    certificate: documents.SignedBytes

    def sign(self, ticket: Ticket) -> bytes:
        """Return a half as it is shown to the relay."""
        body = pb.Ticket(
            ticket_id=ticket.id,
            relay=ticket.relay,
            is_caller=ticket.is_caller,
            caller_facility=ticket.caller_facility.digest,
            caller_node=ticket.caller.digest,
            target_facility=ticket.target_facility.digest,
            target_node=ticket.target.digest,
            expires_seconds=ticket.expires_seconds,
        ).SerializeToString()
        signed = documents.SignedBytes(body=body, signature=self.key.sign("relay-ticket", body))
        wire = pb.SignedTicket(ticket=signed, ticket_key_cert=self.certificate)
        return wire.SerializeToString()


def read_ticket_signer(key: SigningKey, certificate: bytes) -> TicketSigner:
    """Return what signs tickets with a certificate that `certify_tickets` made.

    Raises:
        DocumentError: these bytes are no such certificate, or another key's.
    """
    signed = parse_body(documents.SignedBytes, certificate, "ticket key")
    if parse_body(pb.TicketKeyCert, signed.body, "ticket key").ticket_key != key.public:
        raise DocumentError("the network certified another ticket key")
    return TicketSigner(key, signed)


def ticket_relays(certificate: bytes) -> tuple[str, ...]:
    """Return the relays that a certificate names; raises as `read_ticket_signer`."""
    signed = parse_body(documents.SignedBytes, certificate, "ticket key")
    return tuple(parse_body(pb.TicketKeyCert, signed.body, "ticket key").relays)


def certify_tickets(
    network_key: SigningKey, ticket_key: bytes, relays: Sequence[str], expires: float
) -> bytes:
    """Return the network's encoded certificate that a key may sign tickets for some relays."""
    body = pb.TicketKeyCert(
        network_id=network_id(network_key.public).digest,
        ticket_key=ticket_key,
        expires_seconds=int(expires),
        relays=relays,
    ).SerializeToString()
    signature = network_key.sign("ticket-key", body)
    return documents.SignedBytes(body=body, signature=signature).SerializeToString()


def open_ticket(
    data: bytes, network_key: bytes, now: float, *, skew_seconds: float = 0.0
) -> Ticket:
    """Return the half in `data`, verified with a network's key.

    Args:
        data: The signed bytes.
        network_key: The network's public key.
        now: The present time.
        skew_seconds: By how much the clock of the opening side may be ahead. A relay allows none,
            since it accepts each half once within its lifetime; for a node a skew is harmless.

    Raises:
        BadSignature: neither the network nor a key that it certified signed it.
        DocumentError: it has expired, or makes no sense.
    """
    if len(data) > MAX_TICKET_BYTES:
        raise DocumentError("the relay ticket is too long")
    wire = parse_body(pb.SignedTicket, data, "relay ticket")
    if wire.SerializeToString() != data:  # it is shown to the relay: no extra bytes are allowed
        raise DocumentError("the relay ticket has unknown fields")
    cert = wire.ticket_key_cert
    verify(network_key, "ticket-key", cert.body, cert.signature)
    certified = parse_body(pb.TicketKeyCert, cert.body, "ticket key")
    if certified.network_id != network_id(network_key).digest or now >= certified.expires_seconds:
        raise BadSignature("the ticket key is of another network, or has expired")
    verify(certified.ticket_key, "relay-ticket", wire.ticket.body, wire.ticket.signature)
    stated = parse_body(pb.Ticket, wire.ticket.body, "relay ticket")
    if not now - skew_seconds < stated.expires_seconds <= now + TICKET_SECONDS + SKEW_SECONDS:
        raise DocumentError("the relay ticket has expired, or the clocks differ too much")
    if stated.relay not in certified.relays:
        raise BadSignature("the network has not named this relay")
    if len(stated.ticket_id) != 16 or not is_endpoint(stated.relay):
        raise DocumentError("the relay ticket is malformed")
    try:
        return Ticket(
            stated.ticket_id,
            stated.relay,
            stated.is_caller,
            FacilityId(stated.caller_facility),
            NodeId(stated.caller_node),
            FacilityId(stated.target_facility),
            NodeId(stated.target_node),
            stated.expires_seconds,
        )
    except ValueError as exc:
        raise DocumentError("the relay ticket names no node") from exc
