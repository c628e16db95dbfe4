"""Slow and long lines: `python -m bench.lines`, into results-lines.md. Needs root, for namespaces.

Two nodes on two hosts with a line between them (`bench.long_line`). For each line, one study and
200 small ones are sent; how full the line was is what came out at its far end by what it could
carry, from the command to the last receipt. Then the start of a transfer, loss, and rsync beside
ours. `CONGESTION` names the hosts' congestion control: cubic, as most systems have it.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from emix.admin.v1 import admin_pb2 as pb

from bench import peers
from bench.ct_study import make_ct_study
from bench.long_line import LongLine
from bench.run import DATA
from node.rpc.blocking import open_blocking_channel
from node.rpc.methods import methods
from tests.support.nodes import Node, wait_until

RESULTS = Path(__file__).with_name("results-lines.md")
CONGESTION = os.environ.get("CONGESTION", "cubic")
RUNS = int(os.environ.get("RUNS", "3"))
_ROOT = "1.2.826.0.1.3680043.10.1338.12."
_LINES = tuple(
    (rate, rtt)
    for rate, trips in ((10, (40, 150, 600)), (50, (40, 150, 600)), (200, (40, 150)))
    for rtt in trips
)
# Slices of the one study, by megabits a second: each has the line busy for half a minute and more.
_SLICES = {10: 200, 50: 1000, 200: 1000}
_SMALL = 200  # studies; by megabits a second, slices of each
_SMALL_SLICES = {10: 1, 50: 3, 200: 5}
_FIRST_CHUNK_BYTES = 20_000  # more than an offer with its manifest has
_SEND = {m.name: m for m in methods(pb.DESCRIPTOR.services_by_name["TransferService"])}["Send"]


@dataclass
class Sent:
    """What a send took: seconds, the share of the line that it filled, and its bytes.

    `full` is of the whole time, `under_way` without the first quarter and the last twentieth of the
    bytes: without the command's start, the slow start of TCP, and the last receipts. `payload` is
    all that went there without headers of IP and TCP; `sealed` what had to.
    """

    seconds: float
    full: float
    under_way: float
    payload: int
    sealed: int

    @property
    def more(self) -> float:
        """Bytes beyond the sealed ones, as a share of them."""
        return self.payload / self.sealed - 1


class Nodes:
    """Two nodes at the ends of a line."""

    def __init__(self, folder: Path, line: LongLine) -> None:
        self.line = line
        self.a = Node(folder, "near", "Great Falls Clinic")
        self.b = Node(folder, "far", "Billings Hospital")
        self._is_so = (0.0, 0.0, 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make, start and pair them for the time of the block."""
        both = (self.a, self.b)
        try:
            for side, node in enumerate(both):
                node.prefix = self.line.prefix(side)
                node.make(self.line.hosts[side])
                node.set(lan='"off"')
                node.start()
            for node, other in (both, both[::-1]):
                file = other.home.with_suffix(".emix")
                other.run("id", "--export", str(file), "--no-qr")
                node.run("peers", "pair", str(file))
            self._wait()
            yield
        finally:
            for node in both:
                node.stop()

    def _wait(self) -> None:
        def is_connected() -> bool:
            found = [peer for node in (self.a, self.b) for peer in node.json("peers")["peers"]]
            return all(peer["state"] == "connected" for peer in found)

        wait_until(is_connected, "not connected")

    def compress_small(self) -> None:
        """Have what is imported after the next change of the line be compressed with JPEG-LS."""
        self.a.set(compression='"small"')
        self._is_so = (0.0, 0.0, 0.0)

    def use(self, rate: float, rtt: float, loss: float = 0.0) -> None:
        """Have the line be so: megabits a second, milliseconds, a share.

        The nodes connect anew: TCP would keep what it has learned of the line before.
        """
        if self._is_so == (rate, rtt, loss):
            return
        line = self.line
        self.a.stop()
        self._is_so = (rate, rtt, loss)
        line.rate, line.round_trip, line.loss = rate * 1e6, rtt / 1e3, loss
        self.a.start()
        self._wait()

    def send(self, folder: Path, rate: float, rtt: float, loss: float = 0.0) -> Sent:
        """Import what is in a folder and send it over a line, with one command."""
        self.use(rate, rtt, loss)
        uids, sealed = self._import_anew(folder)
        line, there = self.line, self.line.there
        there.forget()
        started = time.perf_counter()
        self.a.run("send", *uids, self.b.display_name, "--wait", "--yes")
        seconds = time.perf_counter() - started
        full = there.carried * 8 / seconds / line.rate
        return Sent(seconds, full, there.rate_under_way() / line.rate, there.payload, sealed)

    def first_chunk(self, folder: Path, rtt: float) -> float:
        """Return how many round trips pass from the call to the first chunk at the far end."""
        self.use(50, rtt)
        (uid,), _ = self._import_anew(folder)
        self.line.there.forget(mark=_FIRST_CHUNK_BYTES)
        with open_blocking_channel(f"unix:{(self.a.home / 'admin.sock').resolve()}") as channel:
            started = time.perf_counter()
            channel.whole(_SEND, pb.SendRequest(study=uid, facility=self.b.display_name))
            wait_until(lambda: self.line.there.marked, "nothing was sent")
        wait_until(self._is_delivered, "it was not delivered")
        return (self.line.there.marked - started) / rtt * 1000

    def _is_delivered(self) -> bool:
        found = self.a.json("transfers")["transfers"]
        return all(transfer["state"] == "delivered" for transfer in found)

    def _import_anew(self, folder: Path) -> tuple[Sequence[str], int]:
        """Import what is in a folder, once it is at neither; return the studies, and their size."""
        for node in (self.a, self.b):
            for study in node.json("studies")["studies"]:
                node.run("delete", study["study_instance_uid"], "--yes")
        summary = self.a.json("import", str(folder))["summary"]
        return list(summary["study_instance_uids"]), int(summary["sealed_bytes"])


