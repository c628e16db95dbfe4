"""What does not grow with a node: `python -m bench.grown`, into results-grown.md.

The start of a node that has 100,000 packages, and what a transfer costs with 10,000 that wait
beside it, or 50,000 that are done.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import cores
from node.app.home import Home, unlock
from node.chunks.files import FileChunkStorage
from node.domain.ids import ChunkId, FacilityId
from node.store import package_rows
from node.store.context import StoreContext, open_store
from tests.support.dicom_files import write_study
from tests.support.history import History, fill
from tests.support.nodes import Node, two_nodes, wait_until

RESULTS = Path(__file__).with_name("results-grown.md")
RUNS = int(os.environ.get("RUNS", "5"))
PACKAGES, WAITING, DONE = 100_000, 10_000, 50_000
_FEW = 100
_MEASURED, _BEGIN = 400, 50  # transfers
_SOMEBODY = FacilityId(bytes(31) + b"\1")


@contextmanager
def _opened(node: Node) -> Iterator[StoreContext]:
    """Open the store of a node that does not run."""
    unlocked = unlock(Home(node.home), None)
    context = open_store(
        node.home, unlocked.root_key, unlocked.secrets, unlocked.signer, reserve_bytes=0
    )
    try:
        yield context
    finally:
        context.close()


def starts(folder: Path, packages: int) -> tuple[float, float]:
    """Return seconds and core-seconds of the start of a node with so many packages."""
    node = Node(folder, "grown", "Great Falls Clinic")
    node.make()
    with _opened(node) as context:
        fill(context, History(_SOMEBODY, packages // 2, packages - packages // 2))
        context.database.write_sync(lambda db: db.execute("DELETE FROM peers"))  # it states nothing
        storage = context.storage
        assert isinstance(storage, FileChunkStorage)
        chunks = context.database.read_sync(
            lambda db: db.execute("SELECT chunk_id FROM chunks").fetchall()
        )
        for (name,) in chunks:
            path = storage._path(ChunkId(name))
            path.parent.mkdir(exist_ok=True)
            path.touch()
        names = context.envelopes
        for package in context.database.read_sync(
            lambda db: package_rows.find_packages(db, "1", ())
        ):
            names.path(names.name(package.origin, package.package_id)).touch()
    seconds, spent = [], []
    for _ in range(RUNS):
        before, began = cores.used(), time.perf_counter()
        node.start()
        seconds.append(time.perf_counter() - began)
        node.stop()  # its core-seconds are known once it has ended
        spent.append(cores.used() - before)
    return statistics.median(seconds), statistics.median(spent)


def transfer(folder: Path, *, waiting: int = _FEW, done: int = _FEW) -> float:
    """Return the milliseconds of a transfer of one small instance, among so many others."""
    source = folder / "source"
    for n in range(1, _MEASURED + waiting + 1):
        write_study(source / str(n), n, 1)
    with two_nodes(folder) as (a, b):
        (peer,) = a.json("peers")["peers"]
        a.stop()
        with _opened(a) as context:
            fill(context, History(FacilityId.parse(peer["facility_id"]), done, 0))
        a.start()
        a.run("import", str(source))
        b.stop()
        a.run("send", "--all", "Synthetic", b.display_name, "--yes")
        b.start()

        def arrived() -> int:
            return int(b.json("status")["studies"])

        wait_until(lambda: arrived() >= _BEGIN, "nothing came", 120)
        first, began = arrived(), time.perf_counter()
        wait_until(lambda: arrived() >= first + _MEASURED - 2 * _BEGIN, "it stopped", 300)
        last, took = arrived(), time.perf_counter() - began
        return 1000 * took / (last - first)


def main() -> None:
    """Measure all and write the results."""
    with tempfile.TemporaryDirectory(prefix="emix-bench-") as name:
        seconds, spent = starts(Path(name), PACKAGES)
    print(f"start: {seconds:.2f} s, {spent:.2f} core-seconds", flush=True)
    found: dict[str, list[float]] = {}
    for _ in range(RUNS):
        for label, given in (
            (f"{_FEW} wait, {_FEW} are done", {}),
            (f"{WAITING:,} wait", {"waiting": WAITING}),
            (f"{DONE:,} are done", {"done": DONE}),
        ):
            with tempfile.TemporaryDirectory(prefix="emix-bench-") as name:
                found.setdefault(label, []).append(transfer(Path(name), **given))
            print(f"{label}: {found[label][-1]:.1f} ms", flush=True)
    medians = {label: statistics.median(values) for label, values in found.items()}
    few = next(iter(medians.values()))
    rows = (f"| {label} | {value:.1f} ms | {value / few:.2f} |" for label, value in medians.items())
    text = "\n".join(
        [
            "# What does not grow",
            "",
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores; medians of {RUNS}.",
            "",
            f"Start of a node with {PACKAGES:,} packages, from the command to the line that says"
            f" that it serves: {seconds:.2f} s (to reach: 3), {spent:.2f} core-seconds with its"
            " end.",
            "",
            "A transfer of one small instance, many at once, of those that go while others wait:",
            "",
            "| beside | a transfer | of the first (to reach: 1.1) |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
