"""What import makes of odd files, beside DCMTK, Orthanc and pydicom: `python -m bench.odd_inputs`.

Writes docs/odd-inputs.md. A file counts as read by DCMTK if dcmconv reads and writes it without an
error, by pydicom if it walks every element and finds the instance, by Orthanc if it takes the
upload and gives the same bytes back.
"""

import json
import subprocess
import tempfile
import urllib.error
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom

from bench.peers import Orthanc
from tests.cases import Case, files, media, studies
from tests.support.nodes import Node

PAGE = Path(__file__).resolve().parents[1] / "docs" / "odd-inputs.md"
_HEAD = """\
# Odd inputs, and what import makes of them

`python -m bench.odd_inputs` writes this page from the generators in `tests/cases/`; where the like
was reported stands in them. What at least two of DCMTK, Orthanc and pydicom read whole is carried,
and flagged where it is odd; so is what can be read in one way only. Import keeps the bytes as they
came. `tests/cases/test_files.py` and `test_import.py` hold the column *emix*.

## Files

How many of a case's files each takes: DCMTK {dcmtk} (dcmconv reads and writes it), Orthanc
{orthanc} (takes the upload and gives the same bytes back), pydicom {pydicom} (walks every element
and finds the instance).

| what is odd | files | emix | DCMTK | Orthanc | pydicom |
|---|---|---|---|---|---|
"""
_MEDIA = """
## Discs, folders and archives

| what is odd | emix |
|---|---|
"""


def main() -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="emix-odd-") as name:
        folder = Path(name)
        node = Node(folder, "odd", "Odd Clinic")
        node.make()
        node.start()
        orthanc = Orthanc(folder, "odd")
        try:
            with orthanc.running():
                text = _HEAD.format(
                    dcmtk=_version("dcmconv", "--version"),
                    orthanc=_version("Orthanc", "--version"),
                    pydicom=pydicom.__version__,
                )
                readers = (_dcmtk_reads, _orthanc_reader(orthanc), _pydicom_reads)
                for case in (*files.CASES, *studies.CASES):
                    if not case.is_large:
                        text += _row(node, case, folder, readers)
                text += _MEDIA
                for case in media.CASES:
                    text += f"| {case.kind} | {_ours(node, case, folder)} |\n"
        finally:
            node.stop()
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def _version(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(word for word in said.replace("v", " ").split() if word[:1].isdigit())


def _row(node: Node, case: Case, folder: Path, readers: tuple[Callable[[Path], bool], ...]) -> str:
    ours = _ours(node, case, folder)
    found = sorted(path for path in (folder / case.name).rglob("*") if path.is_file())
    counts = [str(sum(map(reads, found))) for reads in readers]
    return f"| {case.kind} | {len(found)} | {ours} | {' | '.join(counts)} |\n"


def _ours(node: Node, case: Case, folder: Path) -> str:
    """Return what import says of a case, as the table has it."""
    case.make(folder / case.name)
    summary = node.json("import", str(folder / case.name), statuses=(0, 1))["summary"]
    counts = Counter({name: int(value) for name, value in summary.items() if str(value).isdigit()})
    counts["carried"] -= counts["flagged"]
    words = {
        "carried": "carried",
        "flagged": "flagged",
        "refused": "refused",
        "not_dicom": "not DICOM",
        "missing": "missing",
    }
    parts = [f"{counts[name]:,} {word}" for name, word in words.items() if counts[name]]
    return ", ".join(parts) or "no DICOM was found"


def _dcmtk_reads(path: Path) -> bool:
    with tempfile.NamedTemporaryFile() as out:
        done = subprocess.run(
            ["dcmconv", "-q", str(path), out.name],
            capture_output=True,
            check=False,
        )
    return done.returncode == 0


def _orthanc_reader(orthanc: Orthanc) -> Callable[[Path], bool]:
    def reads(path: Path) -> bool:
        content = path.read_bytes()
        try:
            made = json.loads(orthanc.call("/instances", content))
            return orthanc.call(f"/instances/{made['ID']}/file") == content
        except (urllib.error.URLError, KeyError, TypeError):
            return False

    return reads


def _pydicom_reads(path: Path) -> bool:
    try:
        found = pydicom.dcmread(path, force=True)
        for _ in found.iterall():
            pass
        return bool(found.get("SOPInstanceUID") and found.get("StudyInstanceUID"))
    except Exception:  # of any kind, for odd files
        return False


if __name__ == "__main__":
    main()
