"""Starting child processes: the only module that does.

A child runs this installation's code and nothing else. Python searches for modules neither in the
current folder nor where the environment says (`python -I`), the child's working folder is the root,
and from the environment it gets only its language. So `emix` may be run in any folder, for example
on a patient's USB stick, whatever files are there.
"""

import os
import select
import site
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import trio

TookTooLong = subprocess.TimeoutExpired
_END_SECONDS = 15.0
_PIECE_BYTES = 64 * 1024
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH")
# A thread of numpy's would prevent a child from leaving its namespaces: only a single-threaded
# process can.
_SET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


_is_apart = ContextVar("is_apart", default=False)


def keep_apart() -> None:
    """Start the children of this task and its subtasks outside this process's signal group.

    For a process to which SIGHUP means a reload: the signal would end its children.
    """
    _is_apart.set(True)


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that has ended: its exit status, and what it wrote."""

    status: int
    output: bytes


def run(module: str, *arguments: str, given: bytes = b"", seconds: float) -> Ended:
    """Run a module of ours to its end. Blocks.

    Args:
        module: Its full name.
        arguments: Of its command line; never a secret.
        given: What it reads from standard input.
        seconds: After so long it is killed.

    Raises:
        OSError: it could not be started.
        TookTooLong: it was killed.
    """
    done = subprocess.run(
        _command(module, arguments),
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=seconds,
        cwd="/",
        env=_environment(),
        process_group=_process_group(),
    )
    return Ended(done.returncode, done.stdout)


async def start(module: str, *arguments: str, fds: Sequence[int]) -> "trio.Process":
    """Start a module of ours that serves on standard input and output.

    Args:
        module: Its full name.
        arguments: Of its command line.
        fds: More files that it has open, under the same numbers.

    Raises:
        OSError: it could not be started.

    Cancellation:
        Either no process was started, or it is ended before this raises.
    """
    import trio  # only here: the other children would load it for nothing

    return await trio.lowlevel.open_process(
        _command(module, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=fds,
        cwd="/",
        env=_environment(),
        process_group=_process_group(),
    )


@contextmanager
def reading(module: str, *arguments: str, given: BinaryIO) -> Iterator[IO[bytes]]:
    """Run a module of ours that reads an open file, for the time of the block; blocks.

    Args:
        module: Its full name.
        arguments: Of its command line; others see it.
        given: Its standard input, from where it stands.

    Yields:
        What it writes, as it comes, unbuffered. Leaving the block ends the process first of all:
        another thread that waits for it then waits no more.

    Raises:
        OSError: it could not be started.
    """
    process = subprocess.Popen(
        _command(module, arguments),
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_environment(),
        process_group=_process_group(),
        bufsize=0,
    )
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    try:
        yield process.stdout
    finally:
        process.kill()
        with suppress(TookTooLong):  # a disk holds it, and will let it go
            process.wait(_END_SECONDS)
        process.stdout.close()


def all_of(output: IO[bytes], *, most_bytes: int, seconds: float) -> bytes:
    """Return all that a child writes. Blocks.

    Args:
        output: As `reading` yields it.
        most_bytes: What is too much.
        seconds: What is too long, from now on.

    Raises:
        ValueError: it is too much, or it did not end in time.
    """
    poll, end, found = select.poll(), time.monotonic() + seconds, bytearray()
    poll.register(output, select.POLLIN)
    while len(found) <= most_bytes and poll.poll(max(0.0, end - time.monotonic()) * 1000):
        piece = output.read(_PIECE_BYTES)
        if not piece:
            return bytes(found)
        found += piece
    raise ValueError("a process of ours wrote too much, or for too long")


def _process_group() -> int | None:
    return 0 if _is_apart.get() else None


def _command(module: str, arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, *_isolation(), "-m", module, *arguments]


def _isolation() -> list[str]:
    """Return `-I`, or what of it still finds a package that was installed with `pip --user`."""
    if site.ENABLE_USER_SITE and Path(__file__).is_relative_to(site.getusersitepackages()):
        return ["-E", "-P"]
    return ["-I"]


def _environment() -> dict[str, str]:
    """Return the least that a child needs of the environment: no secret of the node's."""
    return {**_SET, **{name: os.environ[name] for name in _KEPT if name in os.environ}}
