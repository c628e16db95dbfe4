"""`python -m bench.against COMMIT`: import, send and export beside those of another commit.

Both run in turn on the same machine, A B A B, each from a tree and an environment of its own, and
the medians are compared: core-seconds of all processes, and seconds, of each kind of work. "Not
worse" means core-seconds within 5 %.
"""

import inspect
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import cores
from bench.ct_study import hold_digest, make_ct_study
from bench.run import DATA

RUNS = int(os.environ.get("RUNS", "5"))
ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results-against.md")
_WORK = ("start", "import", "send", "export", "import small", "send small")
"""What is measured apart. To start is: two homes are made, two nodes started and paired. Small are
100 studies of three instances of 8 KB; they are sent with a command each."""

# This runs in the tree that is measured, with what that tree has for running nodes.
_ROUND = (
    inspect.getsource(cores)
    + """
import json, sys, time

try:
    from tests.support.nodes import two_nodes
except ImportError:
    from bench.nodes import two_nodes

from tests.support.dicom_files import study_uid, write_study

study, folder = Path(sys.argv[1]), Path(sys.argv[2])
found = {}

def timed(name, work):
    cores, begun = used(), time.perf_counter()
    done = work()
    found[name] = {"seconds": time.perf_counter() - begun, "core seconds": used() - cores}
    return done

nodes = two_nodes(folder)
a, b = timed("start", nodes.__enter__)
try:
    summary = timed("import", lambda: a.json("import", str(study)))["summary"]
    uid = summary["study_instance_uids"][0]
    timed("send", lambda: a.run("send", uid, b.display_name, "--wait"))
    timed("export", lambda: b.run("export", uid, str(folder / "out")))
    source = folder / "small"
    for n in range(1, 101):
        write_study(source / str(n), n, 3)
    timed("import small", lambda: a.run("import", str(source)))

    def send_small():
        for n in range(1, 101):
            a.run("send", study_uid(n), b.display_name)
        while b.json("status")["studies"] != "101":
            time.sleep(0.05)

    timed("send small", send_small)
finally:
    nodes.__exit__(None, None, None)
print(json.dumps(found))
"""
)
_Round = dict[str, dict[str, float]]


def main() -> None:
    """Compare this tree with a commit's and print both medians and their ratio."""
    commit = sys.argv[1]
    study = DATA / "ct"
    if not study.exists():
        make_ct_study(study)
    hold_digest(study)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        trees = {"now": _checked_out("HEAD", folder), commit: _checked_out(commit, folder)}
        rounds: dict[str, list[_Round]] = {name: [] for name in trees}
        for _ in range(RUNS):
            for name, tree in trees.items():
                rounds[name].append(_round(tree, study, folder / "homes"))
    rows = []
    for work in _WORK:
        for unit in ("core seconds", "seconds"):
            now, before = (statistics.median(r[work][unit] for r in rounds[name]) for name in trees)
            rows.append(f"| {work}, {unit} | {now:.2f} | {before:.2f} | {now / before:.2f} |")
    text = "\n".join(
        [
            f"# Beside {commit}",
            "",
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores; medians of {RUNS}, in turn.",
            "",
            f"| | {' | '.join(trees)} | ratio |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
    RESULTS.write_text(text)
    print(text)


def _checked_out(commit: str, folder: Path) -> Path:
    """Return a tree of a commit with the environment that its own lock describes."""
    tree = folder / f"tree-{commit}"
    tree.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    subprocess.run(["make", "-s", ".venv/.ready"], cwd=tree, check=True)
    return tree


def _round(tree: Path, study: Path, homes: Path) -> _Round:
    homes.mkdir()
    try:
        done = subprocess.run(
            [str(tree / ".venv/bin/python"), "-c", _ROUND, str(study), str(homes)],
            cwd=tree,
            stdout=subprocess.PIPE,
            check=True,
        )
        found: _Round = json.loads(done.stdout)
        return found
    finally:
        shutil.rmtree(homes)


if __name__ == "__main__":
    main()
