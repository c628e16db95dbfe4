"""`make bench`: ours and each peer in turn, in one run; medians and ratios into results.md."""

import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from bench import cores, peers
from bench.ct_study import hold_digest, make_ct_study
from tests.support.nodes import Node, two_nodes

RUNS = int(os.environ.get("RUNS", "5"))
DATA = Path(__file__).parent / ".data"
RESULTS = Path(__file__).with_name("results.md")
Once = Callable[[], float]


class Ours:
    """Our own figures: each call does the whole thing once, from the command line."""

    def __init__(self, a: Node, b: Node, study: Path, folder: Path) -> None:
        self._a, self._b, self._study, self._folder = a, b, study, folder
        self._uid = ""
        self.sealed = (0, 0)

    def do_import(self) -> float:
        """Import the study anew."""
        self._forget(self._a)
        started = time.perf_counter()
        summary = self._a.json("import", str(self._study))["summary"]
        seconds = time.perf_counter() - started
        self._uid = summary["study_instance_uids"][0]
        self.sealed = (int(summary["sealed_bytes"]), int(summary["plaintext_bytes"]))
        return seconds

    def send(self) -> float:
        """Send it, to the verified receipt; imported anew, or it would be delivered already."""
        self.do_import()
        self._forget(self._b)
        return self._timed(self._a, "send", self._uid, self._b.display_name, "--wait")

    def export(self) -> float:
        """Export it at the receiver."""
        out = self._folder / "export"
        shutil.rmtree(out, ignore_errors=True)
        return self._timed(self._b, "export", self._uid, str(out))

    def folder_to_folder(self) -> float:
        """Import, send and export."""
        seconds = self.do_import()
        self._forget(self._b)
        seconds += self._timed(self._a, "send", self._uid, self._b.display_name, "--wait")
        return seconds + self.export()

    def _timed(self, node: Node, *command: str) -> float:
        started = time.perf_counter()
        node.run(*command)
        return time.perf_counter() - started

    def _forget(self, node: Node) -> None:
        for study in node.json("studies")["studies"]:
            node.run("delete", study["study_instance_uid"], "--yes")


def _alternate(name: str, ours: Once, others: dict[str, Once]) -> list[str]:
    """Run ours and the peers in turn; return table rows."""
    seconds: dict[str, list[float]] = {"ours": [], **{other: [] for other in others}}
    for n in range(RUNS):
        for label, once in (("ours", ours), *others.items()):
            seconds[label].append(once())
            print(f"{name} {n + 1}/{RUNS} {label}: {seconds[label][-1]:.2f} s", flush=True)
    mine = statistics.median(seconds["ours"])
    rows = []
    for other in others:
        theirs = statistics.median(seconds[other])
        reach = REACH.get((name, other), "reported")
        rows.append(
            f"| {name} against {other} | {mine:.2f} s | {theirs:.2f} s |"
            f" {theirs / mine:.2f} | {reach} |"
        )
    return rows


REACH = {
    ("send", "storescu TLS"): "2",
    ("send", "rsync ssh"): "2.5",
    ("send", "Orthanc peer"): "6",
    ("import", "Orthanc import"): "3",
    ("import", "borg create"): "4",
    ("export", "borg extract"): "4",
}


def main() -> None:
    """Run all and write the results."""
    study = DATA / "ct"
    if not study.exists():
        make_ct_study(study)
    hold_digest(study)
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    rows: list[str] = []
    try:
        with ExitStack() as stack:
            a, b = stack.enter_context(two_nodes(folder))
            ours = Ours(a, b, study, folder)
            storescu = stack.enter_context(peers.storescu(folder, study))
            enter = stack.enter_context
            rows += _alternate(
                "import",
                ours.do_import,
                {
                    "Orthanc import": enter(peers.orthanc_import(folder, study)),
                    "borg create": enter(peers.borg_create(folder, study)),
                },
            )
            rows += _alternate(
                "send",
                ours.send,
                {
                    "storescu TLS": storescu,
                    "rsync ssh": enter(peers.rsync_ssh(folder, study))[0],
                    "Orthanc peer": enter(peers.orthanc_peer(folder, study)),
                },
            )
            rows += _alternate(
                "export", ours.export, {"borg extract": enter(peers.borg_extract(folder, study))}
            )
            rows += _alternate(
                "folder to folder", ours.folder_to_folder, {"storescu TLS": storescu}
            )
            memory = {node.display_name: _peak_memory(node) for node in (a, b)}
    finally:
        shutil.rmtree(folder)
    RESULTS.write_text(_report(rows, ours.sealed, memory))
    print(RESULTS.read_text())


def _peak_memory(node: Node) -> float:
    assert node.process is not None
    return cores.peak_memory(node.process.pid)


def _report(rows: list[str], sealed: tuple[int, int], memory: dict[str, float]) -> str:
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    packages = ", ".join(f"{p} {version(p)}" for p in ("grpcio", "numpy", "PyNaCl", "pydicom"))
    head = [
        "# Bench results",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({cpu}), Linux {platform.release()},"
        f" Python {platform.python_version()}; {packages}; {_versions()}.",
        "",
        "1,000 CT slices, 530 MB (bench/ct_study.py). Ours and the peer alternated in one run,"
        f" medians of {RUNS}; ours from the command line to its end, durable and receipted.",
        "",
        "| what | ours | peer | times as fast | to reach |",
        "|---|---|---|---|---|",
    ]
    tail = [
        f"| sealed size | {100 * sealed[0] / sealed[1]:.1f} % | | | at most 50 % |",
        *(f"| peak memory, {name} | {mb:.0f} MB | | | 300 MB |" for name, mb in memory.items()),
        "",
    ]
    return "\n".join([*head, *rows, *tail])


def _versions() -> str:
    found = []
    for command in (["storescu", "--version"], ["borg", "--version"], ["rsync", "--version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words = (done.stdout or done.stderr).replace("$dcmtk:", "").split()
        found.append(" ".join(words[:3]))
    return "; ".join(found)


if __name__ == "__main__":
    main()
