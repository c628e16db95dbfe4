"""The sealed size of pydicom-data's uncompressed CT, MR and CR files: `python -m bench.sealed`."""

import shutil
import tempfile
import time
from pathlib import Path

import pydicom

from tests.support.dicom_files import part10_files
from tests.support.nodes import Node

RESULTS = Path(__file__).with_name("results-sealed.md")
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_MODALITIES = ("CT", "MR", "CR")


def main() -> None:
    """Import them, each once, and write the result."""
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    source, chosen = folder / "files", set[bytes]()
    source.mkdir()
    for path in part10_files():
        if "data_store" not in path.parts:  # pydicom-data's own
            continue
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        syntax = header.file_meta.get("TransferSyntaxUID", "")
        if syntax in _UNCOMPRESSED and header.get("Modality") in _MODALITIES:
            data = path.read_bytes()
            if data not in chosen:
                chosen.add(data)
                (source / f"{len(chosen):03d}").write_bytes(data)
    node = Node(folder, "node", "Great Falls Clinic")
    try:
        node.make()
        node.start()
        summary = node.json("import", str(source), statuses=(0, 1))["summary"]
    finally:
        node.stop()
        shutil.rmtree(folder)
    sealed, plain = int(summary["sealed_bytes"]), int(summary["plaintext_bytes"])
    text = (
        "# Sealed size\n\n"
        f"{time.strftime('%Y-%m-%d')}. {summary['carried']} of {len(chosen)} uncompressed CT, MR"
        f" and CR files of pydicom-data: {plain:,} bytes, sealed {sealed:,}"
        f" ({100 * sealed / plain:.1f} %; at most 50 %).\n"
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
