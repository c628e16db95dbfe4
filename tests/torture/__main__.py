"""Run the sweeps and write what they found to docs/reliability.md."""

import datetime
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_HEAD = """\
# Reliability: the last run of the long sweeps

`make torture` writes this page. It runs what is too long for every change: {names}.
Each line is printed by the sweep itself; a sweep that finds a loss fails, and the page says so.

Run on {date}, commit {commit}, Linux {kernel}, Python {python}, {cores} cores.

"""


def main() -> int:
    """Run all sweeps, or those named; return pytest's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures")
        figures.touch()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "torture", "-v", "--timeout=0", *sys.argv[1:]],
            cwd=ROOT,
            env={**os.environ, "EMIX_FIGURES": str(figures)},
            check=False,
        )
        lines = figures.read_text(encoding="utf-8").splitlines()
    names = (
        "kills at each system call, random kills, flipped bits, changed streams of codecs,"
        " and properties with many examples"
    )
    page = _HEAD.format(
        names=names,
        date=datetime.datetime.now(datetime.UTC).date(),
        commit=_commit(),
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        cores=os.cpu_count(),
    )
    page += "\n".join(f"- {line}" for line in lines) + "\n"
    if done.returncode:
        page += f"\n**A sweep failed** (pytest's exit status {done.returncode}).\n"
    (ROOT / "docs/reliability.md").write_text(page, encoding="utf-8")
    print(page)
    return done.returncode


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
