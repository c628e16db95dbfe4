"""The manifest as a signed document."""

from collections.abc import Iterable

from emix.documents.v1 import documents_pb2 as pb

from node.documents.bodies import parse_body
from node.documents.signed import Document, DocumentSigner, signed_as
from node.domain.ids import ChunkId, FacilityId, PackageId
from node.domain.manifest import (
    MAX_ABOUT,
    MAX_ATTACHMENTS,
    MAX_CHUNKS,
    MAX_INSTANCES,
    MAX_NEEDS,
    AttachmentEntry,
    ChunkEntry,
    Extent,
    InstanceEntry,
    Manifest,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from node.errors import BadManifest

KIND = "manifest"
MAX_BYTES = 64 * 2**20


def sign_manifest(manifest: Manifest, signer: DocumentSigner) -> Document:
    """Return the manifest as a document signed by this node."""
    return signer.sign(KIND, encode_body(manifest))


def open_manifest(document: Document) -> Manifest:
    """Return the manifest in a document, after verifying that its origin signed it.

    Raises:
        BadManifest: a signature does not verify, it contradicts itself, or its signer is not
            its origin.
    """
    with signed_as(BadManifest):
        facility, _ = document.verify(KIND)
    manifest = decode_body(document.body)
    if manifest.origin != facility:
        raise BadManifest("the manifest is signed by another facility than its origin")
    return manifest


def encode_body(manifest: Manifest) -> bytes:
    """Return the bytes that get signed."""
    return pb.Manifest(
        package_id=manifest.package_id.digest,
        origin=manifest.origin.digest,
        study_instance_uid=manifest.study_instance_uid,
        created_milliseconds=round(manifest.created_time * 1000),
        instances=[_instance_to_wire(instance) for instance in manifest.instances],
        chunks=[
            pb.Chunk(
                number=chunk.number,
                chunk_id=chunk.chunk_id.digest,
                plaintext_bytes=chunk.plaintext_bytes,
                sealed_bytes=chunk.sealed_bytes,
                pieces_digest=chunk.pieces_digest,
            )
            for chunk in manifest.chunks
        ],
        attachments=[
            pb.Attachment(
                media_type=one.media_type,
                size_bytes=one.size_bytes,
                digest=one.digest,
                extents=_extents_to_wire(one.extents),
                about_uids=one.about,
            )
            for one in manifest.attachments
        ],
        needs=manifest.needs,
    ).SerializeToString()


def decode_body(body: bytes) -> Manifest:
    """Return the manifest in signed bytes; `BadManifest` if it contradicts itself."""
    if len(body) > MAX_BYTES:
        raise BadManifest("the manifest is too long")
    wire = parse_body(pb.Manifest, body, "manifest", BadManifest)
    try:
        _check_counts(wire)
        return Manifest(
            package_id=PackageId(wire.package_id),
            origin=FacilityId(wire.origin),
            study_instance_uid=StudyInstanceUID(wire.study_instance_uid),
            created_time=wire.created_milliseconds / 1000,
            instances=tuple(_instance_from_wire(instance) for instance in wire.instances),
            chunks=tuple(
                ChunkEntry(
                    chunk.number,
                    ChunkId(chunk.chunk_id),
                    chunk.plaintext_bytes,
                    chunk.sealed_bytes,
                    chunk.pieces_digest,
                )
                for chunk in wire.chunks
            ),
            attachments=tuple(
                AttachmentEntry(
                    one.media_type,
                    one.size_bytes,
                    one.digest,
                    _extents_from_wire(one.extents),
                    tuple(one.about_uids),
                )
                for one in wire.attachments
            ),
            needs=tuple(wire.needs),
        )
    except ValueError as exc:
        raise BadManifest(f"the manifest is malformed: {exc}") from exc


def _check_counts(wire: pb.Manifest) -> None:
    """Check the numbers of things, before an object is made of each.

    Extents of an entry follow chunks, so there are never many more of them.
    """
    if len(wire.instances) > MAX_INSTANCES or len(wire.chunks) > MAX_CHUNKS:
        raise ValueError("too many instances or chunks for one package")
    if len(wire.attachments) > MAX_ATTACHMENTS:
        raise ValueError("too many attachments for one package")
    if len(wire.needs) > MAX_NEEDS:
        raise ValueError("the package states impossible needs")
    if any(len(attachment.about_uids) > MAX_ABOUT for attachment in wire.attachments):
        raise ValueError("an attachment names too many series or instances")
    extents = sum(len(instance.extents) for instance in wire.instances)
    extents += sum(len(attachment.extents) for attachment in wire.attachments)
    if extents > len(wire.instances) + len(wire.attachments) + len(wire.chunks):
        raise ValueError("more extents than instances, attachments and chunks can have")


def _instance_to_wire(instance: InstanceEntry) -> pb.Instance:
    return pb.Instance(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        size_bytes=instance.size_bytes,
        digest=instance.digest,
        extents=_extents_to_wire(instance.extents),
    )


def _extents_to_wire(extents: Iterable[Extent]) -> list[pb.Extent]:
    return [pb.Extent(chunk_index=e.chunk_index, offset=e.offset, length=e.length) for e in extents]


def _extents_from_wire(extents: Iterable[pb.Extent]) -> tuple[Extent, ...]:
    return tuple(Extent(e.chunk_index, e.offset, e.length) for e in extents)


def _instance_from_wire(wire: pb.Instance) -> InstanceEntry:
    return InstanceEntry(
        SOPClassUID(wire.sop_class_uid),
        SOPInstanceUID(wire.sop_instance_uid),
        SeriesInstanceUID(wire.series_instance_uid),
        TransferSyntaxUID(wire.transfer_syntax_uid),
        wire.size_bytes,
        wire.digest,
        _extents_from_wire(wire.extents),
    )