class Studies:
    """What is sent: parts of the CT study, and small studies of its slices."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source = DATA / "ct"
        if not self._source.exists():
            make_ct_study(self._source)

    def one(self, count: int) -> Path:
        """Return a study of so many slices."""
        found = self._folder / f"ct{count}"
        if not found.exists():
            found.mkdir()
            for file in sorted(self._source.iterdir())[:count]:
                os.link(file, found / file.name)
        return found

    def small(self, slices: int) -> Path:
        """Return many studies of so many slices."""
        found = self._folder / f"small{slices}"
        if found.exists():
            return found
        files = sorted(self._source.iterdir())
        for n in range(_SMALL):
            study = f"{_ROOT}{slices}.{n + 1}"
            (found / str(n)).mkdir(parents=True)
            for k in range(slices):
                slice_ = pydicom.dcmread(files[(n * slices + k) % len(files)])
                slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, f"{study}.1"
                uid = pydicom.uid.UID(f"{study}.1.{k + 1}")
                slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = uid
                slice_.save_as(found / str(n) / f"{k}.dcm", enforce_file_format=True)
        return found


def full_lines(nodes: Nodes, studies: Studies) -> list[str]:
    """Return how full each line was."""
    rows = []
    for rate, rtt in _LINES:
        for label, folder in (
            ("one study", studies.one(_SLICES[rate])),
            (f"{_SMALL} studies", studies.small(_SMALL_SLICES[rate])),
        ):
            sent = nodes.send(folder, rate, rtt)
            rows.append(
                f"| {rate} Mbit/s, {rtt} ms | {label} | {sent.sealed / 1e6:.0f} MB |"
                f" {sent.seconds:.1f} s | {100 * sent.full:.0f} % |"
                f" {100 * sent.under_way:.0f} % | {100 * sent.more:.1f} % |"
            )
            print(rows[-1], flush=True)
    return rows


def lossy(nodes: Nodes, folder: Path) -> list[str]:
    """Return how full a line was with and without loss."""
    rows = []
    for loss in (0.0, 0.01):
        sent = nodes.send(folder, 10, 40, loss)
        rows.append(
            f"| {100 * loss:.0f} % | {sent.seconds:.1f} s | {100 * sent.full:.0f} % |"
            f" {100 * sent.under_way:.0f} % |"
        )
        print(rows[-1], flush=True)
    return rows


def beside_rsync(nodes: Nodes, folder: Path, study: Path) -> list[str]:
    """Return a study over 40 ms and 50 Mbit/s, beside rsync -z."""
    theirs = []
    ours: dict[str, list[float]] = {"normal": [], "small": []}
    with peers.rsync_ssh(folder, study, options="-az", line=nodes.line) as (rsync, _):
        for compression, found in ours.items():
            if compression == "small":
                nodes.compress_small()
            for _ in range(RUNS):
                found.append(nodes.send(study, 50, 40).seconds)
                theirs.append(rsync())
                print(f"{compression} {found[-1]:.1f} s, rsync -z {theirs[-1]:.1f} s", flush=True)
    other = statistics.median(theirs)
    return [
        f"| {compression} | {statistics.median(found):.1f} s | {other:.1f} s |"
        f" {other / statistics.median(found):.2f} | {reach} |"
        for (compression, found), reach in zip(ours.items(), ("1.45", "1.6"), strict=True)
    ]


def main() -> None:
    """Measure all and write the results."""
    line = LongLine()
    DATA.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-", dir=DATA))
    try:
        studies, nodes = Studies(folder), Nodes(folder, line)
        with line.laid():
            line.congestion(CONGESTION)
            with nodes.running():
                begun = [nodes.first_chunk(studies.one(1), rtt) for rtt in (150, 600, 600)]
                print("round trips to the first chunk", begun, flush=True)
                full = full_lines(nodes, studies)
                lost = lossy(nodes, studies.one(_SLICES[10]))
                rsync = beside_rsync(nodes, folder, studies.one(200))
    finally:
        shutil.rmtree(folder)
    trips = statistics.median(begun)
    text = "\n".join(
        [
            "# Slow and long lines",
            "",
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, congestion control"
            f" {CONGESTION}. Two nodes on two hosts; packets between them are delayed, paced and"
            " lost by a program (bench/long_line.py), with a queue of a round trip, at least 0.1 s."
            " From the command to the last receipt.",
            "",
            "*Full*: what came out of the line, by what it could carry in that time; *under way*:"
            " without the first quarter and the last twentieth of the bytes, which have the start"
            " of the command, TCP's slow start and the last receipts. *More*: bytes without headers"
            " of IP and TCP beyond the sealed chunks, manifests among them.",
            "",
            "| line | sent | sealed | took | full | under way | more |",
            "|---|---|---|---|---|---|---|",
            *full,
            "",
            f"From the call to the first chunk at the far end: {trips:.1f} round trips (median of"
            f" {len(begun)}).",
            "",
            "One study at 10 Mbit/s and 40 ms, with packets lost each way:",
            "",
            "| loss | took | full | under way |",
            "|---|---|---|---|",
            *lost,
            "",
            f"200 CT slices at 50 Mbit/s and 40 ms, medians of {RUNS}, alternated:",
            "",
            "| compression | ours | rsync -z | times as fast | to reach |",
            "|---|---|---|---|---|",
            *rsync,
            "",
        ]
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
