"""The builder of the DICOMDIR: every file is listed as what it is, or named with a reason."""

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
from pydicom import dcmread, uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.fileset import FileSet

from node.dicom import dicomdir, file_set, records
from node.dicom.dicomdir import NoDicomdir, Unlisted, dicomdir_of_zip, write_dicomdir
from node.dicom.stream import Refused
from node.errors import StoreError
from tests.support.dicom_files import encode, make_dataset, make_instance

_ODD = {
    "a date that is none": (0x00080020, "AT", 0x5C5C5C5C),
    "a title that is numbers": (0x00081030, "FD", [1.0, 2.0]),
    "a number without an end": (0x00200013, "FD", float("inf")),
    "a time that is a number": (0x00080030, "FD", 1.5),
}
"""Values in other types than their elements have."""


def odd_file(study: int, instance: int, odd: tuple[int, str, object]) -> bytes:
    ds = make_dataset(study, instance)
    ds.add_new(*odd)
    return encode(ds)


def exported(folder: Path, files: list[bytes], name: str = "IM") -> Path:
    (folder / "SE000001").mkdir(exist_ok=True)
    for n, data in enumerate(files, 1):
        (folder / "SE000001" / f"{name}{n:06d}").write_bytes(data)
    return folder


def bytes_of(folder: Path) -> set[bytes]:
    return {p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR"}


def leaves_of(folder: Path) -> list[Dataset]:
    """Return the records of files, as pydicom finds them by their offsets."""
    file_set = FileSet(folder / "DICOMDIR")
    found = [instance.node._record for instance in file_set]
    for record in found:
        path = folder.joinpath(*record.ReferencedFileID)
        assert dcmread(path).SOPInstanceUID == record.ReferencedSOPInstanceUIDInFile
    file_set._stage["t"].cleanup()  # pydicom leaves it to the garbage collector
    return found


def levels_of(folder: Path) -> list[str]:
    sequence = dcmread(folder / "DICOMDIR").DirectoryRecordSequence
    return [record.DirectoryRecordType for record in sequence]


def of_class(sop_class: str, n: int = 1) -> FileDataset:
    """Return an instance without pixels."""
    ds = make_dataset(1, n)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.UID(sop_class)
    for keyword in ("PixelData", "Rows", "Columns", "SamplesPerPixel"):
        del ds[keyword]
    return ds


def _code(meaning: str) -> list[Dataset]:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "126000", "DCM", meaning
    return [code]


_VALUES: dict[str, object] = {
    "ContentDate": "20261124",
    "ContentTime": "101500",
    "ContentLabel": "LABEL",
    "PresentationCreationDate": "20261123",
    "PresentationCreationTime": "091500",
    "DoseSummationType": "PLAN",
    "StructureSetLabel": "organs",
    "RTPlanLabel": "first",
    "CompletionFlag": "COMPLETE",
    "VerificationFlag": "VERIFIED",
    "ImageType": ["ORIGINAL", "PRIMARY", "SPECTROSCOPY"],
    "NumberOfFrames": 1,
    "Rows": 2,
    "Columns": 3,
    "DataPointRows": 1,
    "DataPointColumns": 1024,
    "MIMETypeOfEncapsulatedDocument": "application/pdf",
    "DocumentTitle": "Befund",
    "InstanceCreationDate": "20261122",
    "InstanceNumber": 7,
}


@pytest.mark.parametrize(
    ("kind", "sop_class"),
    [(kind, uids[0]) for kind, uids in records._CLASSES.items()],
    ids=list(records._CLASSES),
)
def test_instance_has_its_own_type_of_record_with_what_it_needs(
    tmp_path: Path, kind: str, sop_class: str
) -> None:
    ds = of_class(sop_class)
    keys = records.LEAVES[kind]
    for keyword in (*keys.needed, *keys.kept):
        if keyword in _VALUES:
            setattr(ds, keyword, _VALUES[keyword])
        elif keyword.endswith("Sequence"):
            setattr(ds, keyword, _code("Imaging Measurement Report"))
    assert write_dicomdir(exported(tmp_path, [encode(ds)])) == []
    (record,) = leaves_of(tmp_path)
    assert record.DirectoryRecordType == kind
    assert record.ReferencedSOPClassUIDInFile == sop_class
    for keyword in keys.needed:
        assert record[keyword].value == ds[keyword].value
    for keyword in keys.kept:
        assert record.get(keyword) == ds.get(keyword, record[keyword].value)


def test_every_class_that_has_a_record_of_its_own_is_one_of_pydicoms_names() -> None:
    """A typing error in the table would make its class an image."""
    known = {uids for found in records._CLASSES.values() for uids in found}
    assert all(uid.UID(found).name != found for found in known)
    assert len(known) == sum(map(len, records._CLASSES.values()))


def test_title_of_a_report_is_carried_over_without_the_report(tmp_path: Path) -> None:
    ds = of_class(uid.ComprehensiveSRStorage)
    ds.ConceptNameCodeSequence = _code("Befund")
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = "Müller^Jörg"
    modifier, text = Dataset(), Dataset()
    modifier.RelationshipType, modifier.ConceptNameCodeSequence = "HAS CONCEPT MOD", _code("Größe")
    text.RelationshipType, text.TextValue = "CONTAINS", "much that is nobody's business here"
    ds.ContentSequence = [modifier, text]
    assert write_dicomdir(exported(tmp_path, [encode(ds)])) == []
    (record,) = leaves_of(tmp_path)
    assert (record.CompletionFlag, record.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    (kept,) = record.ContentSequence
    assert kept.ConceptNameCodeSequence[0].CodeMeaning == "Größe"
    patient = dcmread(tmp_path / "DICOMDIR").DirectoryRecordSequence[0]
    assert patient.PatientName == "Müller^Jörg"


@pytest.mark.parametrize("times", [1, 20_000], ids=["short", "longer-than-a-short-form-can-say"])
def test_modifiers_of_a_title_in_long_types_are_carried_over_readably(
    tmp_path: Path, times: int
) -> None:
    ds = of_class(uid.ComprehensiveSRStorage)
    ds.ConceptNameCodeSequence = _code("Befund")
    ds.ContentSequence = []
    for n in range(1, 4):
        modifier = Dataset()
        modifier.RelationshipType, modifier.ValueType = "HAS CONCEPT MOD", "TEXT"
        modifier.TextValue = "said " * n * times  # UT
        modifier.ConceptNameCodeSequence = _code("Language")
        modifier.ConceptNameCodeSequence[0].LongCodeValue = "de-CH" * n  # UC
        ds.ContentSequence.append(modifier)
    other = make_instance(1, 2)
    assert write_dicomdir(exported(tmp_path, [encode(ds), other])) == []
    image, record = sorted(leaves_of(tmp_path), key=lambda record: record.DirectoryRecordType)
    assert (image.DirectoryRecordType, record.DirectoryRecordType) == ("IMAGE", "SR DOCUMENT")
    values = [str(kept.TextValue).strip() for kept in record.ContentSequence]
    assert values == [("said " * n * times).strip() for n in (1, 2, 3)]
    codes = [kept.ConceptNameCodeSequence[0].LongCodeValue for kept in record.ContentSequence]
    assert codes == ["de-CH", "de-CH" * 2, "de-CH" * 3]


def test_directory_that_cannot_be_read_is_not_put_in_place(tmp_path: Path) -> None:
    root = file_set._Record(b"", {b"P": file_set._Record(b"")})
    with pytest.raises(Refused):
        file_set._check_readable(file_set._encode(root)[:-1], root)
    with pytest.raises(ValueError, match="does not name the files"):
        file_set._check_readable(file_set._encode(root), root)


@pytest.mark.parametrize("odd", _ODD.values(), ids=_ODD.keys())
def test_odd_value_is_filled_in_and_its_file_listed(
    tmp_path: Path, odd: tuple[int, str, object]
) -> None:
    files = [make_instance(1, 1), odd_file(2, 1, odd), make_instance(1, 3)]
    exported(tmp_path, files)
    assert write_dicomdir(tmp_path) == []
    assert [str(r.ReferencedFileID[1]) for r in leaves_of(tmp_path)] == [
        "IM000001",
        "IM000003",
        "IM000002",
    ]
    assert bytes_of(tmp_path) == set(files)


@pytest.mark.parametrize(
    ("keyword", "value", "listed"),
    [
        ("InstanceNumber", b"1.0 ", 1),
        ("InstanceNumber", b"1.5 ", 3),
        ("InstanceNumber", b"A1", 3),
        ("InstanceNumber", b"456115117112105110101 ", 3),
        ("SeriesNumber", b"2.0 ", 2),
        ("StudyDate", b"2026.01.15", "20260115"),
        ("StudyTime", b"10:15:00", "101500"),
        ("StudyDate", b"NX DE_XXXXXXXXXX", "19000101"),
        ("Modality", b"ct", "CT"),
        ("Modality", b"ct lower case and much too long ", "OT"),
    ],
)
def test_number_or_date_that_is_none_is_read_or_filled_in(
    tmp_path: Path, keyword: str, value: bytes, listed: object
) -> None:
    ds, tag = make_dataset(1, 1), tag_for_keyword(keyword) or 0
    ds[tag] = DataElement(tag, "LO", value.decode())
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    raw = encode(ds).replace(start + b"LO", start + dictionary_VR(tag).encode())
    assert value in raw
    exported(tmp_path, [raw])
    (tmp_path / "SE000001" / "IM000001").rename(tmp_path / "SE000001" / "IM000003")
    assert write_dicomdir(tmp_path) == []
    found = [r for r in dcmread(tmp_path / "DICOMDIR").DirectoryRecordSequence if keyword in r]
    assert [r[keyword].value for r in found] == [listed]


def test_file_without_patient_dates_and_numbers_is_listed(tmp_path: Path) -> None:
    ds = make_dataset(1, 1)
    for keyword in ("StudyDate", "StudyDescription", "InstanceNumber"):
        del ds[keyword]
    ds.PatientName = ds.PatientID = ds.Modality = ""
    assert write_dicomdir(exported(tmp_path, [encode(ds)])) == []
    assert levels_of(tmp_path) == ["PATIENT", "STUDY", "SERIES", "IMAGE"]


def test_private_classes_are_listed_as_private_or_by_what_they_hold(tmp_path: Path) -> None:
    private, image = of_class("1.3.12.2.1107.5.9.1", 1), make_dataset(1, 2)
    document = of_class("1.3.46.670589.11.0.0.12.1", 3)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid.UID("1.2.840.113619.4.30")
    document.MIMETypeOfEncapsulatedDocument = "text/xml"
    exported(tmp_path, [encode(private), encode(image), encode(document)])
    assert write_dicomdir(tmp_path) == []
    kinds = [record.DirectoryRecordType for record in leaves_of(tmp_path)]
    assert kinds == ["PRIVATE", "IMAGE", "ENCAP DOC"]


def test_what_cannot_be_listed_is_named_with_the_reason(tmp_path: Path) -> None:
    plain = make_instance(1, 1)
    report = of_class(uid.BasicTextSRStorage, 2)
    unknown = of_class("1.2.840.10008.5.1.4.1.1.999.1", 3)
    seriesless = make_dataset(1, 4)
    del seriesless.SeriesInstanceUID
    bare = encode(make_dataset(1, 5))[132:]
    files = [plain, encode(report), encode(unknown), encode(seriesless), bare]
    exported(tmp_path, files)
    exported(tmp_path, [make_instance(1, 1, size=32)], name="OV")
    unlisted = write_dicomdir(tmp_path)
    assert unlisted == [
        Unlisted(
            "SE000001/IM000002",
            "it has no ConceptNameCodeSequence, which its directory record needs",
        ),
        Unlisted("SE000001/IM000003", "no directory record is known for its SOP class"),
        Unlisted("SE000001/IM000004", "it has no SeriesInstanceUID"),
        Unlisted("SE000001/IM000005", "it is not a DICOM file as in PS3.10 7.1"),
        Unlisted("SE000001/OV000001", "an older version of an instance"),
    ]
    assert len(leaves_of(tmp_path)) == 1
    assert bytes_of(tmp_path) == {*files, make_instance(1, 1, size=32)}


def test_one_sop_instance_uid_in_two_series_is_two_images(tmp_path: Path) -> None:
    first, second = make_dataset(1, 1), make_dataset(1, 1, series=1)
    second.SeriesInstanceUID = f"{second.StudyInstanceUID}.2"
    exported(tmp_path, [encode(first), encode(second)])
    assert write_dicomdir(tmp_path) == []
    assert levels_of(tmp_path) == ["PATIENT", "STUDY", "SERIES", "IMAGE", "SERIES", "IMAGE"]


def test_two_patients_under_one_study_are_two_patients(tmp_path: Path) -> None:
    first, second = make_dataset(1, 1), make_dataset(1, 2)
    second.PatientName, second.PatientID = "Davis^Dora", "PD2"
    exported(tmp_path, [encode(first), encode(second)])
    assert write_dicomdir(tmp_path) == []
    found = dcmread(tmp_path / "DICOMDIR").DirectoryRecordSequence
    names = [r.PatientName for r in found if r.DirectoryRecordType == "PATIENT"]
    assert names == ["Synthetic^Person", "Davis^Dora"]


def test_folder_of_which_nothing_can_be_listed_stays_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [make_instance(n, 1)[132:] for n in range(3)]
    exported(tmp_path, files)
    with pytest.raises(StoreError, match="none of the exported files can be listed") as caught:
        write_dicomdir(tmp_path)
    assert caught.value.unlisted == [  # type: ignore[attr-defined]
        Unlisted(f"SE000001/IM00000{n}", "it is not a DICOM file as in PS3.10 7.1")
        for n in (1, 2, 3)
    ]
    assert capfd.readouterr() == ("", "")  # a command that writes it says what it has to say
    assert [p.name for p in tmp_path.iterdir()] == ["SE000001"]
    assert bytes_of(tmp_path) == set(files)


def test_builder_that_fails_at_its_end_has_touched_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [make_instance(1, n) for n in range(3)]
    exported(tmp_path, files)
    (tmp_path / "DICOMDIR").mkdir()  # in its way
    with pytest.raises(StoreError, match=r"could not be written .* ended with status 1"):
        write_dicomdir(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.rglob("IM*")) == ["IM000001", "IM000002", "IM000003"]
    assert bytes_of(tmp_path) == set(files)


def plain_records(directory: Dataset) -> list[Dataset]:
    """Return a DICOMDIR's records without offsets: its own new UID before them varies in length."""
    found = list(directory.DirectoryRecordSequence)
    for record in found:
        del record.OffsetOfTheNextDirectoryRecord
        del record.OffsetOfReferencedLowerLevelDirectoryEntity
    return found


def test_child_that_writes_it_writes_what_is_written_here(tmp_path: Path) -> None:
    """Here, what it takes is counted as covered; in the child nothing is."""
    ds = make_dataset(1, 9)
    ds.PatientName, ds.SpecificCharacterSet = "山田^太郎", "ISO_IR 192"
    files = [make_instance(s, n) for s in (1, 2) for n in (1, 2)]
    files += [encode(ds), *(odd_file(3, n, odd) for n, odd in enumerate(_ODD.values(), 1)), b"x"]
    written = []
    for name in ("here", "child"):
        (tmp_path / name).mkdir()
        folder = exported(tmp_path / name, files)
        if name == "here":
            file_set.make_file_set(folder)
        else:
            write_dicomdir(folder)
        written.append(plain_records(dcmread(folder / "DICOMDIR")))
    assert written[0] == written[1]
    assert levels_of(tmp_path / "here").count("IMAGE") >= 5


def zipped(folder: Path) -> Path:
    """Return a ZIP file of a folder's files, as an export writes it."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for found in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(found, found.relative_to(folder).as_posix())
    return path


def test_zip_file_gets_the_dicomdir_that_its_folder_would_get(tmp_path: Path) -> None:
    report = encode(of_class(uid.BasicTextSRStorage, 2))
    folder = tmp_path / "study"
    folder.mkdir()
    exported(folder, [make_instance(s, n) for s in (1, 2) for n in (1, 2)] + [report, b"x"])
    (folder / "ATTACHED").mkdir()
    (folder / "ATTACHED" / "AT000001.pdf").write_bytes(b"%PDF")
    with zipped(folder).open("rb") as handle:
        made, unlisted = dicomdir_of_zip(handle)
    assert unlisted == write_dicomdir(folder)
    assert [one.name for one in unlisted] == ["SE000001/IM000005", "SE000001/IM000006"]
    read = plain_records(dcmread(io.BytesIO(made)))
    assert read == plain_records(dcmread(folder / "DICOMDIR"))
    with zipped(folder).open("rb") as source:
        here = io.BytesIO()
        file_set.write_file_set(source, here)  # here it is counted as covered
    again = here.getvalue().split(b"\n", 1)[1]
    assert plain_records(dcmread(io.BytesIO(again))) == read


def test_zip_file_of_which_nothing_can_be_listed_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    exported(folder, [b"x"])
    with (
        zipped(folder).open("rb") as handle,
        pytest.raises(NoDicomdir, match="none of the exported files") as caught,
    ):
        dicomdir_of_zip(handle)
    assert [one.name for one in caught.value.unlisted] == ["SE000001/IM000001"]


def test_builder_that_cannot_read_the_zip_file_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK, and nothing of it")
    with (
        (tmp_path / "no.zip").open("rb") as handle,
        pytest.raises(NoDicomdir, match="could not be made"),
    ):
        dicomdir_of_zip(handle)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]\nx",
        b'{"bytes": 2, "unlisted": {}}\nx',
        b'{"bytes": 1, "unlisted": {}}',
        b'{"bytes": 1, "unlisted": []}\nx',
        b"[" * 100_000 + b"\n",
    ],
)
def test_builder_that_was_taken_over_or_killed_is_not_believed(said: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        dicomdir._made(said)


def test_reasons_of_a_builder_that_was_taken_over_are_bounded() -> None:
    unlisted = {"SE000001/IM000001": "w" * 500, "../../etc/passwd": "no", "SE000001/IM000002": 5}
    said = json.dumps({"bytes": 0, "unlisted": unlisted}).encode() + b"\n"
    assert dicomdir._made(said) == (b"", [Unlisted("SE000001/IM000001", "w" * 100)])
