import dataclasses
from typing import Any

import pytest
from emix.documents.v1 import documents_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.certificates import make_tls_identity
from node.crypto.digests import digest, sha256
from node.crypto.keys import DataKey, SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.delivery import Delivery, check_delivery, open_delivery, sign_delivery
from node.documents.identity import Identity, Profile, make_statements
from node.documents.manifest import decode_body, encode_body, open_manifest, sign_manifest
from node.documents.receipt import Proof, Receipt, sign_receipt
from node.documents.signed import (
    Document,
    DocumentSigner,
    Signer,
    certify_claim,
    certify_node,
    claim_node,
)
from node.domain.ids import ChunkId, TransferId
from node.domain.manifest import (
    MAX_ATTACHMENTS,
    AttachmentEntry,
    ChunkEntry,
    Extent,
    InstanceEntry,
    Manifest,
)
from node.domain.transfers import Priority
from node.errors import (
    BadDataKey,
    BadDelivery,
    BadManifest,
    BadReceipt,
    BadSignature,
    DocumentError,
    ForeignNode,
)

NOW = 1_800_000_000.0


def make_signer() -> DocumentSigner:
    facility, node = SigningKey.new(), SigningKey.new()
    return DocumentSigner(node, certify_node(facility, node, NOW))


A, B, C = make_signer(), make_signer(), make_signer()


def make_manifest(signer: DocumentSigner = A) -> Manifest:
    def instance(n: int, *extents: Extent) -> InstanceEntry:
        size = sum(e.length for e in extents)
        return InstanceEntry(
            "1.2.840.10008.5.1.4.1.1.2",  # type: ignore[arg-type]
            f"1.2.{n}",  # type: ignore[arg-type]
            "1.3",  # type: ignore[arg-type]
            "1.2.840.10008.1.2.1",  # type: ignore[arg-type]
            size,
            digest(bytes([n])),
            extents,
        )

    chunks = tuple(ChunkEntry(n, ChunkId(bytes([n]) * 32), 100, 80, bytes(32)) for n in (1, 2))
    instances = (instance(1, Extent(0, 0, 60)), instance(2, Extent(0, 60, 40), Extent(1, 0, 100)))
    package_id = DataKey.new().package_id
    return Manifest(
        package_id,
        signer.facility_id,
        "1.2.3",  # type: ignore[arg-type]
        NOW,
        instances,
        chunks,
    )


def with_attachments(**changed: object) -> Manifest:
    """Return a manifest with two files that are not DICOM in a chunk of their own."""
    manifest = make_manifest()
    chunk = ChunkEntry(9, ChunkId(bytes([9]) * 32), 70, 60, bytes(32))
    first = AttachmentEntry("application/pdf", 50, bytes(32), (Extent(2, 0, 50),), ("1.2.1", "1.3"))
    second = AttachmentEntry("text/plain", 20, bytes(32), (Extent(2, 50, 20),))
    return dataclasses.replace(
        manifest,
        chunks=(*manifest.chunks, chunk),
        attachments=(dataclasses.replace(first, **changed), second),  # type: ignore[arg-type]
    )


def make_proof() -> tuple[Proof, Delivery, Receipt]:
    manifest = make_manifest()
    document = sign_manifest(manifest, A)
    delivery = Delivery(
        transfer_id=TransferId.new(),
        package_id=manifest.package_id,
        origin=manifest.origin,
        manifest_digest=document.digest(),
        manifest_bytes=len(document.encode()),
        sender=A.facility_id,
        receiver=B.facility_id,
        sealed_key_digest=sha256(b"sealed"),
        created_time=NOW,
        expires_time=NOW + 3600,
        priority=Priority.STAT,
        recipient="Dr. X",
        note="",
        instances=2,
        sealed_bytes=160,
    )
    delivered = sign_delivery(delivery, A)
    receipt = Receipt(
        delivery.transfer_id,
        delivered.digest(),
        document.digest(),
        manifest.package_id,
        B.facility_id,
        2,
        200,
        NOW + 5,
    )
    return Proof(document, delivered, sign_receipt(receipt, B)), delivery, receipt


