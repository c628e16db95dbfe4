"""No patient string in anything on disk: 200 planted ones, and a scanner that finds them all."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.support.dicom_files import encode, make_dataset, study_uid
from tests.support.nodes import Node, two_nodes

pytestmark = pytest.mark.integration

STUDY = 77
PLANTED = 200


class Planted:
    """Strings, each in several encodings, that must not be found."""

    def __init__(self) -> None:
        self.needles: dict[str, list[bytes]] = {}

    def add(self, text: str, *encodings: str) -> str:
        forms = {text.encode("utf-8")}
        forms |= {text.encode(encoding) for encoding in encodings}
        forms |= {form.hex().encode() for form in tuple(forms)}
        self.needles[text] = sorted(forms)
        return text

    def found_in(self, folders: list[Path]) -> set[str]:
        """Return which strings occur in the names or contents of any file."""
        found = set()
        for folder in folders:
            for path in folder.rglob("*"):
                data = str(path.relative_to(folder)).encode()
                if path.is_file():
                    try:
                        data += b"\0" + path.read_bytes()
                    except FileNotFoundError:
                        continue  # a temporary file that is gone by now
                found |= {t for t, forms in self.needles.items() if any(f in data for f in forms)}
        return found


def plant(folder: Path) -> Planted:
    """Write a study with planted strings in all kinds of places; return them."""
    planted = Planted()
    for n in range(PLANTED // 8):
        ds = make_dataset(STUDY, n + 1, size=128)
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        ds.PatientName = planted.add(f"Planted{n:03d}^Vorname", "utf-16-le")
        ds.PatientID = planted.add(f"PLANTED-ID-{n:03d}")
        ds.SOPInstanceUID = planted.add(f"1.2.826.0.1.3680043.10.1338.777.{n}.424242")
        ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(ds.SOPInstanceUID)
        private = ds.private_block(0x0011, "PLANTED TEST", create=True)
        private.add_new(1, "LO", planted.add(f"planted-private-{n:03d}"))
        item = Dataset()
        item.CodeMeaning = planted.add(f"planted-in-sequence-{n:03d}")
        inner = Dataset()
        inner.RequestedProcedureDescription = planted.add(f"planted-deeper-{n:03d}")
        item.RequestAttributesSequence = Sequence([inner])
        ds.ProcedureCodeSequence = Sequence([item])
        japanese = planted.add(f"山田太郎{n:03d}", "iso2022_jp")
        ds.StudyDescription = japanese
        name = planted.add(f"planted-path-{n:03d}")
        path = folder / name / "image.dcm"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(ds))
    return planted


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node, Path]]:
    folder = tmp_path_factory.mktemp("planted")
    with two_nodes(folder / ".") as (a, b):
        yield a, b, folder


@pytest.mark.filterwarnings("ignore")
def test_none_of_the_planted_strings_is_ever_on_disk(
    pair: tuple[Node, Node, Path], tmp_path: Path
) -> None:
    a, b, folder = pair
    source = tmp_path / "source"
    planted = plant(source)
    assert len(planted.needles) == PLANTED
    assert planted.found_in([source]) == set(planted.needles), "the scanner finds them all"

    seen: set[str] = set()
    is_over = threading.Event()

    def scan() -> None:
        while not is_over.is_set():
            seen.update(planted.found_in([folder]))

    scanner = threading.Thread(target=scan)
    scanner.start()
    try:
        _use(a, b, source, tmp_path)
    finally:
        is_over.set()
        scanner.join()
    seen |= planted.found_in([folder])
    assert seen == set()


def _use(a: Node, b: Node, source: Path, tmp_path: Path) -> None:
    """Import, send, list, kill, restart, export; a broken and a held file as well."""
    broken = source / "planted-path-000" / "broken.dcm"
    whole = (source / "planted-path-000" / "image.dcm").read_bytes()
    broken.write_bytes(whole[:-100])
    (source / "planted-path-001" / "held.dcm").write_bytes(b"MZ" + whole[2:])
    a.run("import", str(source), statuses=(0, 1))
    uid = study_uid(STUDY)
    note = ("--note", "about Planted000")
    a.run("send", uid, b.display_name, *note, "--wait", "--yes", statuses=(1,))  # one is held
    b.run("studies", "Planted000")
    a.kill()
    a.start()
    a.run("held")
    a.run("transfers")
    a.run("audit", "verify")
    b.run("export", uid, str(tmp_path / "out"))
    b.run("delete", uid, "--yes")
    b.stop()
    b.start()
