"""Mutation testing: do the tests notice when the code is wrong? `python -m tests.mutation FOLDER`.

500 mutants are drawn by seed from cryptography, documents, the machines of a transfer and the
walker, in proportion to how many each has. It takes an hour or two and is not part of any tier;
`docs/testing.md` has the score and says why the survivors survive. cosmic-ray is not among the
dependencies: `pip install cosmic-ray==8.7.0` into an environment of its own, whose command
`COSMIC_RAY` names. The working tree is changed while it runs, so give it a clone.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

SEED, MUTANTS, SECONDS = 20261127, 500, 120.0
_COMMAND = os.environ.get("COSMIC_RAY", "cosmic-ray")
_UNIT = (
    f"{sys.executable} -m pytest -x -q -p no:cacheprovider --hypothesis-seed=0"
    " -m 'not slow and not alone and not torture and not integration'"
)

GROUPS = {
    "crypto": (
        ["node/crypto"],
        "tests/node/crypto tests/vectors tests/node/documents tests/node/chunks",
    ),
    "documents": (["node/documents"], "tests/node/documents tests/vectors tests/node/exchange"),
    "machines": (
        ["node/exchange/transfer/sender_machine.py", "node/exchange/transfer/receiver_machine.py"],
        "tests/node/exchange/transfer",
    ),
    "walker": (
        [
            "node/dicom/walker.py",
            "node/dicom/dataset.py",
            "node/dicom/stream.py",
            "node/dicom/examine.py",
        ],
        "tests/node/dicom/test_edges.py tests/cases/test_files.py tests/node/dicom/test_walker.py"
        " tests/node/dicom/test_directories.py",
    ),
}
"""What is mutated, and the tests that have to notice."""


def _config(group: str, folder: Path) -> Path:
    paths, tests = GROUPS[group]
    path = folder / f"{group}.toml"
    path.write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(paths)}\n"
        f"timeout = {SECONDS}\n"
        "excluded-modules = []\n"
        f"test-command = {json.dumps(f'{_UNIT} {tests}')}\n"
        "[cosmic-ray.distributor]\n"
        'name = "local"\n'
    )
    return path


def draw(folder: Path) -> None:
    """Make a session for each group, and leave in them the mutants that are drawn."""
    found = []
    for group in GROUPS:
        session = folder / f"{group}.sqlite"
        session.unlink(missing_ok=True)
        subprocess.run([_COMMAND, "init", str(_config(group, folder)), str(session)], check=True)
        with sqlite3.connect(session) as db:
            rows = db.execute(
                "SELECT w.job_id FROM work_items w JOIN mutation_specs m ON m.job_id = w.job_id"
                " ORDER BY m.module_path, m.operator_name, m.occurrence"
            )
            found += [(group, job) for (job,) in rows]
    drawn = set(random.Random(SEED).sample(found, min(MUTANTS, len(found))))
    print(f"{len(drawn)} of {len(found)} mutants")
    for group in GROUPS:
        with sqlite3.connect(folder / f"{group}.sqlite") as db:
            for job in [job for of, job in found if of == group and (of, job) not in drawn]:
                db.execute("DELETE FROM mutation_specs WHERE job_id = ?", (job,))
                db.execute("DELETE FROM work_items WHERE job_id = ?", (job,))


def report(folder: Path) -> None:
    """Print how many were killed, and each survivor."""
    for group in GROUPS:
        with sqlite3.connect(folder / f"{group}.sqlite") as db:
            rows = db.execute(
                "SELECT r.test_outcome, m.module_path, m.start_pos_row, m.operator_name, r.diff"
                " FROM work_results r JOIN mutation_specs m ON m.job_id = r.job_id"
            ).fetchall()
        counts = Counter(str(row[0]).rpartition(".")[2].upper() for row in rows)
        # What does not even run says nothing of the tests.
        judged = counts["KILLED"] + counts["SURVIVED"]
        print(f"{group}: {counts['KILLED']} of {judged} killed; {dict(counts)}")
        for outcome, path, line, operator, diff in sorted(rows):
            if not str(outcome).upper().endswith("KILLED"):
                print(f"\n{outcome} {path}:{line} {operator}\n{diff}")


def main() -> None:
    """Draw, run what was not run yet, report."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / f"{group}.sqlite").exists() for group in GROUPS):
        draw(folder)
    for group in GROUPS:  # without a mutant they all pass, or nothing is learnt
        subprocess.run([_COMMAND, "baseline", str(folder / f"{group}.toml")], check=True)
    for group in GROUPS:
        config, session = folder / f"{group}.toml", folder / f"{group}.sqlite"
        subprocess.run([_COMMAND, "exec", str(config), str(session)], check=True)
    report(folder)


if __name__ == "__main__":
    main()
