"""The content of a package: instances, attachments, and the extents of their bytes in chunks.

These are checked values: a `Manifest` with overlapping, missing or uncovered bytes cannot be
constructed, so code that takes one can rely on it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

from node.domain.ids import DIGEST_BYTES, ChunkId, FacilityId, PackageId
from node.domain.uids import is_loose_uid

StudyInstanceUID = NewType("StudyInstanceUID", str)
SeriesInstanceUID = NewType("SeriesInstanceUID", str)
SOPInstanceUID = NewType("SOPInstanceUID", str)
SOPClassUID = NewType("SOPClassUID", str)
TransferSyntaxUID = NewType("TransferSyntaxUID", str)

MAX_CHUNK_BYTES = 4 * 1024 * 1024
"""The most plaintext that one chunk holds."""

MAX_SEALED_OVERHEAD = 1024
"""The most bytes that sealing adds to a chunk that does not compress."""

_FREE_BYTES, _MAX_RATIO = 4 * 2**30, 256

MAX_INSTANCES = 200_000
MAX_CHUNKS = 250_000
MAX_ATTACHMENTS = 200
MAX_ABOUT = 20
"""Series or instances that one attachment names."""

MAX_NEEDS = 8
_NEED = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
# RFC 6838 4.2, without parameters: what a file is does not depend on them.
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """One chunk as the manifest names it.

    `number` is what it was sealed under. Numbers of abandoned chunks are not used again, and
    a large instance's chunks are sealed between those of others, so numbers have gaps and
    another order than the manifest. `pieces_digest` is the digest of the digests of what the chunk
    holds of each instance or attachment, in order: that of a whole one is in the manifest already.
    """

    number: int
    chunk_id: ChunkId
    plaintext_bytes: int
    sealed_bytes: int
    pieces_digest: bytes


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of an instance's bytes inside one chunk."""

    chunk_index: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class InstanceEntry:
    """One instance: what it is, its digest, and where its bytes lie, in order."""

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    series_instance_uid: SeriesInstanceUID
    transfer_syntax_uid: TransferSyntaxUID
    size_bytes: int
    digest: bytes
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class AttachmentEntry:
    """One file that is not DICOM, such as a report.

    Attributes:
        media_type: What it is, as its origin says (RFC 6838), without parameters, in lower case.
        size_bytes: Its size.
        digest: BLAKE3 of its bytes.
        extents: Where they lie, in order.
        about: UIDs of the series or instances that it is about; none for the whole study.
    """

    media_type: str
    size_bytes: int
    digest: bytes
    extents: tuple[Extent, ...]
    about: tuple[str, ...] = ()

    @property
    def content(self) -> tuple[bytes, str, tuple[str, ...]]:
        """Its identity, independent of where its bytes lie."""
        return self.digest, self.media_type, self.about


@dataclass(frozen=True, slots=True)
class Manifest:
    """A closed package's content, as its origin facility signs it.

    Attributes:
        instances: In the order in which their bytes fill the chunks.
        attachments: Likewise, after the instances.
        needs: Names of the capabilities (`node.domain.capabilities`) that opening its chunks takes
            beyond those of every version.

    Raises:
        ValueError: on construction, if sizes, extents and chunks do not fit together.
    """

    package_id: PackageId
    origin: FacilityId
    study_instance_uid: StudyInstanceUID
    created_time: float
    instances: tuple[InstanceEntry, ...]
    chunks: tuple[ChunkEntry, ...]
    attachments: tuple[AttachmentEntry, ...] = ()
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.instances) > MAX_INSTANCES or len(self.chunks) > MAX_CHUNKS:
            raise ValueError("too many instances or chunks for one package")
        if not self.instances and not self.attachments:
            raise ValueError("the package has neither instances nor attachments")
        _check_uids(self.study_instance_uid, self.instances)
        _check_attachments(self.attachments)
        if len(self.needs) > MAX_NEEDS or not all(map(_NEED.fullmatch, self.needs)):
            raise ValueError("the package states impossible needs")
        _check_chunks(self.chunks)
        _check_coverage((*self.instances, *self.attachments), self.chunks)

    @property
    def plaintext_bytes(self) -> int:
        """The size of all instances and attachments together."""
        instances = sum(instance.size_bytes for instance in self.instances)
        return instances + sum(attachment.size_bytes for attachment in self.attachments)

    @property
    def is_out_of_proportion(self) -> bool:
        """Whether the plaintext is more than any study of that many sealed bytes has.

        *Measured*: CT seals to 45 %, constant images to a few thousandths. Below 4 GiB any ratio is
        accepted.
        """
        return self.plaintext_bytes > _FREE_BYTES + _MAX_RATIO * self.sealed_bytes

    @property
    def sealed_bytes(self) -> int:
        """The size of all chunks as stored and carried."""
        return sum(chunk.sealed_bytes for chunk in self.chunks)


