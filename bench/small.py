"""Many small studies and the start of commands: `python -m bench.small`, into results-small.md.

Each size is done once from the command line: what a round costs is what a thousand of the same cost
together. Core-seconds are those of the nodes, with their parsers.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import cores
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import Node, two_nodes

RESULTS = Path(__file__).with_name("results-small.md")
STUDIES = int(os.environ.get("STUDIES", "1000"))
SINGLE = int(os.environ.get("SINGLE", "5000"))
RUNS = int(os.environ.get("RUNS", "5"))


def many(folder: Path, studies: int, instances: int) -> list[str]:
    """Import that many studies with one command, send them with one; return rows of the table."""
    source = folder / "source"
    for n in range(1, studies + 1):
        write_study(source / str(n), n, instances)
    what = f"{studies:,} studies of {instances}"
    with two_nodes(folder) as (a, b):
        uids = [study_uid(n) for n in range(1, studies + 1)]
        done = [
            _row(f"import, {what}", studies, (a, b), lambda: a.run("import", str(source))),
            _row(
                f"send, {what}, to the last receipt",
                studies,
                (a, b),
                lambda: a.run("send", *uids, b.display_name, "--wait", "--yes"),
            ),
        ]
        arrived = len(b.json("studies")["studies"])
        if arrived != studies:
            raise RuntimeError(f"{arrived} of {studies} studies arrived")
        memory = ", ".join(f"{cores.peak_memory(_pid(node)):.0f} MB" for node in (a, b))
    return [f"{row} {memory} |" for row in done]


def _row(label: str, count: int, nodes: tuple[Node, Node], work: Callable[[], object]) -> str:
    before = [_of(node) for node in nodes]
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    spent = [_of(node) - was for node, was in zip(nodes, before, strict=True)]
    print(f"{label}: {seconds:.1f} s", flush=True)
    milliseconds = ", ".join(f"{1000 * s / count:.1f} ms" for s in spent)
    return f"| {label} | {seconds:.1f} s | {1000 * seconds / count:.1f} ms | {milliseconds} |"


def _of(node: Node) -> float:
    return cores.of_process(_pid(node))


def _pid(node: Node) -> int:
    assert node.process is not None
    return node.process.pid


def commands(folder: Path) -> list[str]:
    """Return how long commands take that do next to nothing."""
    rows = []
    with two_nodes(folder) as (a, _):
        for arguments in (("--help",), ("status",)):
            seconds = []
            for _n in range(4 * RUNS):
                started = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "node", "--home", str(a.home), *arguments],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                seconds.append(time.perf_counter() - started)
            rows.append(f"| `emix {' '.join(arguments)}` | {statistics.median(seconds):.3f} s |")
    return rows


def main() -> None:
    """Measure all and write the results."""
    rows = []
    for studies, instances in ((STUDIES, 3), (SINGLE, 1)):
        with tempfile.TemporaryDirectory(prefix="emix-bench-") as name:
            rows += many(Path(name), studies, instances)
    with tempfile.TemporaryDirectory(prefix="emix-bench-") as name:
        started = commands(Path(name))
    lines = [
        "# Many small studies",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. Instances of 8 KB. One command each;"
        " core-milliseconds of a study are those of a node and its parsers.",
        "",
        "| what | took | a study | of which sender, receiver | peak memory: sender, receiver |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Medians of {4 * RUNS}, from the start of Python to its end:",
        "",
        "| command | took |",
        "|---|---|",
        *started,
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
