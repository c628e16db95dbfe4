"""What a confined process still can do, and how it ends where it tries more."""

import signal
import subprocess
import sys

import pytest

_CONFINED = """
import os, socket, sys
from node.sandbox.confine import confine_to_computing
confine_to_computing(1 << 30)
"""


def run(then: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-I", "-c", _CONFINED + then],
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
        cwd="/",
        env={},  # whoever counts what is covered would import and write here
    )


def test_computing_goes_on() -> None:
    """Memory comes and goes, what is open is read and written, and the end is a plain one."""
    done = run(
        "blocks = [bytes(2**20) for _ in range(99)]; del blocks; print(input()[::-1])", b"abc"
    )
    assert (done.returncode, done.stdout) == (0, b"cba\n")


def test_late_import_is_an_error_and_no_end() -> None:
    """Libraries import what they rarely need when they need it."""
    done = run("try:\n  import xml.dom\nexcept ImportError: print('no')")
    assert (done.returncode, done.stdout) == (0, b"no\n")


@pytest.mark.parametrize("then", ["socket.socket()", "os.fork()", "os.kill(0, 0)"])
def test_what_parsing_never_does_ends_it(then: str) -> None:
    assert run(then).returncode == -signal.SIGSYS


def test_memory_is_bounded() -> None:
    done = run("try:\n  bytes(2**31)\nexcept MemoryError: print('no')")
    assert (done.returncode, done.stdout) == (0, b"no\n")
