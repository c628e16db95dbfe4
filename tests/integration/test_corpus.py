"""Every real Part 10 file of three packages goes from one facility to another."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.support.dicom_files import corpus_roots, part10_files
from tests.support.nodes import Node

NOT_CARRIED = Path(__file__).with_name("not_carried.txt")


def _expected_exceptions() -> dict[str, str]:
    """Return name -> verdict and reason, from the file beside this test."""
    lines = NOT_CARRIED.read_text().splitlines()
    pairs = (line.split(": ", 1) for line in lines if line and not line.startswith("#"))
    return dict(pairs)


def _names(paths: list[Path]) -> dict[str, str]:
    roots = corpus_roots()
    return {
        str(path): f"{root.name}/{path.relative_to(root)}"
        for path in paths
        for root in roots
        if path.is_relative_to(root)
    }


@pytest.mark.integration
def test_every_part10_file_arrives_byte_identical_or_stands_by_name(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    files = list(part10_files())
    names = _names(files)
    corpus = tmp_path / "corpus"
    labels = {}
    for n, path in enumerate(files):
        # Copied under plain names, so that other files of the packages stay out of it.
        copy = corpus / f"{n:04d}"
        corpus.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
        labels[str(copy)] = names[str(path)]
    imported = a.json("import", str(corpus), statuses=(0, 1))
    kept_back = {
        labels[f["label"]]: f"{f['verdict']}, {'; '.join(f['reasons'])}"
        for f in imported["findings"]
        if f["verdict"] in ("hold", "refuse")
    }
    assert kept_back == _expected_exceptions()

    studies = [study["study_instance_uid"] for study in a.json("studies")["studies"]]
    a.run("send", *studies, b.display_name, "--wait")
    found = set()
    for n, study in enumerate(b.json("studies")["studies"]):
        out = tmp_path / f"out{n}"
        b.run("export", study["study_instance_uid"], str(out), "--all-versions")
        found |= {_digest(path) for path in out.rglob("*") if path.is_file()}
    media = {p for p in files if p.name.startswith("DICOMDIR")}
    wanted = {
        _digest(path): names[str(path)]
        for path in files
        if names[str(path)] not in kept_back and path not in media
    }
    assert not {name for digest, name in wanted.items() if digest not in found}
    followed = [path for path in media if names[str(path)] not in kept_back]
    assert imported["summary"]["directories"] == len(followed)
    assert len(found) == len(wanted)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
