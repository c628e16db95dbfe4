"""Core-seconds and memory of processes, as the kernel counts them."""

# `against` runs this in trees of other commits too: it has to stand by itself.
import os
from pathlib import Path


def used() -> float:
    """Return core-seconds of all processes below this one."""
    return _of(os.getpid(), itself=False)


def of_process(pid: int) -> float:
    """Return core-seconds of a process and of all below it."""
    return _of(pid, itself=True)


def peak_memory(pid: int) -> float:
    """Return the most memory that a process has held, in MB (10**6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def _of(root: int, *, itself: bool) -> float:
    """A process that ended is counted once its parent has waited for it."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            pid = int(entry.name)
            parents[pid] = int(fields[1])
            own = 0 if pid == root and not itself else sum(map(int, fields[11:13]))
            ticks[pid] = own + sum(map(int, fields[13:15]))
    total = 0
    for pid, spent in ticks.items():
        above = pid
        while above != root and above in parents:
            above = parents[above]
        if above == root:
            total += spent
    return total / os.sysconf("SC_CLK_TCK")
