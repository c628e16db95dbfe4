"""Synthetic DICOM files for tests, and where the packages' real ones are."""

import importlib.util
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.10.1338.7."


def make_dataset(study: int, instance: int, *, size: int = 64, series: int = 1) -> FileDataset:
    """Return a small CT instance; `size` is its number of rows and columns."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    uid = f"{ROOT}{study}.{series}.{instance}"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid)
    ds = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = uid
    ds.StudyInstanceUID = f"{ROOT}{study}"
    ds.SeriesInstanceUID = f"{ROOT}{study}.{series}"
    ds.PatientName = "Synthetic^Person"
    ds.PatientID = f"P{study}"
    ds.StudyDate = "20261124"
    ds.StudyDescription = "Made for a test"
    ds.Modality = "CT"
    ds.InstanceNumber = instance
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = size
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.PixelData = struct.pack("<H", (study * 131 + instance) % 65536) * (size * size)
    return ds


def encode(ds: FileDataset) -> bytes:
    """Return a dataset as a Part 10 file."""
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def make_instance(study: int, instance: int, *, size: int = 64, series: int = 1) -> bytes:
    """Return a small CT instance as a Part 10 file."""
    return encode(make_dataset(study, instance, size=size, series=series))


def make_noisy_instance(study: int, instance: int, *, size: int = 256) -> bytes:
    """Return a CT instance with structure and noise, as real ones have."""
    ds = make_dataset(study, instance, size=size)
    noise = np.random.default_rng(instance).normal(0, 10, (size, size))
    y, x = np.mgrid[0:size, 0:size]
    plane = 1000 + 1000 * np.hypot(y - size / 2, x - size / 2) / size + noise
    ds.PixelData = np.rint(plane).astype("<u2").tobytes()
    return encode(ds)


def write_study(folder: Path, study: int, instances: int, *, size: int = 64) -> Path:
    """Write a synthetic study; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(1, instances + 1):
        (folder / f"{n:05d}.dcm").write_bytes(make_instance(study, n, size=size))
    return folder


def study_uid(study: int) -> str:
    """Return the Study Instance UID of a synthetic study."""
    return f"{ROOT}{study}"


def corpus_roots() -> list[Path]:
    """Return the folders with real DICOM files of pydicom, pydicom-data and pynetdicom."""
    roots = [
        Path(pydicom.__file__).parent / "data",
        Path(pynetdicom.__file__).parent / "tests" / "dicom_files",
    ]
    found = importlib.util.find_spec("data_store")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("pydicom-data is not installed")
    roots.append(Path(next(iter(found.submodule_search_locations))))
    return roots


def part10_files() -> Iterator[Path]:
    """Yield every file of the packages that begins as a Part 10 file does."""
    for root in corpus_roots():
        for path in sorted(root.rglob("*")):
            if path.is_file():
                with path.open("rb") as handle:
                    if handle.read(132)[128:] == b"DICM":
                        yield path
