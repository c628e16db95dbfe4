"""Derive what a machine that only runs emix installs, from the lock of everything.

`python -m tests.architecture.locks --write` renews `deploy/requirements.txt`; the test beside this
file proves that it is fresh.
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "constraints.txt"
RUNTIME = ROOT / "deploy" / "requirements.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
HEADER = """\
# What runs emix, by digest: from constraints.txt, by `python -m tests.architecture.locks --write`.
#   pip install --require-hashes --no-deps -r requirements.txt && pip install --no-deps emix-*.whl
"""


def read_lock(text: str) -> dict[str, str]:
    """Return the entry of each package in a lock: its version and the digests of its files."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    return {canonicalize_name(e.split("==")[0]): e for e in entries if "--hash=" in e}


def needed(name: str, extras: Iterable[str] = ()) -> set[str]:
    """Return what a package needs, and what that needs."""
    found: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen = set(waiting)
    while waiting:
        package, wanted = waiting.pop()
        try:
            stated = requires(package) or []
        except PackageNotFoundError:  # of another Python or system than this one
            continue
        for requirement in map(Requirement, stated):
            if not _applies(requirement.marker, wanted):
                continue
            following = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            found.add(following[0])
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def _applies(marker: Marker | None, extras: Iterable[str]) -> bool:
    """Whether a requirement holds on any Python that emix runs on."""
    environments = (
        {"extra": extra, "python_version": version, "python_full_version": f"{version}.0"}
        for extra in (*extras, "")
        for version in PYTHONS
    )
    return marker is None or any(map(marker.evaluate, environments))


def runtime() -> str:
    """Return the lock of what runs emix, with chunks on S3 and the directory on PostgreSQL."""
    lock = read_lock(LOCK.read_text())
    return HEADER + "".join(
        lock[name].rstrip("\n") + "\n" for name in sorted(needed("emix", ["postgres", "s3"]))
    )


if __name__ == "__main__":
    if "--write" in sys.argv:
        RUNTIME.write_text(runtime())