def test_manifest_comes_back_as_signed() -> None:
    manifest = make_manifest()
    document = Document.decode(sign_manifest(manifest, A).encode())
    assert open_manifest(document) == manifest


def test_attachments_come_back_as_signed() -> None:
    manifest = with_attachments()
    assert open_manifest(Document.decode(sign_manifest(manifest, A).encode())) == manifest
    assert manifest.plaintext_bytes == 270


def test_needs_come_back_as_signed_and_are_plain_words() -> None:
    manifest = dataclasses.replace(make_manifest(), needs=("jpeg-ls", "another-one"))
    assert open_manifest(Document.decode(sign_manifest(manifest, A).encode())) == manifest
    for needs in (("",), ("JPEG",), ("-x",), ("x" * 33,), ("a b",), ("a",) * 9):
        with pytest.raises(ValueError, match="impossible needs"):
            dataclasses.replace(make_manifest(), needs=needs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"media_type": "application/pdf; charset=x"}, "media type"),
        ({"media_type": "PDF"}, "media type"),
        ({"media_type": "../etc/passwd"}, "media type"),
        ({"media_type": ""}, "media type"),
        ({"about": ("1.2.3", "Müller")}, "invalid UID"),
        ({"about": ("1.2",) * 21}, "too many"),
        ({"digest": b""}, "digest"),
        ({"size_bytes": 0, "extents": ()}, "is empty"),
        ({"size_bytes": 49}, "add up"),
        ({"extents": (Extent(1, 0, 50),)}, "overlap"),
        ({"extents": (Extent(3, 0, 50),)}, "outside"),
        ({"size_bytes": 49, "extents": (Extent(2, 0, 49),)}, "gap"),
    ],
)
def test_attachment_that_cannot_be_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_attachments(**changed)


def test_attachments_and_their_extents_are_counted_before_they_are_believed() -> None:
    wire = pb.Manifest.FromString(encode_body(with_attachments()))
    for _ in range(1000):
        wire.attachments[0].extents.add(chunk_index=0, offset=0, length=1)
    with pytest.raises(BadManifest, match="more extents"):
        decode_body(wire.SerializeToString())
    wire = pb.Manifest.FromString(encode_body(with_attachments()))
    for _ in range(MAX_ATTACHMENTS):
        wire.attachments.add()
    with pytest.raises(BadManifest, match="too many attachments"):
        decode_body(wire.SerializeToString())


def test_package_without_anything_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="neither instances nor attachments"):
        dataclasses.replace(make_manifest(), instances=(), chunks=())


def test_manifest_signed_by_another_facility_is_refused() -> None:
    with pytest.raises(BadManifest, match="another facility"):
        open_manifest(sign_manifest(make_manifest(A), C))


def test_document_of_another_kind_or_changed_body_is_refused() -> None:
    document = sign_manifest(make_manifest(), A)
    for changed in (
        dataclasses.replace(document, kind="receipt"),
        dataclasses.replace(document, body=document.body + b"\0"),
        dataclasses.replace(document, signer=C.signer),
    ):
        with pytest.raises(BadManifest):
            open_manifest(changed)


@pytest.mark.parametrize(
    ("extents", "message"),
    [
        ((Extent(0, 1, 200),), "gap"),
        ((Extent(0, 0, 100),), "add up"),
        ((Extent(0, 0, 100), Extent(0, 50, 100)), "overlap"),
        ((Extent(0, 0, 100), Extent(2, 0, 100)), "outside"),
        ((Extent(0, 0, 200), Extent(1, 0, 0)), "outside"),
        ((Extent(0, 0, 110), Extent(1, 0, 90)), "no instance or attachment names"),
    ],
)
def test_manifest_whose_bytes_do_not_tile_is_refused(
    extents: tuple[Extent, ...], message: str
) -> None:
    manifest = make_manifest()
    instance = dataclasses.replace(manifest.instances[0], size_bytes=200, extents=extents)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(manifest, instances=(instance,))


