"""Packages, chunks and instances as rows. Every function runs inside a caller's transaction."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Protocol

from node.domain.display_text import findable
from node.domain.ids import ChunkId, FacilityId, PackageId
from node.domain.index import (
    IMAGE_KEYWORDS,
    MOST_MODALITIES,
    MOST_SERIES,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    ImageIndex,
    PackageIndex,
)
from node.domain.manifest import (
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
    piece_lengths,
)
from node.domain.packages import Package, PackageState
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.errors import Conflict, NotFound
from node.sql.database import Db
from node.store import patients
from node.store.context import marks
from node.system import clock

_EXTENT = struct.Struct("<3I")

_STUDY_NAMES = (
    "patient_name",
    "patient_id",
    "study_date",
    "study_description",
    "accession_number",
    "birth_date",
    "sex",
    "referring_physician",
    "institution",
    "study_time",
    "study_id",
)
STUDY_COLUMNS = dict(zip(STUDY_KEYWORDS, _STUDY_NAMES, strict=True))
"""Columns for the study attributes, by DICOM keyword; modalities are kept separately."""

_NO_WORDS = frozenset({"StudyTime"})
"""Attributes that are left out of the word search."""

_SERIES_NAMES = (
    "series_number",
    "modality",
    "description",
    "step_start_date",
    "step_start_time",
    "body_part",
)
SERIES_COLUMNS = dict(zip(SERIES_KEYWORDS, _SERIES_NAMES, strict=True))

_IMAGE_NAMES = (
    "instance_number",
    "pixel_rows",
    "pixel_columns",
    "bits_allocated",
    "number_of_frames",
)
IMAGE_COLUMNS = dict(zip(IMAGE_KEYWORDS, _IMAGE_NAMES, strict=True))
_UNKNOWN_IMAGE = ImageIndex()

_PACKAGE = (
    "id, package_id, origin, study_uid, state, epoch, wrapped_key, next_number, created_time,"
    " manifest_digest, received_from, needs"
)


class Images(Protocol):
    """What instances say of themselves, by position."""

    def get(self, position: int, default: ImageIndex, /) -> ImageIndex:
        """Return it; `default` where nothing is known."""


def _package(row: Any) -> Package:
    return Package(
        id=row[0],
        package_id=PackageId(row[1]),
        origin=FacilityId(row[2]),
        study_uid=StudyInstanceUID(row[3]),
        state=PackageState(row[4]),
        epoch=row[5],
        wrapped_key=row[6],
        next_number=row[7],
        created_time=row[8],
        manifest_digest=row[9],
        received_from=FacilityId(row[10]) if row[10] is not None else None,
        needs=tuple(row[11].split()),
    )


def find_packages(db: Db, where: str, args: Sequence[object]) -> list[Package]:
    """Return packages that match an SQL condition written by us."""
    sql = f"SELECT {_PACKAGE} FROM packages WHERE {where} ORDER BY id"
    return [_package(row) for row in db.execute(sql, tuple(args))]


def get_package(db: Db, origin: FacilityId, package_id: PackageId) -> Package | None:
    """Return the package of that name, in whatever state, or None."""
    found = find_packages(db, "origin = ? AND package_id = ?", (origin.digest, package_id.digest))
    return found[0] if found else None


def closed_packages(db: Db, study_uid: StudyInstanceUID, origin: FacilityId) -> list[Package]:
    """Return one origin's closed packages of a study, oldest first."""
    where = "state = 'closed' AND study_uid = ? AND origin = ?"
    return find_packages(db, where, (study_uid, origin.digest))


def add_package(
    db: Db,
    *,
    package_id: PackageId,
    origin: FacilityId,
    study_uid: str,
    state: PackageState,
    epoch: int,
    wrapped_key: bytes,
    received_from: FacilityId | None = None,
    import_id: int | None = None,
    needs: Sequence[str] = (),
) -> int:
    """Add a package and return its row id."""
    cursor = db.execute(
        "INSERT INTO packages (package_id, origin, study_uid, state, epoch, wrapped_key,"
        " created_time, received_from, import_id, needs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            package_id.digest,
            origin.digest,
            study_uid,
            state,
            epoch,
            wrapped_key,
            clock.now(),
            received_from.digest if received_from else None,
            import_id,
            " ".join(needs),
        ),
    )
    return int(cursor.lastrowid or 0)


