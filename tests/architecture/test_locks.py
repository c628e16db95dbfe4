"""Everything that is installed is named by version and digest."""

import re
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.architecture.locks import LOCK, RUNTIME, read_lock, runtime

ROOT = Path(__file__).parents[2]


def test_every_package_that_is_installed_is_locked_with_digests() -> None:
    lock = read_lock(LOCK.read_text())
    installed = {canonicalize_name(one.metadata["Name"]) for one in distributions()}
    assert installed - {"emix", *lock} == set()
    for entry in lock.values():
        first, *digests = re.split(r" \\\n\s*", entry.strip())
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==\S+( ; .*)?", first), first
        assert digests, first
        for digest in digests:
            assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", digest), first
    assert "://" not in LOCK.read_text()  # which index, is for whoever installs


def test_lock_of_what_runs_is_fresh() -> None:
    assert RUNTIME.read_text() == runtime(), "run: python -m tests.architecture.locks --write"


def test_whatever_installs_asks_for_digests() -> None:
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if "pip install" in line:
                parts = [part for part in re.split(r"&&|;", line) if "pip install" in part]
                for part in parts:
                    assert "--require-hashes" in part or "--no-deps" in part, line