def test_instance_lies_in_chunks_that_follow_each_other() -> None:
    """Jumping to and fro would have a receiver open each chunk again and again."""
    manifest = make_manifest()
    chunk = manifest.chunks[0]
    chunks = tuple(
        dataclasses.replace(chunk, number=n, chunk_id=ChunkId(bytes([n]) * 32), plaintext_bytes=200)
        for n in range(2)
    )
    jumping = tuple(Extent(n % 2, n // 2, 1) for n in range(400))
    instance = dataclasses.replace(manifest.instances[0], size_bytes=400, extents=jumping)
    with pytest.raises(ValueError, match="follow each other"):
        dataclasses.replace(manifest, instances=(instance,), chunks=chunks)


def test_extents_are_counted_before_they_are_believed() -> None:
    wire = pb.Manifest.FromString(encode_body(make_manifest()))
    for _ in range(1000):
        wire.instances[0].extents.add(chunk_index=0, offset=0, length=1)
    with pytest.raises(BadManifest, match="more extents"):
        decode_body(wire.SerializeToString())


@given(st.binary(max_size=300))
def test_junk_raises_only_our_errors(junk: bytes) -> None:
    with pytest.raises(BadManifest):
        decode_body(junk)
    with pytest.raises(DocumentError):
        Identity.decode(junk)
    with pytest.raises(DocumentError):
        Proof.decode(junk)
    with pytest.raises(DocumentError):
        open_manifest(Document.decode(junk))


@given(st.data())
def test_one_changed_byte_of_a_manifest_never_verifies(data: st.DataObject) -> None:
    document = sign_manifest(make_manifest(), A)
    encoded = bytearray(document.encode())
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = Document.decode(bytes(encoded))
        # Unknown fields in the wrapper change nothing that was signed.
        unchanged = changed == document
        open_manifest(changed)
    except DocumentError:
        return
    assert unchanged


def test_body_encoding_round_trips() -> None:
    manifest = make_manifest()
    assert decode_body(encode_body(manifest)) == manifest


def test_proof_verifies_offline_and_every_swap_is_found() -> None:
    proof, _, _ = make_proof()
    manifest, _, receipt = Proof.decode(proof.encode()).verify()
    assert receipt.instances == len(manifest.instances)
    other, _, _ = make_proof()
    for swapped in (
        dataclasses.replace(proof, manifest=other.manifest),
        dataclasses.replace(proof, delivery=other.delivery),
        dataclasses.replace(proof, receipt=other.receipt),
    ):
        with pytest.raises(BadReceipt):
            swapped.verify()


@pytest.mark.parametrize(
    "change",
    [
        {"instances": 3},
        {"plaintext_bytes": 1},
        {"package_id": DataKey.new().package_id},
        {"transfer_id": TransferId(b"\1" * 16)},
        {"delivery_digest": bytes(32)},
        {"manifest_digest": bytes(32)},
    ],
)
def test_receipt_about_something_else_is_refused(change: dict[str, Any]) -> None:
    proof, _, receipt = make_proof()
    wrong = sign_receipt(dataclasses.replace(receipt, **change), B)
    with pytest.raises(BadReceipt):
        dataclasses.replace(proof, receipt=wrong).verify()


def test_receipt_of_a_third_facility_is_refused() -> None:
    proof, _, receipt = make_proof()
    wrong = sign_receipt(dataclasses.replace(receipt, receiver=C.facility_id), C)
    with pytest.raises(BadReceipt, match="another than the delivery's receiver"):
        dataclasses.replace(proof, receipt=wrong).verify()


def test_delivery_is_checked_against_peer_receiver_clock_and_key() -> None:
    proof, delivery, _ = make_proof()
    assert open_delivery(proof.delivery) == delivery
    right: dict[str, Any] = {
        "peer": A.facility_id,
        "me": B.facility_id,
        "sealed_key": b"sealed",
        "now": NOW,
    }
    check_delivery(delivery, **right)
    for wrong, error in (
        ({"peer": C.facility_id}, BadDelivery),
        ({"me": C.facility_id}, BadDelivery),
        ({"now": NOW + 5000}, BadDelivery),
        ({"now": NOW - 5000}, BadDelivery),
        ({"sealed_key": b"other"}, BadDataKey),
    ):
        with pytest.raises(error):
            check_delivery(delivery, **{**right, **wrong})


def make_identity(**change: Any) -> bytes:
    tls = make_tls_identity(A.node_id, NOW)
    parts: dict[str, Any] = {
        "node_key": A.node_key,
        "signer": A.signer,
        "certificates": [tls.certificate_der],
        "seal_key": SealKey.new().public,
        "profile": Profile("Clinic\x1b[31m A", ("host:1",), ("host:2",), int(NOW)),
    }
    return make_statements(**{**parts, **change})


def test_statements_verify_and_names_are_made_printable() -> None:
    identity = Identity.decode(make_identity())
    assert identity.facility_id == A.facility_id
    assert identity.node_id == node_id(A.node_key.public)
    assert identity.profile.display_name == "Clinic?[31m A"
    assert identity.valid_certificates(NOW)
    assert not identity.valid_certificates(NOW + 91 * 86400)


def test_certificate_of_another_node_is_not_taken_for_ones_own() -> None:
    """Whoever could name a victim's certificate would be taken for the victim, or the reverse."""
    for foreign in (
        make_tls_identity(C.node_id, NOW).certificate_der,
        make_tls_identity(A.node_id, NOW).certificate_der + b"\0",
    ):
        with pytest.raises(DocumentError):
            Identity.decode(make_identity(certificates=[foreign]))


@pytest.mark.parametrize("endpoint", ["host", "host:0", "host:99999999999", ":1", "host:x"])
def test_impossible_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(DocumentError):
        Identity.decode(make_identity(profile=Profile("X", (endpoint,))))


def test_statements_signed_by_another_node_key_are_refused() -> None:
    with pytest.raises(BadSignature):
        Identity.decode(make_identity(node_key=C.node_key))
    with pytest.raises(DocumentError):
        Identity.decode(make_identity(certificates=[]))
    with pytest.raises(DocumentError):
        Identity.decode(make_identity(certificates=[b"junk"]))


@pytest.mark.parametrize("part", ["tls_bindings", "seal_key", "profile", "node_cert"])
def test_statement_that_a_node_made_for_another_facility_is_refused(part: str) -> None:
    """The same node key signed it, so only the name in it tells for whom."""
    other = certify_node(SigningKey.new(), A.node_key, NOW)
    mine = pb.Statements.FromString(make_identity())
    theirs = pb.Statements.FromString(make_identity(signer=other))
    mine.ClearField(part)
    mine.MergeFrom(pb.Statements(**{part: getattr(theirs, part)}))
    with pytest.raises(BadSignature):
        Identity.decode(mine.SerializeToString())


def test_node_key_that_does_not_agree_is_certified_by_nobody() -> None:
    facility = SigningKey.new()
    with pytest.raises(BadSignature):
        certify_claim(
            facility, A.node_key.public, claim_node(C.node_key, facility.public), NOW, generation=1
        )
    theirs = pb.NodeCert.FromString(A.signer.node_cert)
    theirs.facility_key = facility.public
    body = theirs.SerializeToString()
    with pytest.raises(ForeignNode, match="not its own"):
        Signer(facility.public, body, facility.sign("node-cert", body)).verified()


def test_manifest_with_one_chunk_number_twice_is_refused() -> None:
    manifest = make_manifest()
    chunks = tuple(dataclasses.replace(c, number=3) for c in manifest.chunks)
    with pytest.raises(ValueError, match="numbers"):
        dataclasses.replace(manifest, chunks=chunks)


def test_chunk_numbers_need_not_rise() -> None:
    """A large instance is sealed between the chunks of small ones."""
    manifest = make_manifest()
    chunks = tuple(dataclasses.replace(c, number=9 - c.number) for c in manifest.chunks)
    dataclasses.replace(manifest, chunks=chunks)
