"""Giving an exported folder a DICOMDIR (PS3.10 §8), in a process of its own.

`python -m node.dicom.file_set FOLDER` reads the headers of the files in FOLDER, has pydicom lay
out a File-set from them, and moves the files, untouched, to where the DICOMDIR says that they
are. It runs pydicom on foreign headers, so it runs confined in memory, in time, and to FOLDER;
a failure costs the DICOMDIR, never a file.
"""

import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from node.dicom.answering import load_codecs
from node.sandbox.confine import confine_to_folder

MEMORY_LIMIT_BYTES = 2 << 30
# What directory records need (PS3.3 F.5) and a file may lack: filled in the directory only.
_DEFAULTS = {
    "PatientID": "UNKNOWN",
    "PatientName": "",
    "StudyDate": "19000101",
    "StudyTime": "000000",
    "StudyID": "1",
    "StudyDescription": "",
    "AccessionNumber": "",
    "Modality": "OT",
    "SeriesNumber": "1",
    "InstanceNumber": "1",
}
_KEPT = (
    *_DEFAULTS,
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ContentDate",
    "ContentTime",
    "ContentLabel",
    "ContentDescription",
    "ContentCreatorName",
    "CompletionFlag",
    "VerificationFlag",
    "ConceptNameCodeSequence",
    "StructureSetLabel",
    "StructureSetDate",
    "StructureSetTime",
    "RTPlanLabel",
    "RTPlanDate",
    "RTPlanTime",
    "DoseSummationType",
    "PresentationCreationDate",
    "PresentationCreationTime",
    "ReferencedSeriesSequence",
)


def make_file_set(folder: Path) -> None:
    """Lay the files of a folder out as a File-set."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    staging = folder / "FILESET"
    # pydicom stages headers in a temporary folder: here, where the files lie open anyway.
    tempfile.tempdir = str(folder)
    file_set = FileSet()
    sources: dict[str, Path] = {}
    for path in files:
        header = _header(path)
        if header is None or str(header.SOPInstanceUID) in sources:
            continue  # the latest version is listed; an older one stays where it is
        try:
            file_set.add(header)
        except (ValueError, AttributeError):
            continue  # of a class whose record needs more than the file has
        sources[str(header.SOPInstanceUID)] = path
    file_set.write(staging)
    for instance in FileSet(staging / "DICOMDIR"):
        target = folder / Path(instance.path).relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        sources[str(instance.SOPInstanceUID)].rename(target)
    (staging / "DICOMDIR").rename(folder / "DICOMDIR")
    shutil.rmtree(staging)
    for left in sorted(folder.glob("SE*")):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def _header(path: Path) -> Dataset | None:
    """Return what a directory record needs of a file; None if it cannot be listed."""
    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=list(_KEPT))
    except (InvalidDicomError, OSError, ValueError, NotImplementedError):
        return None
    header = Dataset()
    header.file_meta = found.file_meta
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for element in found:
        header.add(element)
    for keyword, default in _DEFAULTS.items():
        if (not header.get(keyword) and default) or keyword not in header:
            setattr(header, keyword, default)
    return header


def main() -> None:
    """Do it for the folder that is named."""
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    load_codecs()
    confine_to_folder(MEMORY_LIMIT_BYTES, folder)
    make_file_set(folder)


if __name__ == "__main__":
    main()