def set_needs(db: Db, package: int, needs: Sequence[str]) -> None:
    """Record what opening a package's chunks takes; see `Manifest`."""
    db.execute("UPDATE packages SET needs = ? WHERE id = ?", (" ".join(needs), package))


def add_chunks(
    db: Db, package: int, first_position: int, chunks: Iterable[ChunkEntry], *, present: bool
) -> None:
    """Add chunk rows from a position on, and their bytes to the package's."""
    chunks = list(chunks)
    db.execute(
        "UPDATE packages SET sealed_bytes = sealed_bytes + ? WHERE id = ?",
        (sum(c.sealed_bytes for c in chunks), package),
    )
    db.conn.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
        [
            (
                package,
                first_position + i,
                c.number,
                c.chunk_id.digest,
                c.plaintext_bytes,
                c.sealed_bytes,
                c.pieces_digest,
                int(present),
            )
            for i, c in enumerate(chunks)
        ],
    )


def add_instances(
    db: Db,
    package: int,
    first_position: int,
    instances: Iterable[InstanceEntry],
    images: Images = MappingProxyType({}),
) -> None:
    """Add instance rows from a position on, and add their number to the package's total.

    Args:
        db: The transaction's database.
        package: The package's row id.
        first_position: The position of the first instance.
        instances: Their manifest entries.
        images: Their attributes, by position.
    """
    instances = list(instances)
    db.execute(
        "UPDATE packages SET instances = instances + ? WHERE id = ?", (len(instances), package)
    )
    db.conn.executemany(
        "INSERT INTO instances (package, position, sop_instance_uid, sop_class_uid, series_uid,"
        f" transfer_syntax_uid, size_bytes, digest, extents, {', '.join(_IMAGE_NAMES)})"
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {marks(_IMAGE_NAMES)})",
        [
            (
                package,
                first_position + i,
                x.sop_instance_uid,
                x.sop_class_uid,
                x.series_instance_uid,
                x.transfer_syntax_uid,
                x.size_bytes,
                x.digest,
                _packed(x.extents),
                *images.get(first_position + i, _UNKNOWN_IMAGE),
            )
            for i, x in enumerate(instances)
        ],
    )


def add_attachments(
    db: Db, package: int, first_position: int, attachments: Iterable[AttachmentEntry]
) -> None:
    """Add attachment rows from a position on."""
    db.conn.executemany(
        "INSERT INTO attachments VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                package,
                first_position + i,
                x.media_type,
                x.size_bytes,
                x.digest,
                _packed(x.extents),
                " ".join(x.about),
            )
            for i, x in enumerate(attachments)
        ],
    )


def get_attachments(db: Db, package: int, limit: int = -1) -> tuple[AttachmentEntry, ...]:
    """Return a package's attachments by position, or the first of them."""
    sql = (
        "SELECT media_type, size_bytes, digest, extents, about FROM attachments"
        " WHERE package = ? ORDER BY position LIMIT ?"
    )
    return tuple(
        AttachmentEntry(row[0], row[1], row[2], unpack_extents(row[3]), tuple(row[4].split()))
        for row in db.execute(sql, (package, limit))
    )


def _packed(extents: Iterable[Extent]) -> bytes:
    return b"".join(_EXTENT.pack(e.chunk_index, e.offset, e.length) for e in extents)


_CHUNK = "number, chunk_id, plaintext_bytes, sealed_bytes, pieces_digest"
_INSTANCE = (
    "sop_class_uid, sop_instance_uid, series_uid, transfer_syntax_uid, size_bytes, digest, extents"
)


def _chunk(row: Any) -> ChunkEntry:
    return ChunkEntry(row[0], ChunkId(row[1]), *row[2:])


def _instance(row: Any) -> InstanceEntry:
    return InstanceEntry(
        SOPClassUID(row[0]),
        SOPInstanceUID(row[1]),
        SeriesInstanceUID(row[2]),
        TransferSyntaxUID(row[3]),
        row[4],
        row[5],
        unpack_extents(row[6]),
    )


