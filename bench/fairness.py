"""What one hostile peer costs another, and the owner's commands: `python -m bench.fairness`.

A paired peer attacks on one core at the lowest priority, while an honest one sends studies and the
owner asks for the status. The baseline is the same attacker at a port that takes connections and
drops all that comes. Both alternate, ABBA. Writes results-fairness.md.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.attacker import FLOODS, is_of_strangers
from tests.integration.attacks.damage import write_noise
from tests.support.dicom_files import study_uid
from tests.support.nodes import Node, two_nodes

RESULTS = Path(__file__).with_name("results-fairness.md")
ATTACKS = ("rest", "calls", "offers", "manifests", "chunks", *FLOODS)
ROUNDS = int(os.environ.get("RUNS", "2"))
STUDY_MEGABYTES = 400
BEFORE_SECONDS, TRANSFERS = 8, 3
"""An attack goes on for so long, for it may begin with a burst; then so many are sent."""


@dataclass
class Figures:
    """Seconds of each transfer and each command, in one situation."""

    transfers: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)


@dataclass
class Result:
    """One attack beside its baseline."""

    attack: str
    baseline: Figures
    attacked: Figures

    @property
    def kept(self) -> float:
        """The part of the honest peer's rate that is left, by medians."""
        before = statistics.median(self.baseline.transfers)
        return before / statistics.median(self.attacked.transfers)

    @property
    def slowest_command(self) -> float:
        """The longest that the owner waited."""
        return max(self.attacked.commands)


@contextmanager
def dropping_port() -> Iterator[str]:
    """A port that takes connections and drops all that comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drop(connection: socket.socket) -> None:
            with connection:
                while connection.recv(2**16):
                    pass

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=drop, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


class Attacker:
    """The attacking process, on one core at the lowest priority."""

    def __init__(self, folder: Path, victim: Node) -> None:
        command = [sys.executable, "-m", "bench.attacker", str(folder)]
        core = str(min(os.sched_getaffinity(0)))
        self._process = subprocess.Popen(
            ["nice", "-n", "19", "taskset", "-c", core, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._hear("ready")
        victim.run("peers", "pair", str(folder / "attacker.statements"))
        victim.run("id", "--export", str(folder / "theirs.statements"), "--no-qr")

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        heard = self._process.stdout.readline().strip()
        assert heard == word, heard

    def order(self, attack: str, address: str) -> None:
        """Begin an attack."""
        assert self._process.stdin is not None
        print(attack, address, file=self._process.stdin, flush=True)
        self._hear("begun")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def measure(sender: Node, receiver: Node, figures: Figures) -> None:
    """Send the study once more, and ask for the status meanwhile."""
    receiver.run("delete", study_uid(1), "--yes")
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            started = time.monotonic()
            receiver.json("status")
            figures.commands.append(time.monotonic() - started)
            done.wait(0.2)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        started = time.monotonic()
        sender.run("send", study_uid(1), receiver.display_name, "--again", "--wait")
        figures.transfers.append(time.monotonic() - started)
    finally:
        done.set()
        asking.join()


def run(folder: Path, attacks: tuple[str, ...], rounds: int) -> list[Result]:
    """Measure each attack beside its baseline, in turns."""
    results = []
    with ExitStack() as stack:
        honest, victim = stack.enter_context(two_nodes(folder))
        dropped = stack.enter_context(dropping_port())
        honest.run("import", str(write_noise(folder / "study", 1, STUDY_MEGABYTES)))
        honest.run("send", study_uid(1), victim.display_name, "--wait")
        (folder / "attacker").mkdir()
        attacker = Attacker(folder / "attacker", victim)
        stack.callback(attacker.stop)
        for attack in attacks:
            result = Result(attack, Figures(), Figures())
            door = "introduction" if is_of_strangers(attack) else "peer"
            turns = [(dropped, result.baseline), (victim.addresses[door], result.attacked)]
            for _ in range(rounds):
                for address, figures in turns:
                    attacker.order(attack, address)
                    time.sleep(BEFORE_SECONDS)
                    for _ in range(TRANSFERS):
                        measure(honest, victim, figures)
                turns.reverse()
            results.append(result)
            print(line(result), flush=True)
    return results


def line(result: Result) -> str:
    """Return a row of the table."""
    return (
        f"| {result.attack} | {statistics.median(result.baseline.transfers):.2f} s"
        f" | {statistics.median(result.attacked.transfers):.2f} s | {result.kept:.0%}"
        f" | {statistics.median(result.attacked.commands) * 1000:.0f} ms"
        f" | {result.slowest_command * 1000:.0f} ms |"
    )


def main() -> None:
    """Measure all and write the results."""
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), tuple(sys.argv[1:]) or ATTACKS, ROUNDS)
    head = (
        "# What one hostile peer costs another\n\n"
        f"A study of {STUDY_MEGABYTES} MB sent by an honest peer, medians of {ROUNDS * TRANSFERS};"
        f" `emix status` meanwhile. The attack has gone on for {BEFORE_SECONDS} s before each."
        " `rest` is no attack: what it keeps shows how noisy the machine is."
        " Written by `python -m bench.fairness`.\n\n"
        "| attack | at a dropping port | at the node | rate kept | status, median | slowest |\n"
        "|---|---|---|---|---|---|\n"
    )
    RESULTS.write_text(head + "\n".join(map(line, results)) + "\n")


if __name__ == "__main__":
    main()
