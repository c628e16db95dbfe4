"""Rows of packages say what the manifest will say, and what lists and quotas count by."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.domain.ids import ChunkId, FacilityId, PackageId
from node.domain.index import MOST_MODALITIES, MOST_SERIES, ImageIndex, PackageIndex
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
)
from node.domain.packages import Package, PackageState
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.errors import Conflict, NotFound
from node.sql.database import Db
from node.store import package_rows
from tests.support.stores import new_rows

ME, PEER = FacilityId(digest(b"me")), FacilityId(digest(b"peer"))
STUDY = StudyInstanceUID("1.2")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with new_rows(tmp_path) as db:
        yield db


def add(
    db: Db,
    name: bytes = b"1",
    *,
    origin: FacilityId = ME,
    study: str = STUDY,
    state: PackageState = PackageState.OPEN,
    received_from: FacilityId | None = None,
) -> Package:
    row = package_rows.add_package(
        db,
        package_id=PackageId(digest(name)),
        origin=origin,
        study_uid=study,
        state=state,
        epoch=3,
        wrapped_key=b"wrapped",
        received_from=received_from,
    )
    return package_rows.find_packages(db, "id = ?", (row,))[0]


def chunk(number: int, size: int) -> ChunkEntry:
    name = digest(b"sealed" + bytes([number]))
    return ChunkEntry(number, ChunkId(name), size, size + 10, digest(bytes([number])))


def instance(number: int, *extents: Extent) -> InstanceEntry:
    return InstanceEntry(
        SOPClassUID("1.2.840.1"),
        SOPInstanceUID(f"1.2.1.{number}"),
        SeriesInstanceUID("1.2.1"),
        TransferSyntaxUID("1.2.840.2"),
        sum(extent.length for extent in extents),
        digest(b"instance" + bytes([number])),
        extents,
    )


CHUNKS = (chunk(4, 10), chunk(7, 10), chunk(2, 5))
INSTANCES = (instance(1, Extent(0, 0, 8)), instance(2, Extent(0, 8, 2), Extent(1, 0, 10)))
ATTACHMENTS = (
    AttachmentEntry("text/plain", 3, digest(b"a"), (Extent(2, 0, 3),), ("1.2.1", "1.2.2")),
    AttachmentEntry("application/pdf", 2, digest(b"b"), (Extent(2, 3, 2),)),
)


def fill(db: Db, package: Package) -> None:
    """Record what `CHUNKS` and the others name, in two batches."""
    package_rows.add_chunks(db, package.id, 0, CHUNKS[:1], present=True)
    package_rows.add_instances(db, package.id, 0, INSTANCES[:1])
    package_rows.add_chunks(db, package.id, 1, CHUNKS[1:], present=False)
    package_rows.add_instances(db, package.id, 1, INSTANCES[1:], {1: ImageIndex(5, 64, 32)})
    package_rows.add_attachments(db, package.id, 0, ATTACHMENTS)


def close(db: Db, package: Package, state: PackageState = PackageState.OPEN) -> None:
    package_rows.close_package(db, package.id, state, b"manifest", digest(b"manifest"))


def test_manifest_says_what_was_recorded(db: Db) -> None:
    package = add(db)
    fill(db, package)
    expected = Manifest(package.package_id, ME, STUDY, 5.0, INSTANCES, CHUNKS, ATTACHMENTS)
    assert package_rows.get_manifest(db, package, 5.0) == expected
    assert package_rows.get_chunk(db, package.id, 2) == CHUNKS[2]
    assert package_rows.get_instance(db, package.id, 1) == INSTANCES[1]
    assert package_rows.get_attachments(db, package.id, 1) == ATTACHMENTS[:1]


def test_what_an_instance_says_of_itself_stands_at_its_position(db: Db) -> None:
    fill(db, add(db))
    columns = package_rows.IMAGE_COLUMNS.values()
    found = db.query("SELECT * FROM instances ORDER BY position")
    said = [ImageIndex(*(row[column] for column in columns)) for row in found]
    assert said == [ImageIndex(), ImageIndex(5, 64, 32)]


def test_package_is_one_origins_and_has_what_was_said_of_it(db: Db) -> None:
    mine = add(db)
    theirs = add(db, origin=PEER, received_from=PEER, state=PackageState.ARRIVING)
    name = PackageId(digest(b"1"))
    assert package_rows.get_package(db, ME, name) == mine
    assert package_rows.get_package(db, PEER, name) == theirs
    assert package_rows.get_package(db, PEER, PackageId(digest(b"2"))) is None
    assert (mine.received_from, theirs.received_from) == (None, PEER)
    assert (mine.epoch, mine.wrapped_key, mine.next_number) == (3, b"wrapped", 0)


def test_sums_stand_with_the_package(db: Db) -> None:
    package = add(db)
    fill(db, package)
    sealed = sum(c.sealed_bytes for c in CHUNKS)
    sums = db.execute("SELECT sealed_bytes, instances FROM packages").fetchone()
    assert tuple(sums) == (sealed, 2)
    assert package_rows.used_bytes(db) == sealed
    close(db, package)
    assert package_rows.used_bytes(db) == sealed + len(b"manifest")


def test_nothing_uses_no_bytes(db: Db) -> None:
    assert package_rows.used_bytes(db) == 0


def test_package_is_closed_once_and_from_where_it_was(db: Db) -> None:
    number = db.execute("INSERT INTO imports VALUES (7, '', '', 0, '')").lastrowid
    package = add(db)
    db.execute("UPDATE packages SET import_id = ?", (number,))
    with pytest.raises(Conflict):
        close(db, package, PackageState.HELD)
    with pytest.raises(NotFound):
        package_rows.manifest_document(db, package.id)
    close(db, package)
    with pytest.raises(Conflict):
        close(db, package)
    assert package_rows.manifest_document(db, package.id) == b"manifest"
    assert db.execute("SELECT import_id FROM packages").fetchone()[0] is None
    (found,) = package_rows.closed_packages(db, STUDY, ME)
    assert (found.id, found.manifest_digest) == (package.id, digest(b"manifest"))


def test_only_closed_packages_of_that_origin_and_study_are_a_study(db: Db) -> None:
    packages = [
        add(db, b"1"),
        add(db, b"2"),
        add(db, b"3", origin=PEER),
        add(db, b"4", study="1.2.3"),
    ]
    for package in packages:
        close(db, package)
    add(db, b"5")
    assert package_rows.closed_packages(db, STUDY, ME) == [
        *package_rows.find_packages(db, "id IN (?, ?)", (packages[0].id, packages[1].id))
    ]


def test_chunks_are_listed_once_and_are_here_where_any_package_has_them(db: Db) -> None:
    for name, present in ((b"1", False), (b"2", True)):
        package_rows.add_chunks(db, add(db, name).id, 0, CHUNKS[:2], present=present)
    package_rows.add_chunks(db, add(db, b"3").id, 0, CHUNKS[2:], present=False)
    here = {c.chunk_id: c is not CHUNKS[2] for c in CHUNKS}
    expected = sorted(here.items(), key=lambda pair: pair[0].digest)
    first = package_rows.chunks_after(db, b"", 2)
    rest = package_rows.chunks_after(db, first[-1][0].digest, 2)
    assert (first, rest) == (expected[:2], expected[2:])
    other = ChunkId(digest(b"another"))
    assert package_rows.unnamed(db, [CHUNKS[0].chunk_id, other]) == [other]
    assert package_rows.unnamed(db, []) == []


def test_what_is_gone_is_not_found(db: Db) -> None:
    package = add(db)
    fill(db, package)
    db.execute("DELETE FROM packages")
    for get in (package_rows.get_chunk, package_rows.get_instance):
        with pytest.raises(NotFound, match="deleted meanwhile"):
            get(db, package.id, 0)
    with pytest.raises(NotFound):
        package_rows.manifest_document(db, package.id)


def test_only_what_came_from_others_is_noted_as_looked_at(db: Db) -> None:
    mine, theirs = add(db), add(db, b"2", received_from=PEER)
    add(db, b"3", received_from=PEER)
    package_rows.note_looked(db, [mine.id, theirs.id])
    looked = db.execute("SELECT id FROM packages WHERE looked_time IS NOT NULL").fetchall()
    assert [row[0] for row in looked] == [theirs.id]


def merge(db: Db, package: Package, *indexes: Mapping[str, str]) -> None:
    index = PackageIndex.of(indexes)
    package_rows.merge_index(db, package.id, index, index.forms())


def test_first_word_stands_and_modalities_add_over_batches(db: Db) -> None:
    package = add(db)
    first = {"PatientName": "Müller^Jörg", "PatientID": "P1", "Modality": "MR", "StudyTime": "0815"}
    merge(db, package, first)
    merge(db, package, {"PatientID": "P2", "StudyDescription": "Thorax", "Modality": "CT"})
    (row,) = db.query("SELECT * FROM study_index")
    assert (row["patient_id"], row["study_description"]) == ("P1", "Thorax")
    assert (row["study_time"], row["modalities"]) == ("0815", "CT MR")
    words = db.execute("SELECT words FROM study_words").fetchone()[0]
    for word in ("muller", "p1", "p2", "thorax", "mr", "ct"):
        assert word in words
    assert "0815" not in words, "nobody means a time by a word"
    told = package_rows.summary_of(db, package, (Patient("x"),))
    assert told == Summary((Patient("x"),), STUDY, "", "Thorax", "CT MR", "")


def test_series_keep_what_was_said_first_and_learn_the_rest(db: Db) -> None:
    package = add(db)
    merge(db, package, {"SeriesInstanceUID": "1.2.1", "Modality": "CT"})
    merge(db, package, {"SeriesInstanceUID": "1.2.1", "Modality": "MR", "SeriesNumber": "7"})
    (row,) = db.query("SELECT * FROM series_index")
    assert (row["series_uid"], row["modality"], row["series_number"]) == ("1.2.1", "CT", "7")


def test_modalities_and_series_are_bounded_over_batches(db: Db) -> None:
    package = add(db)
    for batch in range(2):
        index = PackageIndex(
            modalities={f"M{batch}{n}" for n in range(MOST_MODALITIES - 1)},
            series={f"1.{batch}.{n}": {"Modality": "CT"} for n in range(MOST_SERIES - 1)},
        )
        package_rows.merge_index(db, package.id, index, index.forms())
    modalities = db.execute("SELECT modalities FROM study_index").fetchone()[0].split()
    assert len(modalities) == MOST_MODALITIES
    assert {f"M0{n}" for n in range(MOST_MODALITIES - 1)} < set(modalities), "the first stay"
    assert db.execute("SELECT COUNT(*) FROM series_index").fetchone()[0] == MOST_SERIES


def test_package_of_which_nothing_is_known_has_an_empty_summary(db: Db) -> None:
    assert package_rows.summary_of(db, add(db), ()) == Summary((), STUDY)
