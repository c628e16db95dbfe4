"""Sizes other than the CT study: `python -m bench.more`, into results-more.md.

10,000 small instances, one instance of 2 GB, and memory while 1 GB and 4 GB are sent.
"""

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from bench import cores
from bench.ct_study import make_ct_study
from tests.support.nodes import Node, two_nodes

DATA = Path(__file__).parent / ".data"
RESULTS = Path(__file__).with_name("results-more.md")
RUNS = int(os.environ.get("RUNS", "5"))
_ROOT = "1.2.826.0.1.3680043.10.1338.9."


def make_mr_study(folder: Path, count: int = 10_000) -> None:
    """Write instances of 130 KB: 256x256x16 bit, smooth with noise, all different."""
    folder.mkdir(parents=True)
    template = pydicom.dcmread(str(get_testdata_file("MR_small.dcm")))
    template.StudyInstanceUID, template.SeriesInstanceUID = f"{_ROOT}1", f"{_ROOT}1.1"
    template.Rows = template.Columns = 256
    rng = np.random.default_rng(1)
    x = np.linspace(0, 6, 256)
    base = 400 + 300 * np.sin(x)[:, None] * np.cos(x)[None, :]
    for n in range(count):
        uid = pydicom.uid.UID(f"{_ROOT}1.1.{n + 1}")
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = uid
        template.InstanceNumber = n + 1
        pixels = (base + rng.normal(0, 8, base.shape)).astype("<i2")
        template.PixelData = pixels.tobytes()
        template.save_as(folder / f"MR{n + 1:05d}.dcm", enforce_file_format=True)


def make_large_instance(folder: Path, source: Path, megabytes: int = 2000) -> None:
    """Write one multi-frame instance of about 2 GB, its frames the CT study's slices."""
    folder.mkdir(parents=True)
    frames = sorted(source.iterdir())
    first = pydicom.dcmread(frames[0])
    size = len(first.PixelData)
    count = megabytes * 1_000_000 // size
    first.SOPClassUID = first.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(
        "1.2.840.10008.5.1.4.1.1.2.1"
    )
    uid = pydicom.uid.UID(f"{_ROOT}2.1.1")
    first.StudyInstanceUID, first.SeriesInstanceUID = f"{_ROOT}2", f"{_ROOT}2.1"
    first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = uid
    first.NumberOfFrames = count
    first.PixelData = b"".join(
        pydicom.dcmread(frames[n % len(frames)]).PixelData for n in range(count)
    )
    first.save_as(folder / "large.dcm", enforce_file_format=True)


def measure(study: Path, runs: int = RUNS) -> tuple[float, float, list[float]]:
    """Return seconds and megabytes of a send (median), and both nodes' peak memory in MB."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="emix-bench-") as name, two_nodes(Path(name)) as pair:
        a, b = pair
        for n in range(runs):
            summary = a.json("import", str(study))["summary"]
            uid = summary["study_instance_uids"][0]
            started = time.perf_counter()
            a.run("send", uid, b.display_name, "--wait")
            seconds.append(time.perf_counter() - started)
            print(f"{study.name} {n + 1}/{runs}: {seconds[-1]:.2f} s", flush=True)
            for node in pair:
                node.run("delete", uid, "--yes")
        memory = [_peak_memory(node) for node in pair]
    return statistics.median(seconds), int(summary["plaintext_bytes"]) / 1e6, memory


def _peak_memory(node: Node) -> float:
    if node.process is None:
        return math.nan
    return cores.peak_memory(node.process.pid)


def main() -> None:
    """Measure all and write the results."""
    ct = DATA / "ct"
    studies: dict[str, tuple[Path, Callable[[Path], None]]] = {
        "MR, 10,000 instances of 130 KB": (DATA / "mr", make_mr_study),
        "one instance of 2 GB": (DATA / "large", lambda p: make_large_instance(p, ct)),
        "CT, 1 GB": (DATA / "ct1gb", lambda p: make_ct_study(p, 2000, study=11)),
        "CT, 4 GB": (DATA / "ct4gb", lambda p: make_ct_study(p, 8000, study=14)),
    }
    rows = []
    seconds, size, memory = measure(ct)
    rate = size / seconds
    rows.append(("CT, 1,000 instances", size, seconds, memory))
    for label, (path, make) in studies.items():
        if not path.exists():
            make(path)
        seconds, size, memory = measure(path)
        rows.append((label, size, seconds, memory))
        shutil.rmtree(path)
    lines = [
        "# More bench results",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. Sends, from the command to the"
        f" verified receipt; medians of {RUNS}. Memory: their peak, imports too.",
        "",
        "| study | MB | s | MB/s | of the CT study's rate | peak memory: sender, receiver |",
        "|---|---|---|---|---|---|",
        *(
            f"| {label} | {size:.0f} | {s:.2f} | {size / s:.0f} | {size / s / rate:.2f} |"
            f" {memory[0]:.0f} MB, {memory[1]:.0f} MB |"
            for label, size, s, memory in rows
        ),
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
