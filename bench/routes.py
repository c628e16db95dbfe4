"""The CT study through a relay, beside the same study sent directly: `python -m bench.routes`.

Two pairs of nodes and one directory with its relay on one machine; the routes alternate. Writes
results-routes.md.
"""

import os
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.ct_study import make_ct_study
from bench.demo import Outcome, running_network
from bench.run import DATA, Ours

RESULTS = Path(__file__).with_name("results-routes.md")
RUNS = int(os.environ.get("RUNS", "5"))
_ROUTES = ("direct", "relay")


def main() -> None:
    """Run all and write the results."""
    study = DATA / "ct"
    if not study.exists():
        make_ct_study(study)
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    seconds: dict[str, list[float]] = {route: [] for route in _ROUTES}
    relayed = Outcome()
    try:
        with ExitStack() as stack:
            ours: dict[str, Ours] = {}
            for route in _ROUTES:
                (folder / route).mkdir()
                outcome = relayed if route == "relay" else Outcome()
                a, b = stack.enter_context(running_network(folder / route, route, outcome))
                ours[route] = Ours(a, b, study, folder / route)
            for n in range(RUNS):
                for route in _ROUTES:
                    seconds[route].append(ours[route].send())
                    print(f"{route} {n + 1}/{RUNS}: {seconds[route][-1]:.2f} s")
    finally:
        shutil.rmtree(folder)
    medians = {route: statistics.median(found) for route, found in seconds.items()}
    text = (
        "# Routes\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. The CT study of 530 MB, from the"
        f" command to the verified receipt; both nodes, directory and relay on one machine,"
        f" alternated, medians of {RUNS}.\n\n"
        "| direct | by relay | throughput by relay | to reach |\n|---|---|---|---|\n"
        f"| {medians['direct']:.2f} s | {medians['relay']:.2f} s |"
        f" {100 * medians['direct'] / medians['relay']:.0f} % | 80 % |\n\n"
        f"The relay has carried {relayed.relayed_bytes:,} bytes.\n"
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
