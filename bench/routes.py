"""The CT study through a relay, beside the same study sent directly: `python -m bench.routes`.

Then small studies on each route: from the offer to the first chunk that the receiver has checked.
Pairs of nodes, each with a directory and its relay, on one machine; the routes alternate. Writes
results-routes.md.
"""

import os
import queue
import shutil
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pydicom
from emix.admin.v1 import admin_pb2 as pb

from bench.ct_study import make_ct_study
from bench.demo import Outcome, running_network
from bench.run import DATA, Ours
from node.errors import NodeError
from node.rpc.blocking import BlockingChannel, open_blocking_channel
from node.rpc.methods import methods
from tests.support.nodes import Node

RESULTS = Path(__file__).with_name("results-routes.md")
RUNS = int(os.environ.get("RUNS", "5"))
OFFERS = 20
_ROUTES = ("direct", "relay")
_ALL_ROUTES = ("direct", "dial-back", "relay")
_METHODS = {m.name: m for m in methods(pb.DESCRIPTOR.services_by_name["TransferService"])}


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
    offers = first_bytes()
    medians = {route: statistics.median(found) for route, found in seconds.items()}
    text = (
        "# Routes\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. The CT study of 530 MB, from the"
        f" command to the verified receipt; both nodes, directory and relay on one machine,"
        f" alternated, medians of {RUNS}.\n\n"
        "| direct | by relay | throughput by relay | to reach |\n|---|---|---|---|\n"
        f"| {medians['direct']:.2f} s | {medians['relay']:.2f} s |"
        f" {100 * medians['direct'] / medians['relay']:.0f} % | 80 % |\n\n"
        f"The relay has carried {relayed.relayed_bytes:,} bytes.\n\n"
        "From an offer (the call `Send`) to the first chunk that the receiver has checked, a study"
        f" of one small instance, median and longest of {OFFERS} on each route. The peers are"
        " connected already; the route lan differs from direct in the address only.\n\n"
        "| route | median | longest |\n|---|---|---|\n"
        + "".join(
            f"| {route} | {1000 * statistics.median(found):.0f} ms | {1000 * max(found):.0f} ms |\n"
            for route, found in offers.items()
        )
    )
    RESULTS.write_text(text)
    print(text)


class Offers:
    """Sends small studies on one route, and notes when the first chunk has come."""

    def __init__(self, a: Node, b: Node, folder: Path, stack: ExitStack) -> None:
        self._a, self._b = a, b
        self._studies = iter(_small_studies(folder / "small"))
        self._sender, receiver = (
            stack.enter_context(open_blocking_channel(f"unix:{node.home / 'admin.sock'}"))
            for node in (a, b)
        )
        self._came: queue.Queue[tuple[str, float]] = queue.Queue()
        threading.Thread(target=self._watch, args=(receiver,), daemon=True).start()

    def _watch(self, receiver: BlockingChannel) -> None:
        seen = set()
        with (
            suppress(NodeError),  # the end
            receiver.stream(_METHODS["WatchTransfers"], pb.WatchTransfersRequest()) as events,
        ):
            for event in events:
                transfer = event.transfer
                if transfer.bytes_done and transfer.transfer_id not in seen:
                    seen.add(transfer.transfer_id)
                    self._came.put((transfer.study_instance_uid, time.perf_counter()))

    def once(self) -> float:
        """Return the seconds from an offer to its first chunk at the receiver."""
        study, file = next(self._studies)
        self._a.run("import", str(file))
        request = pb.SendRequest(study=study, facility=self._b.display_name)
        started = time.perf_counter()
        self._sender.whole(_METHODS["Send"], request)
        came, when = self._came.get(timeout=60)
        if came != study:
            raise RuntimeError("another study came")
        return when - started


def first_bytes() -> dict[str, list[float]]:
    """Return the seconds from offers to their first chunks, by route."""
    seconds: dict[str, list[float]] = {route: [] for route in _ALL_ROUTES}
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    try:
        with ExitStack() as stack:
            offers = {}
            for route in _ALL_ROUTES:
                (folder / route).mkdir()
                network = running_network(folder / route, route, Outcome())
                a, b = stack.enter_context(network)
                offers[route] = Offers(a, b, folder / route, stack)
            for _ in range(OFFERS):
                for route in _ALL_ROUTES:
                    seconds[route].append(offers[route].once())
    finally:
        shutil.rmtree(folder)
    return seconds


def _small_studies(folder: Path) -> list[tuple[str, Path]]:
    folder.mkdir()
    source = Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm"
    made = []
    for n in range(OFFERS):
        ds = pydicom.dcmread(source)
        ds.StudyInstanceUID = pydicom.uid.generate_uid()
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        ds.save_as(folder / f"{n}.dcm")
        made.append((str(ds.StudyInstanceUID), folder / f"{n}.dcm"))
    return made


if __name__ == "__main__":
    main()