def piece_lengths(
    entries: Sequence[InstanceEntry | AttachmentEntry], chunks: int
) -> list[list[int]]:
    """Return for each chunk how long the pieces in it are, in order; see `ChunkEntry`.

    Args:
        entries: All instances of a package, then all its attachments.
        chunks: How many chunks it has.
    """
    lengths: list[list[int]] = [[] for _ in range(chunks)]
    for entry in entries:
        for extent in entry.extents:
            lengths[extent.chunk_index].append(extent.length)
    return lengths


def _check_uids(study: str, instances: Sequence[InstanceEntry]) -> None:
    """Check that what is called a UID is digits and dots, or is missing where it may be."""
    needed, others = {study}, set[str]()
    for instance in instances:
        needed.add(instance.sop_instance_uid)
        others.update((instance.sop_class_uid, instance.series_instance_uid))
        others.add(instance.transfer_syntax_uid)
    if not all(map(is_loose_uid, needed | (others - {""}))):
        raise ValueError("a UID is too long or malformed")


def _check_attachments(attachments: Sequence[AttachmentEntry]) -> None:
    if len(attachments) > MAX_ATTACHMENTS:
        raise ValueError("too many attachments for one package")
    for attachment in attachments:
        check_attached(attachment.media_type, attachment.about)


def check_attached(media_type: str, about: Sequence[str]) -> None:
    """Check the media type and the referenced UIDs of an attachment.

    Raises:
        ValueError: one of them is invalid.
    """
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise ValueError("an attachment's media type is malformed")
    if len(about) > MAX_ABOUT or not all(map(is_loose_uid, about)):
        raise ValueError("an attachment names too many series or instances, or an invalid UID")


def _check_chunks(chunks: Sequence[ChunkEntry]) -> None:
    seen = set()
    numbers = {chunk.number for chunk in chunks}
    if len(numbers) != len(chunks) or any(not 0 <= n < 2**32 for n in numbers):
        raise ValueError("chunk numbers must be different")
    for chunk in chunks:
        if not 0 < chunk.plaintext_bytes <= MAX_CHUNK_BYTES:
            raise ValueError("a chunk's plaintext size is out of bounds")
        if not 0 < chunk.sealed_bytes <= MAX_CHUNK_BYTES + MAX_SEALED_OVERHEAD:
            raise ValueError("a chunk's sealed size is out of bounds")
        if len(chunk.pieces_digest) != DIGEST_BYTES:
            raise ValueError("a chunk's digest has the wrong length")
        if chunk.chunk_id in seen:
            raise ValueError("a chunk is named twice")
        seen.add(chunk.chunk_id)


def _check_coverage(
    entries: Sequence[InstanceEntry | AttachmentEntry], chunks: Sequence[ChunkEntry]
) -> None:
    """Check that extents tile every chunk: no byte belongs to two entries or to none."""
    # Each chunk is filled from its start, in the order of the entries.
    filled = [0] * len(chunks)
    for entry in entries:
        if not entry.extents or entry.size_bytes <= 0:
            raise ValueError("an instance or attachment is empty")
        if len(entry.digest) != DIGEST_BYTES:
            raise ValueError("an instance's or attachment's digest has the wrong length")
        if sum(extent.length for extent in entry.extents) != entry.size_bytes:
            raise ValueError("an instance's or attachment's extents do not add up to its size")
        for extent in entry.extents:
            if not 0 <= extent.chunk_index < len(chunks) or extent.length <= 0:
                raise ValueError("an extent lies outside the package")
            if extent.offset != filled[extent.chunk_index]:
                raise ValueError("extents overlap or leave a gap")
            filled[extent.chunk_index] += extent.length
        indexes = [extent.chunk_index for extent in entry.extents]
        if indexes != [*range(indexes[0], indexes[0] + len(indexes))]:
            raise ValueError("an instance's bytes do not lie in chunks that follow each other")
    if any(n != chunk.plaintext_bytes for n, chunk in zip(filled, chunks, strict=True)):
        raise ValueError("a chunk has bytes that no instance or attachment names")