def unpack_extents(kept: bytes) -> tuple[Extent, ...]:
    """Return the extents of an instance's row."""
    return tuple(Extent(*e) for e in _EXTENT.iter_unpack(kept))


def get_chunks(db: Db, package: int) -> tuple[ChunkEntry, ...]:
    """Return a package's chunks by position."""
    sql = f"SELECT {_CHUNK} FROM chunks WHERE package = ? ORDER BY position"
    return tuple(_chunk(row) for row in db.execute(sql, (package,)))


def get_chunks_and_pieces(db: Db, package: int) -> tuple[Sequence[ChunkEntry], list[list[int]]]:
    """Return a package's chunks by position, and for each the lengths of the pieces in it."""
    chunks = get_chunks(db, package)
    return chunks, get_piece_lengths(db, package, len(chunks))


def get_piece_lengths(db: Db, package: int, chunks: int) -> list[list[int]]:
    """Return for each chunk of a package how long the pieces in it are; see `piece_lengths`."""
    return piece_lengths((*get_instances(db, package), *get_attachments(db, package)), chunks)


def chunks_after(db: Db, after: bytes, limit: int) -> list[tuple[ChunkId, bool]]:
    """Return the next chunks by id that any package names, each once, and whether they are here."""
    sql = (
        "SELECT chunk_id, MAX(present) FROM chunks WHERE chunk_id > ?"
        " GROUP BY chunk_id ORDER BY chunk_id LIMIT ?"
    )
    return [(ChunkId(row[0]), bool(row[1])) for row in db.execute(sql, (after, limit))]


def unnamed(db: Db, chunk_ids: Sequence[ChunkId]) -> list[ChunkId]:
    """Return those of some chunks that no package names."""
    sql = f"SELECT chunk_id FROM chunks WHERE chunk_id IN ({marks(chunk_ids)})"
    named = {row[0] for row in db.execute(sql, [chunk_id.digest for chunk_id in chunk_ids])}
    return [chunk_id for chunk_id in chunk_ids if chunk_id.digest not in named]


def get_chunk(db: Db, package: int, position: int) -> ChunkEntry:
    """Return one of a package's chunks; `NotFound` when the package is gone."""
    return _chunk(_one(db, f"SELECT {_CHUNK} FROM chunks", package, position))


def get_instances(db: Db, package: int) -> tuple[InstanceEntry, ...]:
    """Return a package's instances by position."""
    sql = f"SELECT {_INSTANCE} FROM instances WHERE package = ? ORDER BY position"
    return tuple(_instance(row) for row in db.execute(sql, (package,)))


def get_instance(db: Db, package: int, position: int) -> InstanceEntry:
    """Return one of a package's instances; `NotFound` when the package is gone."""
    return _instance(_one(db, f"SELECT {_INSTANCE} FROM instances", package, position))


def _one(db: Db, select: str, package: int, position: int) -> Any:
    where = " WHERE package = ? AND position = ?"
    row = db.execute(select + where, (package, position)).fetchone()
    if row is None:
        raise NotFound("the package was deleted meanwhile")
    return row


def get_manifest(db: Db, package: Package, created_time: float) -> Manifest:
    """Return what a filled package holds, as the value to sign."""
    return Manifest(
        package_id=package.package_id,
        origin=package.origin,
        study_instance_uid=package.study_uid,
        created_time=created_time,
        instances=get_instances(db, package.id),
        chunks=get_chunks(db, package.id),
        attachments=get_attachments(db, package.id),
        needs=package.needs,
    )


def close_package(
    db: Db, package: int, state: PackageState, manifest: bytes, manifest_digest: bytes
) -> None:
    """Make a package immutable, with its signed manifest.

    Raises:
        Conflict: it is not in `state` any more: somebody closed or discarded it meanwhile.
    """
    changed = db.execute(
        "UPDATE packages SET state = 'closed', manifest = ?, manifest_digest = ?, import_id = NULL"
        " WHERE id = ? AND state = ?",
        (manifest, manifest_digest, package, state),
    )
    if changed.rowcount != 1:
        raise Conflict("the package was closed or discarded meanwhile")


