"""What any version has written is opened by this one, and says what it said."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.catalogue import VECTORS, described

FOLDERS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "says.json").exists())
FILES = [path for folder in FOLDERS for path in sorted(folder.iterdir())]


def test_nothing_of_what_was_written_has_changed() -> None:
    assert FOLDERS
    for folder in FOLDERS:
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        found = {p.name for p in folder.iterdir()} - {"SHA256SUMS"}
        assert found == {line.split()[1] for line in lines}
        for line in lines:
            digest, name = line.split()
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name in VECTORS],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_what_was_written_once_says_the_same(path: Path) -> None:
    says = json.loads((path.parent / "says.json").read_text())
    now = described(VECTORS[path.name].open(path.read_bytes()))
    assert _as_before(now, says[path.name]) == says[path.name]


def _as_before(now: Any, before: Any) -> Any:
    """Return a value without fields that came since and are empty: formats are only added to."""
    if isinstance(now, dict) and isinstance(before, dict):
        return {k: _as_before(v, before.get(k)) for k, v in now.items() if k in before or v}
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        return [_as_before(*pair) for pair in zip(now, before, strict=True)]
    return now


def test_everything_that_is_written_now_has_a_vector() -> None:
    newest = {path.name for path in FOLDERS[-1].iterdir()}
    assert newest >= set(VECTORS), "python -m tests.vectors.make NAME"


@pytest.mark.parametrize("name", VECTORS)
def test_what_is_written_now_is_opened(name: str) -> None:
    assert described(VECTORS[name].open(VECTORS[name].make()))
