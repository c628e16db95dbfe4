"""The delivery: a sender's signed promise of a package to one receiver."""

from dataclasses import dataclass

from emix.documents.v1 import documents_pb2 as pb

from node.crypto.digests import sha256
from node.documents.bodies import parse_body
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS, Document, DocumentSigner, signed_as
from node.documents.summary import MAX_SEALED_BYTES
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.transfers import Priority
from node.errors import BadDataKey, BadDelivery
from node.system.clock import shown_seconds

KIND = "delivery"
MAX_TEXT = 2000
MAX_BODY_BYTES = 32 * 1024
MAX_LIFE_SECONDS = 400 * 86400.0
"""For so long a delivery can stand."""

MAX_STANDING_SECONDS = 30 * 86400.0
"""For how long a receiver accepts a delivery, whatever it states; its row is kept so long."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a sender promises.

    Attributes:
        manifest_digest: Of the manifest's document; `manifest_bytes` is its encoded length.
        sealed_key_digest: SHA-256 of the data key as sealed to the receiver.
        created_time: Seconds since 1970, as `expires_time`.
        recipient: For whom at the receiver; may be empty.
        note: The sender's note; may be empty; may hold patient data.
        instances: The number of instances; like `sealed_bytes`, for the receiver's decision.
        sealed_summary: See `node.documents.summary`; empty for none.
    """

    transfer_id: TransferId
    package_id: PackageId
    origin: FacilityId
    manifest_digest: bytes
    manifest_bytes: int
    sender: FacilityId
    receiver: FacilityId
    sealed_key_digest: bytes
    created_time: float
    expires_time: float
    priority: Priority
    recipient: str
    note: str
    instances: int
    sealed_bytes: int
    sealed_summary: bytes = b""

    @property
    def stands_until(self) -> float:
        """Until when a receiver accepts it; later it is refused even if no row of it is left."""
        return min(self.expires_time, self.created_time + MAX_STANDING_SECONDS)


def sign_delivery(delivery: Delivery, signer: DocumentSigner) -> Document:
    """Return the delivery as a document signed by this node."""
    body = pb.Delivery(
        transfer_id=delivery.transfer_id.value,
        package_id=delivery.package_id.digest,
        origin=delivery.origin.digest,
        manifest_digest=delivery.manifest_digest,
        manifest_bytes=delivery.manifest_bytes,
        sender=delivery.sender.digest,
        receiver=delivery.receiver.digest,
        sealed_key_digest=delivery.sealed_key_digest,
        created_milliseconds=round(delivery.created_time * 1000),
        expires_milliseconds=round(delivery.expires_time * 1000),
        priority=int(delivery.priority),
        recipient=delivery.recipient,
        note=delivery.note,
        instances=delivery.instances,
        sealed_bytes=delivery.sealed_bytes,
        sealed_summary=delivery.sealed_summary,
    ).SerializeToString()
    return signer.sign(KIND, body)


def open_delivery(document: Document) -> Delivery:
    """Return the delivery in a document, after verifying that its sender signed it.

    Raises:
        BadDelivery: a signature does not verify, it is malformed, or its signer is not its
            sender.
    """
    with signed_as(BadDelivery):
        facility, _ = document.verify(KIND)
    delivery = _decode(document.body)
    if delivery.sender != facility:
        raise BadDelivery("the delivery is signed by another facility than its sender")
    return delivery


def check_delivery(
    delivery: Delivery, *, peer: FacilityId, me: FacilityId, sealed_key: bytes, now: float
) -> None:
    """Check that a delivery from a peer is that peer's promise to us, and stands now.

    Raises:
        BadDelivery: another facility sent it, it is for another receiver, has expired, or is dated
            in the future.
        BadDataKey: the accompanying sealed key is not the one that it names.
    """
    if delivery.sender != peer:
        raise BadDelivery("the delivery is not from the peer that presents it")
    if delivery.receiver != me:
        raise BadDelivery("the delivery is to another facility")
    if now > delivery.stands_until + MAX_CLOCK_SKEW_SECONDS:
        raise BadDelivery("the delivery has expired")
    if delivery.created_time > now + MAX_CLOCK_SKEW_SECONDS:
        ahead = shown_seconds(delivery.created_time - now)
        raise BadDelivery(
            f"the delivery was signed {ahead} ahead of this node's clock: one of the two clocks is"
            " wrong; correct it (NTP)"
        )
    if sha256(sealed_key) != delivery.sealed_key_digest:
        raise BadDataKey("the sealed key is not the one that the delivery names")


def _decode(body: bytes) -> Delivery:
    if len(body) > MAX_BODY_BYTES:
        raise BadDelivery("the delivery is too long")
    wire = parse_body(pb.Delivery, body, "delivery", BadDelivery)
    try:
        delivery = Delivery(
            transfer_id=TransferId(wire.transfer_id),
            package_id=PackageId(wire.package_id),
            origin=FacilityId(wire.origin),
            manifest_digest=wire.manifest_digest,
            manifest_bytes=wire.manifest_bytes,
            sender=FacilityId(wire.sender),
            receiver=FacilityId(wire.receiver),
            sealed_key_digest=wire.sealed_key_digest,
            created_time=wire.created_milliseconds / 1000,
            expires_time=wire.expires_milliseconds / 1000,
            priority=Priority(wire.priority),
            recipient=wire.recipient,
            note=wire.note,
            instances=wire.instances,
            sealed_bytes=wire.sealed_bytes,
            sealed_summary=wire.sealed_summary,
        )
    except ValueError as exc:
        raise BadDelivery(f"the delivery is malformed: {exc}") from exc
    if len(delivery.recipient) > MAX_TEXT or len(delivery.note) > MAX_TEXT:
        raise BadDelivery("the recipient or the note is too long")
    if len(delivery.sealed_summary) > MAX_SEALED_BYTES:
        raise BadDelivery("the summary is too long")
    if max(delivery.sealed_bytes, delivery.instances, delivery.manifest_bytes) >= 2**50:
        raise BadDelivery("the delivery's counts or sizes are out of bounds")
    if (
        not delivery.created_time
        <= delivery.expires_time
        < delivery.created_time + MAX_LIFE_SECONDS
    ):
        raise BadDelivery("the delivery's validity is not 0 to 400 days")
    return delivery
