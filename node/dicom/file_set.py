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
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from node.dicom.answering import load_codecs
from node.sandbox.confine import confine_to_folder

MEMORY_LIMIT_BYTES = 2 << 30
SCRATCH = "FILESET"
"""Everything temporary lies below it."""
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
    """Lay the files of a folder out as a File-set; what cannot be listed stays where it is.

    Raises:
        Exception: pydicom found no way to list any of them; the files are as they were.
    """
    scratch = folder / SCRATCH
    scratch.mkdir()
    sources: dict[str, Path] = {}
    headers: list[Dataset] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        header = _header(path)
        # Of several versions the latest, which comes first, is listed.
        if header is not None and str(header.SOPInstanceUID) not in sources:
            sources[str(header.SOPInstanceUID)] = path
            headers.append(header)
    try:
        made, places = _lay_out(headers, scratch)
    except Exception:  # of any kind: a foreign file's values reach deep into pydicom
        listable = [header for header in headers if _is_listable(header, scratch)]
        made, places = _lay_out(listable, scratch)
    for uid, place in places.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        sources[uid].rename(target)
    made.rename(folder / "DICOMDIR")
    shutil.rmtree(scratch)
    for left in sorted(folder.glob("SE*")):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def _lay_out(headers: list[Dataset], scratch: Path) -> tuple[Path, dict[str, Path]]:
    """Return a DICOMDIR of these headers, and by instance the path that it says."""
    # pydicom stages headers in a temporary folder: here, where the files lie open anyway.
    tempfile.tempdir = tempfile.mkdtemp(dir=scratch)
    staging = Path(tempfile.tempdir) / "set"
    file_set = FileSet()
    for header in headers:
        file_set.add(header)
    file_set.write(staging)
    made = staging / "DICOMDIR"
    places = {str(i.SOPInstanceUID): Path(i.path).relative_to(staging) for i in FileSet(made)}
    if places.keys() != {str(header.SOPInstanceUID) for header in headers}:
        raise ValueError("pydicom lists other instances than it was given")
    return made, places


def _is_listable(header: Dataset, scratch: Path) -> bool:
    """Return whether pydicom can list a file by itself."""
    try:
        made, _ = _lay_out([header], scratch)
    except Exception:
        return False
    shutil.rmtree(made.parent.parent)
    return True


def _header(path: Path) -> Dataset | None:
    """Return what a directory record needs of a file; None if it cannot be listed."""
    try:
        return _read_header(path)
    except Exception:  # of any kind, see above
        return None


def _read_header(path: Path) -> Dataset:
    found = dcmread(path, stop_before_pixels=True, specific_tags=list(_KEPT))
    header = Dataset()
    header.file_meta = found.file_meta
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for element in found:
        header.add(element)
    for keyword, default in _DEFAULTS.items():
        if (not header.get(keyword) and default) or keyword not in header:
            setattr(header, keyword, default)
    str(header.SOPInstanceUID)  # it must have one
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