def note_looked(db: Db, packages: Iterable[int]) -> None:
    """Note that somebody has looked at packages, exported them or sent them on."""
    now = clock.now()
    for package in packages:
        db.execute(
            "UPDATE packages SET looked_time = ? WHERE id = ? AND received_from IS NOT NULL",
            (now, package),
        )


def used_bytes(db: Db) -> int:
    """Return the bytes of what packages name, and of the manifests in their envelopes."""
    sql = "SELECT SUM(sealed_bytes), SUM(LENGTH(manifest)) FROM packages"
    sealed, manifests = db.execute(sql).fetchone()
    return int(sealed or 0) + int(manifests or 0)


def manifest_document(db: Db, package: int) -> bytes:
    """Return a closed package's encoded manifest document."""
    row = db.execute("SELECT manifest FROM packages WHERE id = ?", (package,)).fetchone()
    if row is None or row[0] is None:
        raise NotFound("the package has no manifest")
    return bytes(row[0])


def merge_index(
    db: Db, package: int, index: PackageIndex, forms: Mapping[str, tuple[str, str]]
) -> None:
    """Merge searchable values of instances into their package's.

    The first value of an attribute wins; modalities accumulate.

    Args:
        db: The transaction's database.
        package: The package's row id.
        index: The values.
        forms: `index.forms()`, computed before the transaction.
    """
    columns = [*STUDY_COLUMNS.values(), "modalities"]
    row = db.execute(
        f"SELECT {', '.join(columns)} FROM study_index WHERE package = ?", (package,)
    ).fetchone()
    old = dict(zip(columns, row or [""] * len(columns), strict=True))
    new = {c: old[c] or index.study.get(k, "") for k, c in STUDY_COLUMNS.items()}
    known = old["modalities"].split()
    added = sorted(index.modalities.difference(known))[: MOST_MODALITIES - len(known)]
    new["modalities"] = " ".join(sorted([*known, *added]))
    _merge_series(db, package, index)
    texts = [
        new[c] for k, c in STUDY_COLUMNS.items() if new[c] != old[c] and k not in _NO_WORDS
    ] + added
    for patient in patients.note(db, package, index.patients):
        texts += patient.words
    _add_words(db, package, map(forms.__getitem__, texts))
    if row and new == old:
        return
    values = {"package": package, **new}
    db.execute(
        f"INSERT OR REPLACE INTO study_index ({', '.join(values)}) VALUES ({marks(list(values))})",
        tuple(values.values()),
    )


def _add_words(db: Db, package: int, found_forms: Iterable[tuple[str, str]]) -> None:
    row = db.execute("SELECT words FROM study_words WHERE package = ?", (package,)).fetchone()
    known = row[0] if row else ""
    words = findable(found_forms, known)
    if row is None or words != known:
        db.execute("INSERT OR REPLACE INTO study_words VALUES (?, ?)", (package, words))


def summary_of(db: Db, package: Package, everybody: tuple[Patient, ...]) -> Summary:
    """Return a package's summary, for the person who is to accept it."""
    row = db.execute(
        "SELECT study_date, study_description, modalities, accession_number FROM study_index"
        " WHERE package = ?",
        (package.id,),
    ).fetchone()
    return Summary(everybody, package.study_uid, *(row or ()))


def _merge_series(db: Db, package: int, index: PackageIndex) -> None:
    columns = list(SERIES_COLUMNS.values())
    kept = ", ".join(f"{c} = CASE WHEN {c} = '' THEN excluded.{c} ELSE {c} END" for c in columns)
    sql = "SELECT series_uid FROM series_index WHERE package = ?"
    known = {row[0] for row in db.execute(sql, (package,))}
    new = islice((uid for uid in index.series if uid not in known), MOST_SERIES - len(known))
    kept_uids = known.union(new)
    db.conn.executemany(
        f"INSERT INTO series_index (package, series_uid, {', '.join(columns)})"
        f" VALUES (?, ?, {marks(columns)}) ON CONFLICT DO UPDATE SET {kept}",
        [
            (package, uid, *(values.get(keyword, "") for keyword in SERIES_COLUMNS))
            for uid, values in index.series.items()
            if uid in kept_uids
        ],
    )
