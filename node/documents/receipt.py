"""The receipt: the receiver's signed confirmation, and the offline proof that it completes."""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Self

from emix.documents.v1 import documents_pb2 as pb

from node.documents.bodies import parse_body
from node.documents.delivery import Delivery, open_delivery
from node.documents.manifest import open_manifest
from node.documents.signed import Document, DocumentSigner, signed_as
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.manifest import Manifest
from node.errors import BadReceipt, DocumentError

KIND = "receipt"
PROOF_FORMAT = "emix-proof/1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receiver's confirmation that it has a whole package: opened, checked, durable."""

    transfer_id: TransferId
    delivery_digest: bytes
    manifest_digest: bytes
    package_id: PackageId
    receiver: FacilityId
    instances: int
    plaintext_bytes: int
    received_time: float
    reissued: bool = False


def sign_receipt(receipt: Receipt, signer: DocumentSigner) -> Document:
    """Return the receipt as a document signed by this node."""
    body = pb.Receipt(
        transfer_id=receipt.transfer_id.value,
        delivery_digest=receipt.delivery_digest,
        manifest_digest=receipt.manifest_digest,
        package_id=receipt.package_id.digest,
        receiver=receipt.receiver.digest,
        instances=receipt.instances,
        plaintext_bytes=receipt.plaintext_bytes,
        received_milliseconds=round(receipt.received_time * 1000),
        reissued=receipt.reissued,
    ).SerializeToString()
    return signer.sign(KIND, body)


def open_receipt(document: Document) -> Receipt:
    """Return the receipt in a document, after verifying that its receiver signed it.

    Raises:
        BadReceipt: a signature does not verify, it is malformed, or its signer is not its
            receiver.
    """
    with signed_as(BadReceipt):
        facility, _ = document.verify(KIND)
    receipt = _decode(document.body)
    if receipt.receiver != facility:
        raise BadReceipt("the receipt is signed by another facility than its receiver")
    return receipt


def check_receipt(
    receipt: Receipt, *, delivery: Delivery, delivery_digest: bytes, manifest: Manifest
) -> None:
    """Check that the delivery's receiver signed the receipt, and that it is for that delivery.

    Raises:
        BadReceipt: it is for another delivery, or from another facility.
    """
    expected = (
        (receipt.receiver, delivery.receiver, "signed by another than the delivery's receiver"),
        (receipt.transfer_id, delivery.transfer_id, "for another transfer"),
        (receipt.delivery_digest, delivery_digest, "for another delivery"),
        (receipt.manifest_digest, delivery.manifest_digest, "for another manifest"),
        (receipt.package_id, delivery.package_id, "for another package"),
        (receipt.instances, len(manifest.instances), "for another number of instances"),
        (receipt.plaintext_bytes, manifest.plaintext_bytes, "for another size"),
    )
    for got, wanted, what in expected:
        if got != wanted:
            raise BadReceipt(f"the receipt is {what}")


def _decode(body: bytes) -> Receipt:
    wire = parse_body(pb.Receipt, body, "receipt", BadReceipt)
    try:
        return Receipt(
            transfer_id=TransferId(wire.transfer_id),
            delivery_digest=wire.delivery_digest,
            manifest_digest=wire.manifest_digest,
            package_id=PackageId(wire.package_id),
            receiver=FacilityId(wire.receiver),
            instances=wire.instances,
            plaintext_bytes=wire.plaintext_bytes,
            received_time=wire.received_milliseconds / 1000,
            reissued=wire.reissued,
        )
    except ValueError as exc:
        raise BadReceipt(f"the receipt is malformed: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Proof:
    """Manifest, delivery and receipt together: what `emix receipts export` writes."""

    manifest: Document
    delivery: Document
    receipt: Document

    def verify(self) -> tuple[Manifest, Delivery, Receipt]:
        """Return what the three say, after verifying each and that they belong together.

        Raises:
            DocumentError: or one of its kinds, for the first thing that is wrong.
        """
        manifest = open_manifest(self.manifest)
        delivery = open_delivery(self.delivery)
        if self.manifest.digest() != delivery.manifest_digest:
            raise BadReceipt("the manifest is not the one that was delivered")
        if (manifest.package_id, manifest.origin) != (delivery.package_id, delivery.origin):
            raise BadReceipt("the delivery names another package than its manifest")
        receipt = open_receipt(self.receipt)
        check_receipt(
            receipt, delivery=delivery, delivery_digest=self.delivery.digest(), manifest=manifest
        )
        return manifest, delivery, receipt

    def encode(self) -> bytes:
        """Return the file's bytes."""
        value = {
            "format": PROOF_FORMAT,
            "manifest": b64encode(self.manifest.encode()).decode(),
            "delivery": b64encode(self.delivery.encode()).decode(),
            "receipt": b64encode(self.receipt.encode()).decode(),
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the proof in a file's bytes; `DocumentError` if it is none."""
        try:
            value = json.loads(data)
            if value["format"] != PROOF_FORMAT:
                raise DocumentError(f"not a proof of format {PROOF_FORMAT}")
            names = ("manifest", "delivery", "receipt")
            return cls(*(Document.decode(b64decode(value[n], validate=True)) for n in names))
        except (ValueError, KeyError, TypeError) as exc:
            raise DocumentError("the file is not an exported receipt, or is damaged") from exc
