"""The bench's study: 1,000 CT slices of 512x512x16 bit, from a real head CT and fixed noise.

The volume is Debian's `invesalius-examples` (Cranium.inv3, 256x256x108 voxels), upsampled
trilinearly and given Gaussian noise of 10 HU, as reconstruction at clinical dose leaves it;
without noise everything would compress absurdly well. The headers are those of a real CT.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

VOLUME = Path("/usr/share/doc/invesalius-examples/examples/Cranium.inv3")
SHAPE = (108, 256, 256)
NOISE_HU = 10.0
SEED = 20261124
DIGEST = Path(__file__).with_name("ct_study.sha256")
_ROOT = "1.2.826.0.1.3680043.10.1338."


class NoVolume(Exception):
    """The package with the volume is not installed."""


def make_ct_study(folder: Path, slices: int = 1000, *, first: int = 0, study: int = 1) -> None:
    """Write the study as Part 10 files; the same files every time."""
    folder.mkdir(parents=True, exist_ok=True)
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    template.StudyInstanceUID = f"{_ROOT}{study}"
    template.SeriesInstanceUID = f"{_ROOT}{study}.1"
    template.Rows = template.Columns = 512
    template.RescaleIntercept = 0
    template.PixelRepresentation = 1
    for n, pixels in enumerate(_slices(slices), start=first):
        uid = pydicom.uid.UID(f"{_ROOT}{study}.1.{n + 1}")
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = uid
        template.InstanceNumber = n + 1
        template.SliceLocation = template.ImagePositionPatient[2] = f"{n * 0.25:.2f}"
        template.PixelData = pixels.tobytes()
        template.save_as(folder / f"CT{n + 1:05d}.dcm", enforce_file_format=True)


def _slices(count: int) -> Iterator[NDArray[np.int16]]:
    """Yield slices between the volume's, each with its own noise."""
    volume = _volume().astype(np.float32)
    noise = np.random.default_rng(SEED)
    for position in np.linspace(0, SHAPE[0] - 1, count):
        low = min(int(position), SHAPE[0] - 2)
        part = position - low
        plane = volume[low] * (1 - part) + volume[low + 1] * part
        fine = _doubled(_doubled(plane, 0), 1)
        noisy = fine + noise.normal(0, NOISE_HU, fine.shape)
        yield np.clip(np.rint(noisy), -1024, 3071).astype("<i2")


def _doubled(plane: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Interpolate linearly to twice the samples along one axis."""
    size = plane.shape[axis]
    where = np.linspace(0, size - 1, 2 * size)
    low = np.clip(where.astype(int), 0, size - 2)
    part = (where - low).reshape([-1 if i == axis else 1 for i in range(plane.ndim)])
    above = np.take(plane, low + 1, axis)
    result: NDArray[np.float32] = np.take(plane, low, axis) * (1 - part) + above * part
    return result


def _volume() -> NDArray[np.int16]:
    if not VOLUME.exists():
        raise NoVolume("install Debian's invesalius-examples: bench/setup.sh does")
    with tarfile.open(VOLUME) as archive:
        member = next(m for m in archive if m.name.endswith("matrix.dat"))
        handle = archive.extractfile(member)
        if handle is None:
            raise NoVolume("the package has another form than expected")
        return np.frombuffer(handle.read(), dtype="<i2").reshape(SHAPE)


def study_digest(folder: Path) -> str:
    """Return one digest over all files of a study, names included."""
    hasher = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        hasher.update(path.name.encode())
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def hold_digest(folder: Path) -> None:
    """Check a study made here against the digest that is checked in."""
    if study_digest(folder) != DIGEST.read_text().split()[0]:
        raise NoVolume("the study made here is not the one that the figures are about")
